"""What makes a fill meet its surroundings: the network's error around the hole, carried smoothly into it.

The paper has no such step. The network is shown a hole a few pixels wider than the one to fill, so around the hole it
predicts pixels that are known. There its error is known too, and the harmonic function that continues it into the hole
from the pixels that touch it (the membrane of Pérez et al. 2003, "Poisson Image Editing",
https://doi.org/10.1145/882262.882269) is added to it.
"""

from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 2  # px; see training/RECIPE.md
_SWEEPS = 16  # on each level; the levels above leave little to do
_RADIUS = 0.99  # spectral radius of a sweep that they are made for: that of a part some 20 px wide


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
    if not inside.any():
        return correction
    box = box_of(inside, 2)  # nothing beyond the rim counts
    rim = (dilate(inside[box].to(torch.uint8), 1) > 0) & ~inside[box]
    error = (image[box] - output[box]).to(torch.float32).masked_fill_(~rim, 0)
    correction[box] = torch.where(inside[box], _continue(error, rim), 0)
    return correction


def box_of(hole: Tensor, margin: int) -> tuple[EllipsisType, slice, slice]:
    """Return the rows and columns of a hole `(N, 1, H, W)`, bool, and up to `margin` px more on each side."""
    spans = []
    for axis in (-2, -1):
        places = hole.movedim(axis, 0).flatten(1).any(1).nonzero()
        empty = not places.numel()
        spans.append(slice(0) if empty else slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin))
    return (..., spans[0], spans[1])


def _continue(values: Tensor, known: Tensor) -> Tensor:
    """Solve Laplace's equation wherever values, 0 there, are not known, by relaxation from coarse to fine.

    Every second level has half the size. Sweeps of Jacobi, sped up by the Chebyshev semi-iteration (Golub and Varga
    1961, https://doi.org/10.1007/BF01386013), which is linear as they are. The picture's border is a mirror.
    """
    if not known.any() or known.all() or values[0, 0].numel() == 1:
        return values
    # A pixel of the smaller picture is the mean of what is known of its 2×2 px.
    share = F.avg_pool2d(known.to(values.dtype), 2, ceil_mode=True)
    small = F.avg_pool2d(values, 2, ceil_mode=True) / share.clamp(min=0.25)
    large = F.interpolate(_continue(small, share > 0), scale_factor=2, mode="bilinear")
    values = before = torch.where(known, values, large[..., : known.shape[-2], : known.shape[-1]])
    weight = 2.0  # so that the second sweep has 1 / (1 - radius² / 2); the first is a plain one
    for sweep in range(_SWEEPS):
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
        around += padded[..., 1:-1, :-2]  # in place, for large holes would take as many large tensors
        around += padded[..., 1:-1, 2:]
        around.div_(4)
        if sweep > 0:
            weight = 1 / (1 - _RADIUS**2 * weight / 4)
            around.lerp_(before, 1 - weight)
        values, before = torch.where(known, values, around), values
    return values
