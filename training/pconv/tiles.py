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
from pconv.operations import upscale


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
        radius += 1 << stage  # nearest upsampling: up to that much off centre
    return radius


def upscale_tiles(
    network: Network,
    image: Tensor,
    factor: int = 4,
    hole: Tensor | None = None,
    tile: int = TILE,
    start: int = 0,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Tensor]:
    """Enlarge a picture tile by tile; the same as `upscale`, up to rounding, in memory for one row of tiles.

    Args:
        network: An upscaling network in eval mode, trained for this factor, or what wraps one and has its config.
        image: `(1, 3, H, W)`, sRGB in [0, 1].
        factor: Enlargement K ≥ 1 of height and width.
        hole: `(1, 1, H, W)`, 0 = known, anything else = unknown; None: all is known.
        tile: Side of a tile in pixels of `image`, surroundings not counted; rounded up to what suits the network.
        start: Row of `image` to begin with, where an earlier call has come to.
        progress: Called with the finished fraction of the picture after each tile; what it raises ends the work.

    Yields:
        Rows of the result from the top, `(1, 3, rows, K·W)` in [0, 1].
    """
    height, width = image.shape[-2:]
    period = 1 << len(network.config.channels)
    step = period // math.gcd(period, factor)  # px of `image` after which the halvings fall alike
    tile = max(1, math.ceil(tile / step)) * step
    halo = math.ceil(receptive_radius(network.config) / factor / step) * step
    for top in range(start, height, tile):
        y0, bottom = max(0, top - halo), min(height, top + tile)
        y1 = min(height, bottom + halo)
        row = []
        for left in range(0, width, tile):
            x0, right = max(0, left - halo), min(width, left + tile)
            part = (..., slice(y0, y1), slice(x0, min(width, right + halo)))
            large = upscale(network, image[part], factor, None if hole is None else hole[part])
            rows = slice((top - y0) * factor, (bottom - y0) * factor)
            row.append(large[..., rows, (left - x0) * factor : (right - x0) * factor])
            progress((top * width + (bottom - top) * right) / (height * width))
        yield torch.cat(row, dim=-1)
