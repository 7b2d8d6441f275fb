"""The user study of §4.3: a page that asks which of two pictures looks more real, and fig. 8's rates."""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pconv.checkpoint import write_atomically

from pconv_train.config import ConfigError
from pconv_train.evaluation.run import PICTURES, RECORDS, Record
from pconv_train.evaluation.tables import Cell, Row, Table

TRUTH = "truth"
MOMENTS = (250, 1000, 4000)  # ms, against the truth; 0 = without a limit

Trial = dict[str, Any]


def write_study(folder: Path, output: Path, ours: str, count: int, seed: int) -> int:
    """Write a page of comparisons: a method against each other without a limit, each against the truth for a moment.

    Args:
        folder: Of an evaluation, with its pictures.
        output: HTML file; the pictures are inside.
        ours: Name of the method that the others are compared with.
        count: Pictures of each comparison.
        seed: Which pictures.

    Returns:
        How many questions it asks.

    Raises:
        ConfigError: There is no such evaluation or method.
    """
    path = folder / RECORDS
    found = _by_method(json.loads(path.read_text(encoding="utf-8")) if path.exists() else [])
    if ours not in found:
        raise ConfigError(f"{folder} has no results of {ours!r}; it has {', '.join(found) or 'none at all'}")
    comparisons = [(ours, other, 0) for other in found if other != ours]
    comparisons += [(method, TRUTH, moment) for method in found for moment in MOMENTS]
    trials = [
        trial
        for number, comparison in enumerate(comparisons)
        for trial in _trials(found, *comparison, count, np.random.default_rng((seed, number)))
    ]
    names = sorted({trial[side] for trial in trials for side in ("picture_a", "picture_b")})
    try:
        pictures = {name: _data_uri(folder / PICTURES / name) for name in names}
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is gone: remove {folder} and evaluate again") from error
    digest = hashlib.sha256(json.dumps(trials).encode()).hexdigest()[:12]
    content = json.dumps({"study": digest, "trials": trials, "pictures": pictures}).replace("</", "<\\/")
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    write_atomically(output, template.replace("/*DATA*/", content).encode())
    return len(trials)


def rates(files: Iterable[Path]) -> Table:
    """Turn answers into fig. 8's rates: how often A was preferred to B, with Wilson's 95 % interval.

    Raises:
        ConfigError: A file that the page did not write.
    """
    counts: dict[tuple[str, str, int], list[int]] = {}
    for path in files:
        try:
            for answer in json.loads(path.read_text(encoding="utf-8"))["answers"]:
                key = (str(answer["a"]), str(answer["b"]), int(answer["ms"]))
                counts.setdefault(key, []).append({"a": 1, "b": 0}[answer["chosen"]])
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path} is no file of answers that the study page wrote: {error!r}") from error
    rows = []
    for (a, b, ms), chosen in sorted(counts.items()):
        low, high = wilson(sum(chosen), len(chosen))
        cells = [Cell(f"{ms} ms" if ms else "no limit"), Cell(f"{100 * sum(chosen) / len(chosen):.1f} %")]
        cells += [Cell(f"{100 * low:.1f} … {100 * high:.1f} %"), Cell(str(len(chosen)))]
        rows.append(Row(f"{a} preferred to {b}", cells))
    return Table("Preferences", ["shown for", "rate", "95 % interval", "answers"], rows)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Score interval of a rate, 95 % (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    z = 1.959964
    rate, widening = successes / count, z**2 / count
    middle = (rate + widening / 2) / (1 + widening)
    half = math.sqrt(rate * (1 - rate) * widening + widening**2 / 4) / (1 + widening)
    return max(0.0, middle - half), min(1.0, middle + half)


def _by_method(records: Iterable[Record]) -> dict[str, dict[tuple[str, str], Record]]:
    """Sort the results of table 1 or of the sets: method → (photo, column) → record."""
    found: dict[str, dict[tuple[str, str], Record]] = {}
    for record in records:
        if not record["column"].startswith("dilation"):
            found.setdefault(record["method"], {})[record["photo_sha256"], record["column"]] = record
    return found


def _trials(
    found: dict[str, dict[tuple[str, str], Record]], a: str, b: str, moment: int, count: int, rng: np.random.Generator
) -> list[Trial]:
    pairs: Sequence[tuple[str, str]] = sorted(pair for pair in found[a] if b == TRUTH or pair in found[b])
    trials = []
    for position in rng.permutation(len(pairs))[:count]:
        first = found[a][pairs[position]]
        other = first["truth"] if b == TRUTH else f"{found[b][pairs[position]]['key']}.webp"
        names = {"a": a, "b": b, "ms": moment, "photo": first["photo"], "column": first["column"]}
        trials.append({**names, "picture_a": f"{first['key']}.webp", "picture_b": other})
    return trials


def _data_uri(path: Path) -> str:
    return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()
