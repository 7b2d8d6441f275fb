"""Random numbers for the decoder: deep in a hole all that it sees is smooth, and texture has to be made of something.

The paper has none. Without them the style term teaches the decoder to make texture of the only thing that varies there,
the lattice of its own enlargements: a grid (training/RECIPE.md, "Less style, and where the grid comes from").
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

PERIOD = 128  # px after which the numbers of a trained network repeat: windows that start at multiples of it agree
_FACTOR = ContextVar("_FACTOR", default=1.0)


@contextmanager
def stronger_numbers(factor: float) -> Iterator[None]:
    """Within this context, in this thread, decoders' features get their random numbers `factor` times as strong."""
    token = _FACTOR.set(factor)
    try:
        yield
    finally:
        _FACTOR.reset(token)


def strength_factor() -> float:
    """How many times as strong as learnt the random numbers are here."""
    return _FACTOR.get()


def random_map(like: Tensor, period: int, training: bool, smooth: bool = False) -> Tensor:
    """Draw standard normal numbers, one for each place.

    Args:
        like: Features `(N, C, H, W)` whose height, width, dtype and device the numbers take.
        period: Places after which they repeat, unless training.
        training: Draw new ones for each picture, from torch's generator; else the same ones at every call.
        smooth: Each the sum of 2×2 independent ones ÷ 2. Waves of 2 places, which run along the axes alone, are gone:
            enlarged ×2 they meet their own image, and stand out as strokes (training/RECIPE.md, "Strokes along the
            axes").

    Returns:
        `(N, 1, H, W)`, or `(1, 1, H, W)` when they are the same for all.
    """
    count, _, height, width = like.shape
    if training:
        more = int(smooth)
        numbers = torch.randn(count, 1, height + more, width + more, dtype=like.dtype, device=like.device)
        return _smooth(numbers) if smooth else numbers
    tile = _tile(max(1, period), smooth)
    rows, columns = (torch.arange(side) % len(tile) for side in (height, width))
    return tile[rows][:, columns][None, None].to(like.device, like.dtype)


@functools.cache
def _tile(side: int, smooth: bool) -> Tensor:
    numbers = torch.randn(side, side, generator=torch.Generator().manual_seed(side))
    return _smooth(F.pad(numbers[None, None], (0, 1, 0, 1), mode="circular"))[0, 0] if smooth else numbers


def _smooth(numbers: Tensor) -> Tensor:
    return 2 * F.avg_pool2d(numbers, 2, 1)
