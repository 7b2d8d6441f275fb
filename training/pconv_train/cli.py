"""The `pconv-train` command."""

import contextlib
import functools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pconv_train.evaluation.commands import evaluate, study

if TYPE_CHECKING:
    from pconv_train.config import TrainConfig
    from pconv_train.losses import LossWeights

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_show_locals=False, help="Train the networks that pconv serves."
)

app.command()(evaluate)
app.add_typer(study, name="study")


class Task(StrEnum):
    """What the network learns."""

    inpaint = "inpaint"
    upscale = "upscale"
    refine = "refine"


class Loss(StrEnum):
    """Which terms of eq. 7."""

    full = "full"
    l1 = "l1"


_MAIN, _LEARN, _MACHINE = "Data and network", "Optimization", "Machine and log"


@app.command()
def fit(
    data: Annotated[Path | None, typer.Argument(help="Folder of photographs, searched recursively.", file_okay=False, exists=True)] = None,
    name: Annotated[str, typer.Option(help="The run's folder: below $PCONV_RUNS, or a path. By default the time.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --name, with the options that it began with.")] = False,
    task: Annotated[Task, typer.Option(rich_help_panel=_MAIN)] = Task.inpaint,
    preset: Annotated[str, typer.Option(help="paper (table 2), compact (half its channels) or light (fewer where pixels are many).", rich_help_panel=_MAIN)] = "compact",
    stages: Annotated[int | None, typer.Option(min=1, max=8, help="Encoder stages; by default as many as suit the crop.", rich_help_panel=_MAIN)] = None,
    upsampling: Annotated[str | None, typer.Option(help="Of the decoder: nearest, as in the paper, bilinear or binomial; by default as --init has it, else nearest.", rich_help_panel=_MAIN)] = None,
    noise: Annotated[bool, typer.Option("--noise", help="Random numbers in the decoder, for the full loss to make texture of; added to a network of --init that has none.", rich_help_panel=_MAIN)] = False,
    smooth_noise: Annotated[bool, typer.Option("--smooth-noise", help="Random numbers of the decoder without their finest waves, which leave strokes along the axes.", rich_help_panel=_MAIN)] = False,
    blocks: Annotated[str, typer.Option(help="Residual blocks after each decoder stage, deepest first, as in 0,1,4,3,0; those that a network of --init lacks are added, and others left out.", rich_help_panel=_MAIN)] = "",
    plain: Annotated[bool, typer.Option("--plain", help="The paper's Conv: plain convolutions.", rich_help_panel=_MAIN)] = False,
    edge: Annotated[int | None, typer.Option(min=0, help="Grow the hole by so many px and correct it by the error there, as using it always does by 2 (the default), and leave out what is wide; 0: as in the paper.", rich_help_panel=_MAIN)] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from; it decides the network.", dir_okay=False, exists=True, rich_help_panel=_MAIN)] = None,
    coarse: Annotated[Path | None, typer.Option(help="Checkpoint whose fills of the reduced picture --task refine learns from, as it is used; without: it learns from reduced photographs.", dir_okay=False, exists=True, rich_help_panel=_MAIN)] = None,
    layout: Annotated[str, typer.Option(help="folder, imagenet, places2 or celeba-hq.", rich_help_panel=_MAIN)] = "folder",
    include: Annotated[list[str] | None, typer.Option(help="Pattern of file names to take.", rich_help_panel=_MAIN)] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern of file names to leave out.", rich_help_panel=_MAIN)] = None,
    holes: Annotated[Path | None, typer.Option(help="Folder of mask files (white = hole), not generated holes.", exists=True, file_okay=False, rich_help_panel=_MAIN)] = None,
    curriculum: Annotated[int, typer.Option(min=0, help="So many pictures at the beginning are easy: drawn edges or photographs, with holes that begin small and grow.", rich_help_panel=_MAIN)] = 0,
    curriculum_share: Annotated[float, typer.Option(min=0, max=1, help="Share of such pictures, by then with larger holes, among the others.", rich_help_panel=_MAIN)] = 0.0,
    validation: Annotated[int, typer.Option(min=0, help="Photos held out.", rich_help_panel=_MAIN)] = 32,
    steps: Annotated[int | None, typer.Option(min=1, rich_help_panel=_LEARN)] = None,
    hours: Annotated[float | None, typer.Option(min=0, rich_help_panel=_LEARN)] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step and process.", rich_help_panel=_LEARN)] = 6,
    crop: Annotated[int, typer.Option(min=8, help="Side of the crops, px.", rich_help_panel=_LEARN)] = 256,
    max_scale: Annotated[float, typer.Option(min=1, help="Crops cover up to this many times --crop.", rich_help_panel=_LEARN)] = 2.0,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="By default 2e-4 in fit, 5e-5 in finetune.", rich_help_panel=_LEARN)] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Steps.", rich_help_panel=_LEARN)] = 100,
    schedule: Annotated[str, typer.Option(help="cosine or constant.", rich_help_panel=_LEARN)] = "cosine",
    clip: Annotated[float, typer.Option(min=0, help="Largest gradient norm.", rich_help_panel=_LEARN)] = 1.0,
    ema: Annotated[float, typer.Option(min=0, max=1, help="Decay a step.", rich_help_panel=_LEARN)] = 0.999,
    loss: Annotated[Loss, typer.Option(help="full = eq. 7; l1 = its first two terms.", rich_help_panel=_LEARN)] = Loss.full,
    weights: Annotated[str, typer.Option(help="Weights of eq. 7 that differ, as in style=40,tv=0.05; also of ssim, unit_perceptual and chroma, which it lacks.", rich_help_panel=_LEARN)] = "",
    vgg: Annotated[Path | None, typer.Option(help="VGG-16 weights; by default torchvision downloads them.", rich_help_panel=_LEARN)] = None,
    perceptual_crop: Annotated[int | None, typer.Option(min=16, help="VGG sees a window of this side, px, around a random pixel of the hole; half of them at half the size.", rich_help_panel=_LEARN)] = None,
    perceptual_turned: Annotated[bool, typer.Option("--perceptual-turned", help="VGG sees the window anywhere in the picture, turned by any angle, so that no direction is favoured.", rich_help_panel=_LEARN)] = False,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_LEARN)] = 0,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.", rich_help_panel=_MACHINE)] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.", rich_help_panel=_MACHINE)] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", rich_help_panel=_MACHINE)] = None,
    log_every: Annotated[int, typer.Option(min=1, help="Steps.", rich_help_panel=_MACHINE)] = 50,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps.", rich_help_panel=_MACHINE)] = 1000,
    save_minutes: Annotated[float, typer.Option(min=0, rich_help_panel=_MACHINE)] = 5.0,
) -> None:  # fmt: skip
    """Stage 1 of §4.2: learning rate 2e-4, batch norm on."""
    _start(freeze_encoder_norm=False, **locals())


@app.command(
    "finetune",
    help="Stage 2 of §4.2: learning rate 5e-5, the encoder's batch norm frozen. Same options as fit; needs --init.",
)
@functools.wraps(fit)
def finetune(**options: Any) -> None:
    """Fit with other defaults: its options are those of `fit`."""
    if not options["init"] and not options["resume"]:
        _fail("finetune goes on from a trained network: give --init CHECKPOINT")
    _start(**{**options, "freeze_encoder_norm": True, "learning_rate": options["learning_rate"] or 5e-5})


@app.command()
def holes(
    output: Annotated[Path, typer.Argument(help="Folder for the test set, or a .png file for a contact sheet.")],
    size: Annotated[int, typer.Option(min=16, help="Height and width, px.")] = 512,
    count: Annotated[int, typer.Option(min=1, help="Holes of each of the 6 ratios × {N, B}.")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write table 1's test holes (6 ratios × {N, B} × COUNT) with an index, or a sheet of 60 training holes to look at."""
    import numpy as np
    from tqdm import tqdm

    from pconv_train.holes import contact_sheet, random_hole, write_test_set

    if output.suffix == ".png":
        drawn = [random_hole(np.random.default_rng((seed, number)), size) for number in range(60)]
        contact_sheet(drawn, 10).save(output)
    else:
        with tqdm(total=12 * count, unit="hole") as bar:
            write_test_set(output, size, count, seed, bar.update)
    typer.echo(output)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Name of the run's folder below $PCONV_RUNS, or its path.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .safetensors.")],
    description: Annotated[str, typer.Option(help="On the data and its licences, for the card.")] = "",
    mean_with: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint to take the mean with, as the one that --init named.", dir_okay=False, exists=True
        ),
    ] = None,
) -> None:
    """Write a run's EMA weights as an fp16 checkpoint with its provenance, and a model card beside it."""
    from pconv_train.export import export as write

    with clear_errors():
        typer.echo(f"{output} sha256 {write(run_folder(run), output, description, mean_with)}")


@app.command("import")
def import_weights(
    source: Annotated[
        Path, typer.Argument(help="Weights of naoto0804's PConvUNet (.pth).", dir_okay=False, exists=True)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .safetensors.")],
) -> None:
    """Convert weights of the public PyTorch re-implementation to a checkpoint of ours."""
    from pconv.checkpoint import import_naoto0804, save_checkpoint

    with clear_errors():
        digest = save_checkpoint(output, import_naoto0804(source), "inpaint", {"imported": source.name})
        typer.echo(f"{output} sha256 {digest}")


def run_folder(name: str) -> Path:
    """Find a run by its path, or by its name below $PCONV_RUNS (by default `pconv/runs` in the user's cache folder)."""
    if "/" in name or name in (".", ".."):
        return Path(name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PCONV_RUNS") or cache / "pconv" / "runs") / name


def _start(*, name: str, resume: bool, **options: Any) -> None:
    """Make the run's config, or read it; train; say where everything is."""
    with clear_errors():
        folder = run_folder(name or time.strftime("%Y%m%d-%H%M%S"))
        if resume:
            config = _resumed_config(folder, options["steps"], options["hours"])
        else:
            given = _new_config(options)
            config = _with_own_init(folder, given)
            _check_name(folder, config)
            if config.init and os.environ.get("RANK", "0") == "0":
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(given.init), config.init)
        from pconv.checkpoint import write_atomically

        from pconv_train.loop import train

        if os.environ.get("RANK", "0") == "0":
            write_atomically(folder / "config.json", config.to_json().encode())
        progress = train(config, folder)
    typer.echo(
        f"{folder}: {progress.step} steps, {progress.seconds / 3600:.2f} h. Export: pconv-train export {folder} -o FILE"
    )


def _with_own_init(folder: Path, config: "TrainConfig") -> "TrainConfig":
    """Let the run have a copy of --init: that file may be moved or replaced while the run lives."""
    from pconv_train.config import OWN_INIT

    if not config.init or not Path(config.init).is_file():
        return config
    return replace(config, init=str((folder / f"{OWN_INIT}{Path(config.init).name}").resolve()))


def _check_name(folder: Path, config: "TrainConfig") -> None:
    """Refuse the name of a run that has begun, unless torchrun starts the same one again."""
    from pconv_train.state import STATE_FILE

    if not (folder / STATE_FILE).exists():
        return  # nor would anything be lost
    restarted = "TORCHELASTIC_RUN_ID" in os.environ and (folder / "config.json").read_text() == config.to_json()
    if not restarted:
        _fail(f"{folder} is a run already: go on with --resume, or choose another --name")


def _new_config(options: dict[str, Any]) -> "TrainConfig":
    from pconv.edge import EDGE

    from pconv_train.config import TrainConfig
    from pconv_train.losses import LossWeights

    if options["data"] is None:
        _fail("give a folder of photographs: pconv-train fit FOLDER")
    loss = LossWeights.l1() if options["loss"] == Loss.l1 else LossWeights()
    fields: dict[str, Any] = {
        # Whole paths: the run may go on from another folder.
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in options.items()
    }
    fields.pop("weights")
    fields["include"], fields["exclude"] = tuple(options["include"] or ("*",)), tuple(options["exclude"] or ())
    try:
        fields["blocks"] = tuple(int(count) for count in filter(None, options["blocks"].split(",")))
    except ValueError:
        _fail(
            f"--blocks takes a number for each decoder stage but the last, as in 0,1,4,3,2; got {options['blocks']!r}"
        )
    fields["learning_rate"] = options["learning_rate"] or 2e-4
    if options["edge"] is None:
        fields["edge"] = EDGE if options["task"] == Task.inpaint else 0
    fields["task"], fields["loss"] = str(options["task"]), _loss_weights(loss, options["weights"])
    return TrainConfig(**fields)


def _resumed_config(folder: Path, steps: int | None, hours: float | None) -> "TrainConfig":
    from pconv_train.config import read_config

    config = read_config(folder)
    if steps or hours:  # a longer run is the one thing that may change
        config = replace(config, steps=steps, hours=hours)
    return config


def _loss_weights(weights: "LossWeights", changes: str) -> "LossWeights":
    for change in filter(None, changes.split(",")):
        name, _, value = change.partition("=")
        try:
            weights = replace(weights, **{name.strip(): float(value)})
        except (TypeError, ValueError):
            names = ", ".join(vars(weights))
            _fail(f"--weights takes NAME=NUMBER,… with a name of {names}; got {change!r}")
    return weights


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Say the user's mistakes in a sentence; a bug of ours keeps its traceback."""
    from pconv import CheckpointError

    from pconv_train.config import ConfigError
    from pconv_train.data import DataError
    from pconv_train.loop import DivergedError

    try:
        yield
    except (ConfigError, DataError, CheckpointError, DivergedError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"pconv-train: {message}", err=True)
    sys.exit(2)
