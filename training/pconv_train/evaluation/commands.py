"""The commands `evaluate` and `study`; everything heavy is imported when they run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

study = typer.Typer(no_args_is_help=True, help="Ask people which of two pictures looks better (§4.3, fig. 8).")

_WHO, _WHAT, _HOW = "Methods", "Pictures", "Machine and time"


class EvaluationTask(StrEnum):
    """What is judged."""

    inpaint = "inpaint"
    upscale = "upscale"


def evaluate(
    folders: Annotated[list[Path], typer.Argument(help="Folders of photographs; for upscale each is a set of its own.", file_okay=False, exists=True)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report; results in it are used again.", file_okay=False)] = Path("evaluation"),
    task: Annotated[EvaluationTask, typer.Option(help="inpaint = table 1; upscale = ×4, e.g. on Set5 and Set14.")] = EvaluationTask.inpaint,
    quick: Annotated[bool, typer.Option("--quick", help="A few photos, for a first look; without rivals that take minutes.")] = False,
    checkpoint: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="A checkpoint to judge; any number.", rich_help_panel=_WHO)] = None,
    refine: Annotated[Path | None, typer.Option(help="The refinement network that the checkpoints are used with, if any.", dir_okay=False, exists=True, rich_help_panel=_WHO)] = None,
    method: Annotated[list[str] | None, typer.Option(metavar="NAME=COMMAND", help="A program to judge; {image}, {hole} and {output} stand for PNG files.", rich_help_panel=_WHO)] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A rival to leave out, as in --without PatchMatch.", rich_help_panel=_WHO)] = None,
    reference: Annotated[str, typer.Option(metavar="NAME", help="Whom the others are compared with; by default PatchMatch, or bicubic.", rich_help_panel=_WHO)] = "",
    size: Annotated[int | None, typer.Option(help="Side that photos are reduced to, px; by default 256 for inpaint, as they are for upscale.", rich_help_panel=_WHAT)] = None,
    jpeg: Annotated[int | None, typer.Option(metavar="QUALITY", min=1, max=100, help="Enlarge JPEGs of this quality, whole and cropped (upscale).", rich_help_panel=_WHAT)] = None,
    photos: Annotated[int | None, typer.Option(min=1, help="Photos drawn by the seed; by default all, with --quick a few.", rich_help_panel=_WHAT)] = None,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_WHAT)] = 0,
    perceptual: Annotated[str, typer.Option(help="auto, lpips, st-lpips or none.", rich_help_panel=_WHAT)] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_HOW)] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", rich_help_panel=_HOW)] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a method may take for a picture.", rich_help_panel=_HOW)] = 600.0,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so long; the same command goes on.", rich_help_panel=_HOW)] = None,
) -> None:  # fmt: skip
    """Judge checkpoints, rivals and programs on the same pictures and write a report (§4.3, §5.2)."""
    import torch

    from pconv_train.cli import clear_errors
    from pconv_train.evaluation.experiment import Experiment
    from pconv_train.evaluation.experiment import evaluate as run
    from pconv_train.evaluation.methods import Machine

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with clear_errors():
        experiment = Experiment(
            tuple(folders), output, str(task), tuple(checkpoint or ()), tuple(method or ()), tuple(without or ()),
            reference, size, jpeg, photos, seed, perceptual, Machine(device, threads, timeout), minutes, quick, refine,
        )  # fmt: skip
        typer.echo(run(experiment))


@study.command("page")
def study_page(
    evaluation: Annotated[Path, typer.Argument(help="Folder of an evaluation.", file_okay=False, exists=True)],
    ours: Annotated[str, typer.Option(metavar="NAME", help="The method that the others are compared with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("study.html"),
    count: Annotated[int, typer.Option(min=1, help="Pictures of each comparison.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write one HTML file that asks which of two pictures looks more real: without a limit, and for 250, 1000, 4000 ms."""
    from pconv_train.cli import clear_errors
    from pconv_train.evaluation.study import write_study

    with clear_errors():
        typer.echo(f"{output}: {write_study(evaluation, output, ours, count, seed)} questions")


@study.command("rates")
def study_rates(
    answers: Annotated[list[Path], typer.Argument(help="Files that the page saved.", dir_okay=False, exists=True)],
) -> None:
    """Print how often each was preferred (fig. 8), with intervals."""
    from pconv_train.cli import clear_errors
    from pconv_train.evaluation.report import markdown_table
    from pconv_train.evaluation.study import rates

    with clear_errors():
        typer.echo(markdown_table(rates(answers)))
