"""What `pconv` does with a picture, through a server or in this process: the same cuts, so the same bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pconv_api import Box, Texture, plan_jobs
from PIL import Image

from pconv_server.client import Client, explained
from pconv_server.pictures import Photo, scaled
from pconv_server.rasters import Array, encode_hole

if TYPE_CHECKING:
    from pconv_server.engine import Engine  # torch takes seconds to import

Sample = TypeVar("Sample", bound=np.generic)
Progress = Callable[[float], None]
Part = tuple[Box, Array, "NDArray[np.bool_] | None"]


class Door(Protocol):
    """Where pictures go in and come out."""

    def inpaint(
        self, size: tuple[int, int], parts: Sequence[Part], model: str, progress: Progress, texture: Texture
    ) -> list[Array]:
        """Fill boxes of a picture of `size` (width, height)."""

    def upscale(self, image: Array, hole: NDArray[np.bool_] | None, model: str, progress: Progress) -> Iterator[Array]:
        """Enlarge a picture; yields rows from the top."""

    def factor(self, model: str) -> int:
        """By how much a model enlarges."""


class ServerDoor:
    """Through a running server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def inpaint(
        self, size: tuple[int, int], parts: Sequence[Part], model: str, progress: Progress, texture: Texture
    ) -> list[Array]:
        """As `Door.inpaint`; raises RuntimeError with the server's sentence."""
        with explained():
            return self.client.inpaint(size, parts, model, progress, texture=texture)

    def upscale(self, image: Array, hole: NDArray[np.bool_] | None, model: str, progress: Progress) -> Iterator[Array]:
        """As `Door.upscale`; raises RuntimeError with the server's sentence."""
        with explained():
            yield from self.client.upscale(image, hole, model, progress)

    def factor(self, model: str) -> int:
        """As `Door.factor`; 1 if there is no such model, which `upscale` has the sentence for."""
        with explained():
            return next((known.factor for known in self.client.models() if known.name == (model or "upscale")), 1)


class ProcessDoor:
    """In this process, for when there is no server."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine

    def inpaint(
        self, size: tuple[int, int], parts: Sequence[Part], model: str, progress: Progress, texture: Texture
    ) -> list[Array]:
        """As `Door.inpaint`."""
        total, done, filled = sum(box.area for box, _, _ in parts), 0, []
        for box, image, hole in parts:
            assert hole is not None

            def part_progress(fraction: float, done: int = done, area: int = box.area) -> None:
                progress((done + fraction * area) / total)

            filled.append(self.engine.inpaint(image, hole, model, part_progress, box, texture))
            done += box.area
        return filled

    def upscale(self, image: Array, hole: NDArray[np.bool_] | None, model: str, progress: Progress) -> Iterator[Array]:
        """As `Door.upscale`."""
        return self.engine.upscale(image, hole, model, progress)

    def factor(self, model: str) -> int:
        """As `Door.factor`."""
        return self.engine.models.find(model, "upscale").factor


def fill(
    door: Door,
    photo: Photo,
    hole: NDArray[np.bool_],
    model: str,
    margin: int | None,
    progress: Progress,
    texture: Texture = Texture.PHOTO,
) -> Photo:
    """Fill the hole of a photo.

    Args:
        door: Where the filling is done.
        photo: Any picture; what is filled becomes opaque. Fully transparent pixels are no surroundings.
        hole: `(H, W)`, True = fill.
        model: Name; empty: the default.
        margin: Context around the hole, px; None: by the size of the hole.
        progress: Called with the fraction done.
        texture: Where it comes from.

    Returns:
        The photo, the same bytes outside the hole.
    """
    width, height = photo.size
    jobs = plan_jobs(encode_hole(hole), width, height, margin)
    if not jobs:
        return photo
    unknown = hole if photo.alpha is None else hole | (photo.alpha == 0)
    parts = [(job.context, _cut(photo.pixels, job.context), _cut(unknown, job.context)) for job in jobs]
    pixels = photo.pixels.copy()
    for job, filled in zip(jobs, door.inpaint(photo.size, parts, model, progress, texture), strict=True):
        target, context = job.target, job.context
        inner = Box(target.x - context.x, target.y - context.y, target.width, target.height)
        mine = _view(hole, target)
        _view(pixels, target)[mine] = _view(filled, inner)[mine]
    alpha = photo.alpha
    if alpha is not None:
        alpha = np.where(hole, np.array(photo.opaque, alpha.dtype), alpha)
    return replace(photo, pixels=pixels, alpha=alpha)


def enlarge(door: Door, photo: Photo, model: str, progress: Progress) -> Photo:
    """Enlarge a photo by the factor of the model.

    Args:
        door: Where it is done.
        photo: Any picture. Fully transparent pixels are holes for the colour; alpha is enlarged bicubically.
        model: Name; empty: the default.
        progress: Called with the fraction done.

    Returns:
        The enlarged photo, at the same size in print.
    """
    clear = None if photo.alpha is None else photo.alpha == 0
    hole = clear if clear is not None and clear.any() and not clear.all() else None
    pixels = np.concatenate(list(door.upscale(photo.pixels, hole, model, progress)))
    factor = pixels.shape[1] // photo.size[0]
    alpha = None if photo.alpha is None else _enlarge_alpha(photo.alpha, factor, photo.opaque)
    return scaled(photo, pixels, alpha, factor)


def _enlarge_alpha(alpha: Array, factor: int, opaque: float) -> Array:
    height, width = alpha.shape
    image = Image.fromarray(alpha.astype(np.float32))
    large = np.asarray(image.resize((width * factor, height * factor), Image.Resampling.BICUBIC)).clip(0, opaque)
    return large.astype(alpha.dtype) if alpha.dtype.kind == "f" else large.round().astype(alpha.dtype)


def _view(array: NDArray[Sample], box: Box) -> NDArray[Sample]:
    return array[box.y : box.bottom, box.x : box.right]


def _cut(array: NDArray[Sample], box: Box) -> NDArray[Sample]:
    return np.ascontiguousarray(_view(array, box))
