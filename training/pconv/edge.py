"""What makes a fill meet its surroundings: the network's error around the hole, carried smoothly into it.

The paper has no such step. The network is shown a hole a few pixels wider than the one to fill, so around the hole it
predicts pixels that are known. There its error is known too, and the harmonic function that continues it into the hole
(the membrane of Pérez et al. 2003, "Poisson Image Editing", https://doi.org/10.1145/882262.882269) is added to it.
"""

from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 4  # px; see training/RECIPE.md
_SWEEPS = 8  # on each level; the levels above leave little to do


def grow_hole(hole: Tensor, margin: int) -> Tensor:
    """Grow the hole of each picture by `margin` px to all sides, unless that left nothing known of the picture.

    Args:
        hole: `(N, 1, H, W)`, 0 = keep, anything else = fill.
        margin: Pixels ≥ 0.

    Returns:
        `(N, 1, H, W)` float32 of {0, 1}.
    """
    hole = (hole != 0).to(torch.float32)
    if margin == 0:
        return hole
    grown = dilate(hole, margin)
    return torch.where(grown.amin((1, 2, 3), keepdim=True) > 0, hole, grown)


def dilate(mask: Tensor, margin: int) -> Tensor:
    """Take the largest of all within `margin` px of each pixel of `(N, C, H, W)`; on a CPU faster than `max_pool2d`."""
    for axis in (-2, -1) * margin:
        grown, size = mask.clone(), mask.shape[axis] - 1
        for one, other in ((0, 1), (1, 0)):
            part = grown.narrow(axis, one, size)
            torch.maximum(part, mask.narrow(axis, other, size), out=part)
        mask = grown
    return mask


def edge_correction(output: Tensor, image: Tensor, hole: Tensor) -> Tensor:
    """Continue the network's error at the hole's edge into the hole.

    Args:
        output: Prediction of the whole picture, `(N, 3, H, W)`.
        image: Picture to restore, `(N, 3, H, W)`; its values under the hole never matter.
        hole: `(N, 1, H, W)`, 0 = keep, anything else = fill.

    Returns:
        What is to be added to `output`: `(N, 3, H, W)`, harmonic in the hole, 0 outside.
    """
    inside = hole != 0
    correction = torch.zeros_like(output, dtype=torch.float32)
    box = box_of(inside, 16)  # the hole's surroundings are all that counts
    error = (image[box] - output[box]).to(torch.float32).masked_fill_(inside[box], 0)
    correction[box] = torch.where(inside[box], _continue(error, inside[box]), 0)
    return correction


def box_of(hole: Tensor, margin: int) -> tuple[EllipsisType, slice, slice]:
    """Return the rows and columns of a hole `(N, 1, H, W)`, bool, and up to `margin` px more on each side."""
    spans = []
    for axis in (-2, -1):
        places = hole.movedim(axis, 0).flatten(1).any(1).nonzero()
        empty = not places.numel()
        spans.append(slice(0) if empty else slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin))
    return (..., spans[0], spans[1])


def _continue(values: Tensor, hole: Tensor) -> Tensor:
    """Solve Laplace's equation in the hole, the values around it given, by relaxation from coarse to fine.

    Every second level has half the size. The picture's border is a mirror.
    """
    if not hole.any() or hole.all() or values[0, 0].numel() == 1:
        return values
    # A pixel of the smaller picture is the mean of what is known of its 2×2 px.
    known = F.avg_pool2d((~hole).to(values.dtype), 2, ceil_mode=True)
    small = F.avg_pool2d(values, 2, ceil_mode=True) / known.clamp(min=0.25)
    large = F.interpolate(_continue(small, known == 0), scale_factor=2, mode="bilinear")
    values = torch.where(hole, large[..., : hole.shape[-2], : hole.shape[-1]], values)
    for _ in range(_SWEEPS):
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
        around += padded[..., 1:-1, :-2]  # in place, for large holes would take as many large tensors
        around += padded[..., 1:-1, 2:]
        values = torch.where(hole, around.div_(4), values)
    return values
