"""Filling any hole of any picture: wide holes from coarse to fine, large pictures window by window.

The paper fills a picture in one pass of the network, which a hole much wider than those it learnt from, or a picture
that fills the memory, would overtax. So the parts of a hole that are wide are filled in a picture of half the size,
itself filled this way, and enlarged; then the network fills the narrow ones. And it sees no more than a window at once.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pconv import operations
from pconv.edge import EDGE, edge_correction, grow_hole
from pconv.network import check_image_and_hole
from pconv.noise import stronger_numbers
from pconv.sharpen import sharpen
from pconv.wide import WIDE, wide_parts

Network = Callable[[Tensor, Tensor], Tensor]
_Window = tuple[slice, slice, slice, slice]  # rows and columns of a tile, and of what is seen of its surroundings

TILE = 768  # px; with its surroundings 1024², for which the compact network takes 0.7 GB
HALO = 128  # px around a tile: more than the widest hole that is filled in one go
WIDE_IF_REFINED = 64  # px; WIDE at full size, if that is refined (RECIPE.md, "Trained with the correction solved")
REDUCED_NOISE = 1.5  # times as strong random numbers in reduced pictures: enlarging softens (training/RECIPE.md)
BORDER = 8  # px of mirror image around a picture whose border the hole touches (training/RECIPE.md)
_BLEND = 32  # px around a tile over which it fades into the next


@torch.inference_mode()
def inpaint(
    network: Network,
    image: Tensor,
    hole: Tensor,
    edge: int = EDGE,
    tile: int = TILE,
    progress: Callable[[int, int], None] = lambda done, total: None,
    refine: Network | None = None,
) -> Tensor:
    """Fill the hole of a picture.

    The network is made for values in [0, 1]: it sees others clamped, and the correction of the hole's edge
    (`pconv.edge`), which sees them as they are, carries them into the hole.

    Args:
        network: An inpainting network in eval mode, or what wraps one.
        image: `(N, 3, H, W)`, sRGB in [0, 1] as a rule; its values under the hole never matter.
        hole: `(N, 1, H, W)`, 0 = keep, anything else = fill.
        edge: As for `predict`; 0: not sharpened (`pconv.sharpen`) either.
        tile: Side of what is computed at once in a large picture, its surroundings not counted, px.
        progress: Called with the windows done and in all, before each and at the end; what it raises ends the work.
        refine: A refinement network in eval mode, which adds detail to what comes from a reduced picture; None: that is
            enlarged bicubically.

    Returns:
        `(N, 3, H, W)` equal to `image` wherever `hole` is 0, else in [0, 1] or in the range of the known pixels where
        that is wider; gray if all that is known is.

    Raises:
        ValueError: Shapes that do not fit, or a picture of the batch that is hole everywhere.
    """
    check_image_and_hole(image, hole)
    if (hole != 0).flatten(1).all(1).any():
        raise ValueError("the hole covers the whole picture: nothing is left to go by")
    image, hole, inner = _mirror(image, hole, edge)
    low, high = _known_range(image, hole)
    levels = list(_levels(image, hole != 0, edge, tile, WIDE_IF_REFINED if refine else WIDE))
    total = sum(len(level.windows) + (len(level.wide_windows) if refine else 0) for level in levels)
    count = itertools.count()

    def counted(network: Network) -> Network:
        def call(part: Tensor, grown: Tensor) -> Tensor:
            progress(next(count), total)
            return network(part, grown)

        return call

    coarse: Tensor | None = None
    for level in reversed(levels):
        filled = level.image
        if coarse is not None:
            large = _enlarge(counted(refine) if refine else None, level, coarse, edge)
            filled = torch.where(level.wide, large.clamp_(low, high), filled)
        with stronger_numbers(1.0 if level is levels[0] else REDUCED_NOISE):
            coarse = _fill_narrow(counted(network), level, filled, edge, low, high)
    assert coarse is not None
    inside = hole != 0
    filled = sharpen(coarse, inside).clamp_(low, high) if edge else coarse  # what is known is within that range
    progress(total, total)
    return operations.keep_gray(filled, image, inside)[(..., *inner)]


def _mirror(image: Tensor, hole: Tensor, edge: int) -> tuple[Tensor, Tensor, tuple[slice, slice]]:
    """Continue a picture by its mirror image where the hole touches its border; and say where the picture is then.

    Without it a network leaves dark flecks along the border. A hole that cuts a narrow picture in two is wide all the
    same, and there has to be something to halve.
    """
    inner = []
    for side in (-2, -1):
        length, reach = image.shape[side], min(image.shape[side], max(1, edge))
        is_cut = length < 2 * WIDE and bool((hole != 0).all(side).any())
        margin = WIDE if is_cut else BORDER
        before, after = (margin * int((hole.narrow(side, at, reach) != 0).any()) for at in (0, length - reach))
        place = torch.arange(-before, length + after, device=image.device) % (2 * length)
        place = torch.minimum(place, 2 * length - 1 - place)
        if before or after:
            image, hole = image.index_select(side, place), hole.index_select(side, place)
        inner.append(slice(before, before + length))
    return image, hole, (inner[0], inner[1])


@dataclass(frozen=True)
class _Level:
    """The picture at one size."""

    image: Tensor
    hole: Tensor  # bool
    wide: Tensor  # bool, the part of the hole that comes from the next level
    grown: Tensor  # what the network predicts at this size
    windows: list[_Window]  # where it does
    wide_windows: list[_Window]


def _levels(image: Tensor, hole: Tensor, edge: int, tile: int, bound: int) -> Iterator[_Level]:
    """Reduce a picture by 2 until its hole is wide nowhere."""
    while True:
        wide = wide_parts(hole, bound)
        narrow = hole & ~wide
        # Into the wide part too: what comes from there is known by then, and has to be met like all that is.
        grown = grow_hole(narrow, edge) if narrow.any() else narrow.to(torch.float32)
        yield _Level(image, hole, wide, grown, list(_windows(grown, tile)), list(_windows(wide, tile)))
        if not wide.any():
            return
        (image, hole), bound = halve(image, hole), WIDE


def halve(image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce a picture by 2: each pixel the mean of what is known of its 2×2 px, hole where nothing is.

    Args:
        image: `(N, 3, H, W)`; its values under the hole never matter.
        hole: `(N, 1, H, W)` bool.

    Returns:
        Both, of half the height and width, rounded up.
    """
    known = F.avg_pool2d((~hole).to(image.dtype), 2, ceil_mode=True, count_include_pad=False)
    small = F.avg_pool2d(image.masked_fill(hole, 0), 2, ceil_mode=True, count_include_pad=False)
    return small / known.clamp(min=0.25), known == 0


def _enlarge(refine: Network | None, level: _Level, coarse: Tensor, edge: int) -> Tensor:
    """Enlarge the filled smaller picture, so that it meets what is known around the hole."""
    if refine is None:
        large = _double(coarse, level.image)
        return large + edge_correction(large, level.image, level.hole)
    image, hole = place_coarse(coarse, level.image, level.hole, edge)
    detailed = _predict(partial(operations.refine, refine), image, hole, level.wide_windows)
    detailed = operations.remove_lattice(detailed, level.wide)
    return detailed + edge_correction(detailed, level.image, level.hole)


def place_coarse(coarse: Tensor, image: Tensor, hole: Tensor, edge: int = 0) -> tuple[Tensor, Tensor]:
    """Make what a refinement network sees: a coarse fill's pixels on the ×2 lattice of §5.2, true ones around the hole.

    Args:
        coarse: The picture as `halve` reduces it, filled.
        image: `(N, 3, H, W)`; its values under the hole never matter.
        hole: `(N, 1, H, W)` bool.
        edge: Pixels around the hole that the network predicts too, as in `predict`.

    Returns:
        The picture, and its hole between the lattice: `(N, 1, H, W)` float32 of {0, 1}.
    """
    rows, columns = hole.shape[-2:]
    correction = edge_correction(_double(coarse, image), image, hole)
    shift = F.avg_pool2d(correction, 2, ceil_mode=True, count_include_pad=False)
    placed, between = (x[..., :rows, :columns] for x in operations.place_pixels(coarse + shift, 2))
    grown = grow_hole(hole, edge)
    return torch.where(grown > 0, placed, image), grown * between


def _double(coarse: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(coarse, scale_factor=2, mode="bicubic")[..., : image.shape[-2], : image.shape[-1]]


def _fill_narrow(network: Network, level: _Level, image: Tensor, edge: int, low: Tensor, high: Tensor) -> Tensor:
    """Fill by the network what is not wide."""
    if not level.windows:
        return image
    hole = level.hole & ~level.wide
    output = _predict(network, image, level.grown, level.windows)
    if edge:
        output = output + edge_correction(output, image, hole)
    return torch.where(hole, output.clamp(low, high).to(image.dtype), image)


def _predict(network: Network, image: Tensor, hole: Tensor, windows: list[_Window]) -> Tensor:
    """Let the network see window by window; where two overlap they fade into each other. Elsewhere: the image."""
    if len(windows) == 1 and hole[(..., *windows[0][2:])].shape == hole.shape:
        return network(image.clamp(0, 1), hole)
    total, weight = torch.zeros_like(image, dtype=torch.float32), torch.zeros_like(hole)
    for rows, columns, seen_rows, seen_columns in windows:
        seen = (..., seen_rows, seen_columns)
        part = network(image[seen].clamp(0, 1), hole[seen])
        fade = _fade(rows, seen_rows, image)[:, None] * _fade(columns, seen_columns, image)
        total[seen] += part * fade
        weight[seen] += fade
    return torch.where(weight > 0, total / weight, image)


def _windows(grown: Tensor, tile: int) -> Iterator[_Window]:
    """Cut a picture into tiles with surroundings; those without a hole are left out. A small picture is one window."""
    height, width = grown.shape[-2:]
    if max(height, width) <= tile + 2 * HALO:
        if grown.any():
            yield slice(0, height), slice(0, width), slice(0, height), slice(0, width)
        return
    tile = max(2, tile // 2 * 2)  # even, for the lattice of refinement
    for top, left in itertools.product(range(0, height, tile), range(0, width, tile)):
        rows, columns = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
        if grown[..., rows, columns].any():
            seen_rows = slice(max(0, top - HALO), min(rows.stop + HALO, height))
            seen_columns = slice(max(0, left - HALO), min(columns.stop + HALO, width))
            yield rows, columns, seen_rows, seen_columns


def _fade(inner: slice, seen: slice, image: Tensor) -> Tensor:
    """Weights along one side of a window: 1 in the tile, falling to 0 within `_BLEND` px outside."""
    place = torch.arange(seen.start, seen.stop, device=image.device, dtype=torch.float32)
    outside = torch.maximum(inner.start - place, place - (inner.stop - 1)).clamp(min=0)
    return (1 - outside / (_BLEND + 1)).clamp(min=0)


def _known_range(image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """The range of known values of each picture, at least [0, 1]; each `(N, 1, 1, 1)`."""
    known = image.masked_fill(hole != 0, 0)  # 0 is in the range anyway
    return known.amin((1, 2, 3), keepdim=True).clamp(max=0), known.amax((1, 2, 3), keepdim=True).clamp(min=1)
