"""`make demo`: a real server on a free port, a hole in a real photograph, fill and ×4 through gRPC, and pictures of it.

The photograph comes with scikit-image's wheel; nothing is downloaded. A server of the user's own is left alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pconv_server.client import Client
from pconv_server.connection import read_connection
from pconv_server.doors import ServerDoor, enlarge, fill
from pconv_server.errors import ModelNotFoundError, RequestError, SetupError
from pconv_server.pictures import Photo

HOLE_COLOUR = (255, 0, 255)  # how a hole is shown
CROP = (230, 100, 150, 150)  # x, y, width, height of what is enlarged, px
T = TypeVar("T")


def main(
    output: Annotated[Path, typer.Argument(help="Folder for the pictures.")] = Path("build/demo"),
    models: Annotated[Path | None, typer.Option(help="Folder of other weights than those that ship.")] = None,
) -> None:
    """Fill a hole and enlarge a crop, write the pictures, and say how long each step took."""
    try:
        for path in demo(output, models):
            typer.echo(f"wrote {path}")
    except (ModelNotFoundError, RequestError, SetupError, RuntimeError) as error:
        typer.echo(f"demo: {error}", err=True)
        raise typer.Exit(1) from error


def demo(output: Path, models: Path | None) -> Iterator[Path]:
    """Run all of it; yields the pictures as they are written."""
    timed("load PyTorch and check the weights", lambda: check_weights(models))
    photo = photograph()
    height, width = photo.shape[:2]
    hole = irregular_hole(width, height)
    output.mkdir(parents=True, exist_ok=True)
    with timed_server(models) as client:
        door = ServerDoor(client)
        timed("first fill (loads the network)", lambda: fill(door, Photo(photo), hole, "", None, _quiet))
        filled = timed(
            f"fill {hole.sum():,} of {width} × {height} px", lambda: fill(door, Photo(photo), hole, "", None, _quiet)
        )
        if not np.array_equal(filled.pixels[~hole], photo[~hole]):
            raise RuntimeError("a pixel outside the hole changed: this is a bug, please report it")
        x, y, w, h = CROP
        crop = np.ascontiguousarray(photo[y : y + h, x : x + w])
        large = timed(f"enlarge {w} × {h} px ×4", lambda: enlarge(door, Photo(crop), "", _quiet))
    holed = photo.copy()
    holed[hole] = HOLE_COLOUR
    size = (large.size[0], large.size[1])
    nearest = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.NEAREST))
    pictures = {
        "inpaint-before.png": holed,
        "inpaint-after.png": filled.pixels,
        "inpaint.png": np.hstack([photo, holed, filled.pixels]),
        "upscale-before.png": crop,
        "upscale-after.png": large.pixels,
        "upscale.png": np.hstack([nearest, large.pixels]),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(output / name)
        yield output / name


def check_weights(models: Path | None) -> None:
    """Raise the sentence with the remedy if there are no weights."""
    from pconv_server.models import ModelFolder

    for task in ("inpaint", "upscale"):
        ModelFolder(models).find("", task)


def photograph() -> NDArray[np.uint8]:
    """A photograph with people, edges and texture, `(512, 512, 3)`; NASA, public domain."""
    try:
        from skimage import data
    except ImportError as error:
        raise SetupError("the demo's photograph comes with scikit-image: pip install scikit-image") from error
    photo: NDArray[np.uint8] = data.astronaut()  # type: ignore[no-untyped-call] # has no types
    return photo


def irregular_hole(width: int, height: int, seed: int = 5) -> NDArray[np.bool_]:
    """Scratches and blots, as on an old print."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(7):
        point, angle, thickness = rng.random(2) * (width, height), rng.random() * 2 * np.pi, int(rng.integers(4, 14))
        for _ in range(int(rng.integers(4, 9))):
            angle += rng.normal(0, 0.5)
            end = point + rng.uniform(15, 50) * np.array([np.cos(angle), np.sin(angle)])
            draw.line([*point, *end], fill=255, width=thickness)
            draw.circle(tuple(end), thickness / 2, fill=255)
            point = end
    for _ in range(3):
        draw.circle(tuple(rng.random(2) * (width, height)), rng.uniform(10, 22), fill=255)
    hole: NDArray[np.bool_] = np.asarray(image) > 0
    return hole


@contextmanager
def timed_server(models: Path | None) -> Iterator[Client]:
    """Start a server of its own on a free port, and stop it in the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pconv_server", "serve", "--port", "0"]
        command += ["--models", str(models)] if models else []
        environment = {**os.environ, "PCONV_CONFIG_DIR": folder, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        try:
            assert process.stdout is not None
            line = timed("start the server", process.stdout.readline)
            known = read_connection(Path(folder) / "connection.json")
            if not line or known is None:
                raise SetupError("the server did not start; see above, and: pconv-server doctor")
            typer.echo(line.rstrip())
            with Client(known) as client:
                yield client
        finally:
            process.terminate()
            timed("stop the server", process.communicate)


def timed(what: str, work: Callable[[], T]) -> T:
    """Do something and print how long it took."""
    start = time.perf_counter()
    result = work()
    typer.echo(f"{time.perf_counter() - start:7.2f} s  {what}")
    return result


def _quiet(_: float) -> None:
    pass


if __name__ == "__main__":
    typer.run(main)
