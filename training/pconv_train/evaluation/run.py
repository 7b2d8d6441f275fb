"""All methods on all pairs, each result kept in a file at once, so that a run can stop and go on."""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pconv.checkpoint import write_atomically
from PIL import Image
from tqdm import tqdm

from pconv_train.data import UNREADABLE
from pconv_train.evaluation.measure import compose, measure
from pconv_train.evaluation.methods import Machine, Method, MethodError, Picture
from pconv_train.evaluation.pairs import Pair, Problem
from pconv_train.evaluation.perceptual import Perceptual
from pconv_train.evaluation.worker import UnavailableError, Worker

RESULTS = "results.jsonl"  # of all runs
RECORDS = "records.json"  # of the last one
PICTURES = "pictures"
_FORMAT = 4  # raise it when figures change their meaning, or there are more
_GIVE_UP = 5  # failures in a row

Record = dict[str, Any]  # one line of RESULTS


@dataclass
class Run:
    """What came of a run: records of this run's pairs, and what went wrong."""

    records: dict[tuple[str, Pair], Record] = field(default_factory=dict)  # by method's name and pair
    failures: dict[str, list[str]] = field(default_factory=dict)  # method → "photo, column: reason"
    skipped: dict[str, str] = field(default_factory=dict)  # method → why it did not run, or not to the end
    unreadable: dict[str, str] = field(default_factory=dict)  # photo's path → why
    missing: int = 0  # results that the time limit left undone
    streaks: dict[str, int] = field(default_factory=dict)  # method → failures since its last result


def run(
    tasks: Sequence[tuple[Method, Pair]],
    folder: Path,
    machine: Machine,
    distances: Sequence[Perceptual],
    seconds: float | None = None,
) -> Run:
    """Measure what is not measured yet.

    Args:
        tasks: Method and pair, in the order in which they are done.
        folder: Where results and pictures are, and go.
        machine: Where methods run.
        distances: To measure beside the figures that need no network.
        seconds: Stop after so long.

    Returns:
        The records of all tasks that have one, in the order of `tasks`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known, outcome = read_results(folder), Run()
    problem: tuple[Pair, Problem] | None = None
    start = time.monotonic()
    with ExitStack() as stack, (folder / RESULTS).open("a", encoding="utf-8") as file:
        workers = {method.name: stack.enter_context(Worker(method, machine)) for method, _ in tasks}
        for method, pair in tqdm(tasks, unit="picture", dynamic_ncols=True):
            key = result_key(method, pair, distances)
            if key in known:  # the name may be another than last time
                outcome.records[method.name, pair] = {**known[key], "method": method.name, "column": pair.column}
            elif method.name in outcome.skipped or str(pair.photo) in outcome.unreadable:
                continue
            elif seconds is not None and time.monotonic() - start > seconds:
                outcome.missing += 1
            else:
                if problem is None or problem[0] != pair:
                    problem = _load(pair, outcome)
                if problem and (record := _attempt(workers[method.name], *problem, distances, folder, key, outcome)):
                    outcome.records[method.name, pair] = known[key] = record  # a hole grown by 0 px comes twice
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    file.flush()
    write_atomically(folder / RECORDS, json.dumps(list(outcome.records.values()), ensure_ascii=False).encode())
    return outcome


def result_key(method: Method, pair: Pair, distances: Sequence[Perceptual]) -> str:
    """Name a result by all that it depends on: method, checkpoint, pair, metrics."""
    parts = [_FORMAT, method.identity or method.argument, pair.identity, *(distance.name for distance in distances)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def picture_path(folder: Path, key: str) -> Path:
    """Where the composed picture of a result is kept."""
    return folder / PICTURES / f"{key}.webp"


def read_results(folder: Path) -> dict[str, Record]:
    """Read the results of earlier runs by their keys; a line that a kill cut off is dropped from the file."""
    path = folder / RESULTS
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return {record["key"]: record for record in map(json.loads, whole.splitlines())}


def _load(pair: Pair, outcome: Run) -> tuple[Pair, Problem] | None:
    try:
        return pair, pair.load()
    except UNREADABLE as error:
        outcome.unreadable[str(pair.photo)] = str(error)
        tqdm.write(f"{pair.photo} left out: {error}")
        return None


def _attempt(
    worker: Worker, pair: Pair, problem: Problem, distances: Sequence[Perceptual], folder: Path, key: str, outcome: Run
) -> Record | None:
    """Run and measure a method once; say what goes wrong, and give the method up if it does so again and again."""
    name = worker.method.name
    try:
        record = _solve(worker, pair, problem, distances, picture_path(folder, key))
    except UnavailableError as error:
        outcome.skipped[name] = str(error)
        tqdm.write(f"{name} skipped: {error}")
        return None
    except MethodError as error:
        reason = f"{pair.photo.name}, {pair.column}: {error}"
        outcome.failures.setdefault(name, []).append(reason)
        tqdm.write(f"{name} failed on {reason}")
        outcome.streaks[name] = outcome.streaks.get(name, 0) + 1
        if outcome.streaks[name] >= _GIVE_UP:
            outcome.skipped[name] = f"given up after {_GIVE_UP} failures in a row"
        return None
    outcome.streaks[name] = 0
    return {"key": key, **record}


def _solve(worker: Worker, pair: Pair, problem: Problem, distances: Sequence[Perceptual], path: Path) -> Record:
    answer = worker.restore(problem.image, problem.hole)
    composed = compose(problem, answer.picture)
    height, width = problem.target.shape[:2]
    truth = path.with_name(f"truth-{pair.identity[1]}-{width}x{height}.webp")
    _save(composed, path)
    if not truth.exists():
        _save(problem.target, truth)
    return {
        "method": worker.method.name,
        "column": pair.column,
        "photo": pair.photo.name,
        "photo_sha256": pair.identity[1],
        "truth": truth.name,
        "figures": measure(problem, composed, distances),
        "machine": str(worker.machine),
        "seconds": answer.seconds,
        "megapixels": height * width / 1e6,
        "peak_mib": answer.peak_mib,
    }


def _save(picture: Picture, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path, quality=92)  # to look at; figures are of the picture itself
