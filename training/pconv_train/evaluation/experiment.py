"""One evaluation from its options to its report."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from pconv import (
    describe_checkpoint,
    edge,
    filling,
    gradients,
    layers,
    network,
    noise,
    operations,
    pyramid,
    sharpen,
    texture,
    tiles,
    wide,
)

from pconv_train.config import ConfigError
from pconv_train.evaluation.figures import Gallery, draw_figures
from pconv_train.evaluation.measure import metrics
from pconv_train.evaluation.methods import CHECKPOINT, MEMBRANE, OURS, RIVALS, TEXTURED, Machine, Method, rival
from pconv_train.evaluation.pairs import Pair, choose_photos, dilation_pairs, inpaint_pairs, upscale_pairs
from pconv_train.evaluation.perceptual import Perceptual, load_inception, load_perceptual
from pconv_train.evaluation.report import markdown_table, write_report
from pconv_train.evaluation.run import Run, run
from pconv_train.evaluation.tables import Numbers, metric_tables, overviews, summarize_run

_REFERENCES = {"inpaint": "PatchMatch", "upscale": "bicubic"}
_SIDE = 256  # px
_QUICK_PHOTOS = {"inpaint": 2, "upscale": 5}
_SLOW = ("Real-ESRGAN",)  # minutes for a picture without a GPU: not in --quick


@dataclass(frozen=True)
class Experiment:
    """Options of `pconv-train evaluate`."""

    folders: tuple[Path, ...]
    output: Path
    task: str = "inpaint"  # or "upscale"
    checkpoints: tuple[str, ...] = ()  # NAME=PATH
    commands: tuple[str, ...] = ()  # NAME=COMMAND
    without: tuple[str, ...] = ()  # names of rivals to leave out
    reference: str = ""  # what the others are compared with; by default the paper's strongest rival, or bicubic
    side: int | None = None  # px; None: 256, or for upscale photos as they are
    quality: int | None = None  # of the JPEGs that are to be enlarged; None: they are none
    photos: int | None = None  # all
    seed: int = 0
    perceptual: str = "auto"
    machine: Machine = field(default_factory=Machine)
    minutes: float | None = None
    quick: bool = False
    refine: Path | None = None  # checkpoint that the others are used with


def evaluate(experiment: Experiment) -> str:
    """Run all methods on all pairs and write the report.

    Returns:
        What to print: the tables without intervals, and where the report is.

    Raises:
        ConfigError: Options that do not fit, or no method that runs.
        DataError: No pictures.
        CheckpointError: A checkpoint that cannot be read.
    """
    torch.set_num_threads(1)  # metrics of small pictures: no faster with more, and always the same order of additions
    methods = choose_methods(experiment)
    reference = _reference(experiment, methods)
    pairs, study = _pairs(experiment)
    perceptual = load_perceptual(experiment.perceptual, experiment.machine.device)
    if isinstance(perceptual, str):
        print(f"no perceptual distance: {perceptual}", flush=True)
    inception = load_inception(experiment.machine.device) if experiment.task == "inpaint" else ""
    distances = [distance for distance in (perceptual, inception) if isinstance(distance, Perceptual)]
    ours = [method for method in methods if method.kind in OURS]
    tasks: list[tuple[Method, Pair]] = [(method, pair) for pair in pairs for method in methods]
    tasks += [(method, pair) for pair in study for method in ours or methods]
    seconds = None if experiment.minutes is None else 60 * experiment.minutes
    outcome = run(tasks, experiment.output, experiment.machine, distances, seconds)
    if not outcome.records:
        reasons = {**outcome.skipped, **{name: reasons[0] for name, reasons in outcome.failures.items()}}
        raise ConfigError(
            "no method gave a result: " + ("; ".join(f"{n}: {r}" for n, r in reasons.items()) or "no time")
        )
    wanted = {"Perceptual distance": perceptual, "Table 1's IScore": inception}
    missing = {name: reason for name, reason in wanted.items() if isinstance(reason, str) and reason}
    return _report(experiment, methods, reference, pairs, study, outcome, distances, missing)


def choose_methods(experiment: Experiment) -> list[Method]:
    """List checkpoints, commands and the rivals that are not left out; of those --quick takes the quick ones.

    Raises:
        ConfigError: A name twice, an unknown one, a checkpoint for another task.
        CheckpointError: A checkpoint that cannot be read.
    """
    methods, code = [], _digest(edge, filling, layers, network, noise, operations, pyramid, sharpen, tiles, wide)
    refine = str(experiment.refine or "")
    if refine and experiment.task != "inpaint":
        raise ConfigError(f"--refine is for --task inpaint, not {experiment.task}")
    refined = f", refine {_sha256(refine, 'refine')}" if refine else ""
    for name, path in map(_split, experiment.checkpoints):
        identity = f"checkpoint sha256 {_sha256(path, experiment.task)}{refined}, code {code}"
        methods.append(Method(name, CHECKPOINT, path, refine, identity))
        if experiment.task == "inpaint":
            identity = f"{identity}, texture {_digest(texture, gradients)}"
            methods.append(Method(f"{name} + texture", TEXTURED, path, refine, identity))
    for name, command in map(_split, experiment.commands):
        methods.append(Method(name, "command", command, identity=f"command {command}"))
    rivals = RIVALS[experiment.task]
    slow = _SLOW if experiment.quick and not experiment.machine.device.startswith("cuda") else ()
    if unknown := set(experiment.without) - set(rivals):
        raise ConfigError(f"--without takes {', '.join(rivals)}; got {', '.join(sorted(unknown))}")
    for kind, package in rivals.items():
        if kind not in (*experiment.without, *slow):
            methods.append(rival(kind, package, code if kind == MEMBRANE else ""))
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two methods are called {', '.join(twice)}: give each its own name")
    return methods


def _sha256(path: str, task: str) -> str:
    info = describe_checkpoint(path)
    if info.task != task:
        raise ConfigError(f"{path} is for the task {info.task!r}, not {task!r}")
    return info.sha256


def _digest(*modules: ModuleType) -> str:
    """Name the code that results depend on."""
    return hashlib.sha256(b"".join(Path(str(module.__file__)).read_bytes() for module in modules)).hexdigest()[:16]


def _split(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    if not name.strip() or not value.strip():
        raise ConfigError(f"--checkpoint and --method take NAME=PATH and NAME=COMMAND, got {option!r}")
    return name.strip(), value.strip()


def _reference(experiment: Experiment, methods: Sequence[Method]) -> str:
    names = [method.name for method in methods]
    if experiment.reference and experiment.reference not in names:
        raise ConfigError(f"--reference must be one of {', '.join(names)}; got {experiment.reference!r}")
    if not names:
        raise ConfigError("no method is left to judge")
    usual = _REFERENCES[experiment.task]
    return experiment.reference or (usual if usual in names else names[0])


def _pairs(experiment: Experiment) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """Draw the pairs of the tables, and those of the dilation study."""
    if experiment.side is not None and experiment.side < 32:
        raise ConfigError(f"--size must be at least 32 px, got {experiment.side}")
    count = experiment.photos
    if count is None and experiment.quick:
        count = _QUICK_PHOTOS[experiment.task]
    if experiment.task == "upscale":
        return upscale_pairs(experiment.folders, count, experiment.seed, experiment.side, experiment.quality), []
    if experiment.quality is not None:
        raise ConfigError("--jpeg is for --task upscale: the known pixels of a photo to be inpainted are the truth")
    photos = choose_photos(experiment.folders, count, experiment.seed)
    side = experiment.side or _SIDE
    return inpaint_pairs(photos, side, experiment.seed), dilation_pairs(photos, side, experiment.seed)


def _report(
    experiment: Experiment,
    methods: Sequence[Method],
    reference: str,
    pairs: Sequence[Pair],
    study: Sequence[Pair],
    outcome: Run,
    distances: Sequence[Perceptual],
    missing: dict[str, str],
) -> str:
    judged = metrics(experiment.task, distances)
    columns = list(dict.fromkeys(pair.column for pair in pairs))
    numbers: Numbers = summarize_run(outcome, methods, judged, columns, reference, experiment.seed, experiment.task)
    numbers["not measured"] = missing
    numbers["size"] = (experiment.side or _SIDE) if experiment.task == "inpaint" else None
    names = numbers["measured"]
    checkpoints = [method.name for method in methods if method.kind in OURS and method.name in names]
    gallery = Gallery(experiment.output, outcome, names, checkpoints)
    shown, grown = ([p for p in found if any((n, p) in outcome.records for n in names)] for found in (pairs, study))
    path = write_report(experiment.output, numbers, draw_figures(gallery, shown, grown, judged))
    tables = [*metric_tables(numbers), *overviews(numbers)]
    said = [f"{table.title}\n\n{markdown_table(table, intervals=False)}" for table in tables]
    said += [f"{name} skipped: {reason}" for name, reason in outcome.skipped.items()]
    if outcome.missing:
        said.append(f"{outcome.missing} results are still to be computed: run the same command again")
    return "\n\n".join([*said, f"Report: {path}"])
