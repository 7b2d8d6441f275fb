"""What of a hole is too wide to be filled in one pass of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 112  # px; a part of a hole that holds a square of this side is wide
_GRID = 8  # px, to which the search rounds


def wide_parts(hole: Tensor, bound: int = WIDE) -> Tensor:
    """Find the parts of a hole that are wider than a bound: its opening by a square, on a coarse grid.

    Args:
        hole: `(N, 1, H, W)` bool.
        bound: Side of the square, px, a multiple of 8.

    Returns:
        `(N, 1, H, W)` bool, within the hole.
    """
    if min(hole.shape[-2:]) < bound // 2:
        return torch.zeros_like(hole)
    if min(hole.shape[-2:]) < bound:  # a square at the border may reach beyond it
        padded = hole.new_ones(*hole.shape[:2], *(max(bound, side) for side in hole.shape[-2:]))
        padded[..., : hole.shape[-2], : hole.shape[-1]] = hole
        return wide_parts(padded, bound)[..., : hole.shape[-2], : hole.shape[-1]] & hole
    solid = _smallest(hole.to(torch.float32), _GRID, _GRID)
    side = bound // _GRID - 1  # a square that falls off the grid holds one cell less
    if not solid.any() or min(solid.shape[-2:]) < side:
        return torch.zeros_like(hole)
    squares = F.pad(_smallest(solid, side, 1), (side - 1,) * 4)
    opened = F.max_pool2d(squares, side, 1)
    if not opened.any():
        return torch.zeros_like(hole)
    cells = F.max_pool2d(opened, 2 * (side // 2) + 1, 1, side // 2)  # the rim of a round part belongs to it
    large = cells.repeat_interleave(_GRID, -2).repeat_interleave(_GRID, -1)
    large = F.pad(large, (0, hole.shape[-1] - large.shape[-1], 0, hole.shape[-2] - large.shape[-2]), mode="replicate")
    return hole & (large > 0)


def _smallest(values: Tensor, size: int, stride: int) -> Tensor:
    return -F.max_pool2d(-values, size, stride)
