"""`pconv`: fill holes in picture files, and enlarge them."""

import glob
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pconv_api import Texture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pconv_server.doors import Door, Progress
    from pconv_server.pictures import Photo

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Photos = Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Picture files, folders, or globs in quotes.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="A file, or a folder for several pictures.")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a model; by default the one that ships with pconv.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Server = Annotated[str, typer.Option("--server", help="Address of a server; by default that of connection.json.")]
InProcess = Annotated[bool, typer.Option("--in-process", help="Compute here, even if a server runs.")]
Models = Annotated[Path | None, typer.Option("--models", help="Folder of further models, in-process.")]


@app.command()
def inpaint(
    photos: Photos,
    output: Output,
    hole: Annotated[
        str,
        typer.Option(help="What to fill: a mask file (white) or a folder of them, 'alpha' (transparent), or X,Y,W,H."),
    ],
    context: Annotated[int | None, typer.Option(min=1, help="Pixels around the hole that the network sees.")] = None,
    texture: Annotated[
        Texture,
        typer.Option(help="photo = copied from the photograph, guided by the network; network = nothing added."),
    ] = Texture.PHOTO,
    model: ModelName = "",
    force: Force = False,
    server: Server = "",
    in_process: InProcess = False,
    models: Models = None,
) -> None:
    """Fill the hole of pictures; every pixel outside the hole keeps its bytes."""
    from pconv_server.doors import fill

    def work(door: "Door", photo: "Photo", source: Path, progress: "Progress") -> "Photo":
        return fill(door, photo, _find_hole(hole, photo, source), model, context, progress, texture)

    _run(photos, output, force, work, lambda: _open_door(server, in_process, models))


@app.command()
def upscale(
    photos: Photos,
    output: Output,
    model: ModelName = "",
    force: Force = False,
    server: Server = "",
    in_process: InProcess = False,
    models: Models = None,
) -> None:
    """Enlarge pictures ×4, or by the factor of the model."""
    from pconv_server.doors import enlarge

    def work(door: "Door", photo: "Photo", source: Path, progress: "Progress") -> "Photo":
        return enlarge(door, photo, model, progress)

    _run(photos, output, force, work, lambda: _open_door(server, in_process, models), lambda door: door.factor(model))


def _run(
    photos: list[str],
    output: Path,
    force: bool,
    work: "Callable[[Door, Photo, Path, Progress], Photo]",
    open_door: "Callable[[], AbstractContextManager[Door]]",
    factor: "Callable[[Door], int]" = lambda _: 1,
) -> None:
    """Do the pictures one after the other; one that fails does not stop the others."""
    from pconv_server.errors import ModelNotFoundError, PictureError, RequestError, SetupError
    from pconv_server.pictures import check_writable, read_photo, write_photo

    expected = (PictureError, RequestError, ModelNotFoundError, SetupError, RuntimeError, MemoryError)
    failed: list[str] = []
    try:
        pairs = _plan(photos, output)
    except SetupError as error:
        _fail(str(error))
    with open_door() as door:
        for source, target in pairs:
            try:
                if target.exists() and not force:
                    raise PictureError(f"{target} exists; give --force to overwrite it")
                photo = read_photo(source)
                check_writable(target, photo, factor(door))
                with _bar(source.name) as progress:
                    done = work(door, photo, source, progress)
                write_photo(target, done)
            except expected as error:
                failed.append(f"{source}: {error}")
                typer.echo(f"pconv: {failed[-1]}", err=True)
    if len(pairs) > 1 or failed:
        typer.echo(f"{len(pairs) - len(failed)} of {len(pairs)} pictures done", err=True)
    if failed:
        raise typer.Exit(1)


def _plan(photos: list[str], output: Path) -> list[tuple[Path, Path]]:
    """Pair each picture with where it goes."""
    from pconv_server.errors import SetupError
    from pconv_server.pictures import ENDINGS

    sources: list[Path] = []
    for name in photos:
        path = Path(name)
        if path.is_dir():
            inside = sorted(child for child in path.iterdir() if child.suffix.lower() in ENDINGS)
            if not inside:
                raise SetupError(f"the folder {path} has no picture ({', '.join(ENDINGS)})")
            sources += inside
        elif path.exists() or not glob.has_magic(name):
            sources.append(path)
        else:
            found = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 # takes absolute patterns, too
            if not found:
                raise SetupError(f"nothing matches {name}")
            sources += found
    to_folder = output.is_dir() or len(sources) > 1 or Path(photos[0]).is_dir()
    if not to_folder:
        return [(sources[0], output)]
    if output.suffix.lower() in ENDINGS and not output.is_dir():
        raise SetupError(f"{len(sources)} pictures need a folder to go to, -o {output} names a file")
    targets = [output / source.name for source in sources]
    if len(set(targets)) < len(targets):
        raise SetupError("two of the pictures have the same name: give them different folders to go to")
    return list(zip(sources, targets, strict=True))


def _find_hole(hole: str, photo: "Photo", source: Path) -> "NDArray[np.bool_]":
    """The hole of a picture, from what --hole says."""
    import numpy as np

    from pconv_server.errors import PictureError
    from pconv_server.pictures import read_mask

    width, height = photo.size
    if hole == "alpha":
        if photo.alpha is None:
            raise PictureError("--hole alpha: the picture has no transparency")
        found: NDArray[np.bool_] = np.less(photo.alpha, photo.half)
        return found
    numbers = hole.split(",")
    if len(numbers) == 4 and all(number.strip().lstrip("-").isdigit() for number in numbers):
        x, y, w, h = (int(number) for number in numbers)
        if w < 1 or h < 1 or not (0 <= x < width and 0 <= y < height):
            raise PictureError(f"--hole {hole}: expected X,Y,WIDTH,HEIGHT within the picture of {width} × {height} px")
        rectangle = np.zeros((height, width), bool)
        rectangle[y : y + h, x : x + w] = True
        return rectangle
    path = Path(hole)
    if path.is_dir():  # a mask for each picture, by its name
        named = [child for child in sorted(path.iterdir()) if child.stem == source.stem]
        if not named:
            raise PictureError(f"the folder {path} has no mask named {source.stem}")
        path = named[0]
    return read_mask(path, photo.size)


@contextmanager
def _open_door(address: str, in_process: bool, models: Path | None) -> "Iterator[Door]":
    """A running server, or else this process."""
    from pconv_server.client import Client
    from pconv_server.connection import Connection, config_folder, is_listening, read_connection
    from pconv_server.doors import ProcessDoor, ServerDoor
    from pconv_server.errors import SetupError

    try:
        known = read_connection()
        if address:
            known = Connection(address, known.token if known else "", known.tls_ca if known else "")
        if known is not None and not in_process and (address or is_listening(known.address)):
            with Client(known) as client:
                if client.is_serving():
                    client.notice = _say
                    yield ServerDoor(client)
                    return
        if address:
            raise SetupError(f"no server answers at {address}; start one with: pconv-server serve")
    except SetupError as error:
        _fail(str(error))
    if not in_process:
        typer.echo("no server runs (start one with: pconv-server serve); computing in this process", err=True)
    from pconv_server.engine import Engine
    from pconv_server.models import ModelFolder

    engine = Engine(models=ModelFolder(models or config_folder() / "models"))
    engine.notice = lambda code, text: _say(text)
    yield ProcessDoor(engine)


@contextmanager
def _bar(name: str) -> "Iterator[Progress]":
    """A progress bar on stderr, if somebody looks."""
    with typer.progressbar(length=1000, label=name, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        shown = 0

        def progress(fraction: float) -> None:
            nonlocal shown
            bar.update(round(fraction * 1000) - shown)
            shown = round(fraction * 1000)

        yield progress


def _say(sentence: str) -> None:
    typer.echo(f"pconv: {sentence}", err=True)


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"pconv: {sentence}", err=True)
    raise typer.Exit(2)
