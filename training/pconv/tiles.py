"""Enlarging a picture of any size in flat memory: tiles that see all that the network would see.

A tile's surroundings reach as far as an output pixel can look, and tiles start where the U-Net's halvings fall as in
the whole picture. So the result does not depend on the tiling, up to rounding, and there is no seam to blend.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from pconv.network import PConvUNetConfig
from pconv.noise import PERIOD
from pconv.operations import CONSISTENT_RADIUS, upscale


class Network(Protocol):
    """A `PConvUNet`, or what wraps one."""

    config: PConvUNetConfig

    def __call__(self, image: Tensor, hole: Tensor) -> Tensor:
        """Predict."""


TILE = 192  # px of the small picture on a side, without surroundings: 0.4 GB of features in the compact network


def receptive_radius(config: PConvUNetConfig) -> int:
    """How far an output pixel of the network looks, at most.

    Args:
        config: Of the network.

    Returns:
        Pixels to each side.
    """
    radius = 0
    for stage, kernel in enumerate(config.kernel_sizes):
        radius += (kernel // 2) << stage  # encoder: a tap is 2^stage px wide
        radius += 1 << stage  # decoder: 3 × 3 after upsampling
        # Upsampling: nearest is up to that much off centre, the others look further.
        radius += {"nearest": 1, "bilinear": 3, "binomial": 4}[config.upsampling] << stage
    return radius


def upscale_tiles(
    network: Network,
    image: Tensor,
    factor: int = 4,
    hole: Tensor | None = None,
    tile: int = TILE,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Tensor]:
    """Enlarge a picture tile by tile; the same as `upscale`, up to rounding, in memory for one row of tiles.

    A tile that is gray stays gray, though the picture has colours elsewhere.

    Args:
        network: An upscaling network in eval mode, trained for this factor, or what wraps one and has its config.
        image: `(1, 3, H, W)`, sRGB in [0, 1].
        factor: Enlargement K ≥ 1 of height and width.
        hole: `(1, 1, H, W)`, 0 = known, anything else = unknown; None: all is known.
        tile: Side of a tile in pixels of `image`, surroundings not counted; rounded up to what suits the network.
        progress: Called with the finished fraction of the picture after each tile; what it raises ends the work.

    Yields:
        Rows of the result from the top, `(1, 3, rows, K·W)` in [0, 1].
    """
    height, width = image.shape[-2:]
    top = 0
    while top < height:
        rows, tile, above = band_rows(network.config, factor, tile, top)
        known = None if hole is None else hole[..., rows, :]
        row = []
        for right, large in upscale_band(network, image[..., rows, :], factor, known, tile, above):
            row.append(large)
            progress((top * width + min(tile, height - top) * right) / (height * width))
        yield torch.cat(row, dim=-1)
        top += tile


def upscale_band(
    network: Network, image: Tensor, factor: int, hole: Tensor | None, tile: int, above: int
) -> Iterator[tuple[int, Tensor]]:
    """Enlarge one row of tiles.

    Args:
        network: As for `upscale_tiles`.
        image: `(1, 3, rows, W)`: the tiles' rows with what the network sees above and below them, see `band_rows`.
        factor: As for `upscale_tiles`.
        hole: `(1, 1, rows, W)` or None.
        tile: Side of a tile, a multiple of the step of `band_rows`, px of `image`.
        above: Rows of `image` above the tiles.

    Yields:
        From the left, how far the result has come in pixels of `image`, and the tile `(1, 3, K·rows, K·columns)`.
    """
    around = halo(network.config, factor)
    width, bottom = image.shape[-1], min(image.shape[-2], above + tile)
    for left in range(0, width, tile):
        start, right = max(0, left - around), min(width, left + tile)
        part = (..., slice(None), slice(start, min(width, right + around)))
        large = upscale(network, image[part], factor, None if hole is None else hole[part])
        rows = slice(above * factor, bottom * factor)
        yield right, large[..., rows, (left - start) * factor : (right - start) * factor]


def band_rows(config: PConvUNetConfig, factor: int, tile: int, top: int) -> tuple[slice, int, int]:
    """Say what `upscale_band` needs to enlarge the tiles whose rows begin at `top`.

    Args:
        config: Of the network.
        factor: Enlargement.
        tile: Wanted side of the tiles, px.
        top: A row at which an earlier band ended, or 0.

    Returns:
        The rows to cut from the picture, the tiles' true side, and the rows above them.
    """
    step, around = _step(config, factor), halo(config, factor)
    tile = max(1, math.ceil(tile / step)) * step
    return slice(max(0, top - around), top + tile + around), tile, min(top, around)


def halo(config: PConvUNetConfig, factor: int) -> int:
    """How far around a tile its pixels look.

    Args:
        config: Of the network.
        factor: Enlargement.

    Returns:
        Pixels of the small picture to each side, a multiple of the step after which tiles may begin.
    """
    step = _step(config, factor)
    return math.ceil((receptive_radius(config) / factor + CONSISTENT_RADIUS) / step) * step


def _step(config: PConvUNetConfig, factor: int) -> int:
    """After how many pixels the halvings of the U-Net, and its random numbers, fall alike."""
    period = max(1 << len(config.channels), PERIOD if config.noise else 1)
    return period // math.gcd(period, factor)
