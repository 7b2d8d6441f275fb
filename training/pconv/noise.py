"""Random numbers for the decoder: deep in a hole all that it sees is smooth, and texture has to be made of something.

The paper has none. Without them the style term teaches the decoder to make texture of the only thing that varies there,
the lattice of its own enlargements: a grid (training/RECIPE.md, "Less style, and where the grid comes from").
"""

import functools

import torch
from torch import Tensor

PERIOD = 128  # px after which the numbers of a trained network repeat: windows that start at multiples of it agree


def random_map(like: Tensor, period: int, training: bool) -> Tensor:
    """Draw standard normal numbers, one for each place.

    Args:
        like: Features `(N, C, H, W)` whose height, width, dtype and device the numbers take.
        period: Places after which they repeat, unless training.
        training: Draw new ones for each picture, from torch's generator; else the same ones at every call.

    Returns:
        `(N, 1, H, W)`, or `(1, 1, H, W)` when they are the same for all.
    """
    count, _, height, width = like.shape
    if training:
        return torch.randn(count, 1, height, width, dtype=like.dtype, device=like.device)
    tile = _tile(max(1, period))
    rows, columns = (torch.arange(side) % len(tile) for side in (height, width))
    return tile[rows][:, columns][None, None].to(like.device, like.dtype)


@functools.cache
def _tile(side: int) -> Tensor:
    return torch.randn(side, side, generator=torch.Generator().manual_seed(side))
