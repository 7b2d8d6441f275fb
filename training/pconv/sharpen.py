"""Contrast that a network's fill lacks, given back: unsharp masking with coring.

Where it cannot know, a network trained by regression gives means, with less contrast than photographs have. Between
`FINE` and `COARSE` px what it does give is mostly right, so more of it is nearer to the truth; what is faint may be
noise, and stays (training/RECIPE.md, "Contrast given back").
"""

import math

import torch
from torch import Tensor

from pconv.edge import box_of
from pconv.pyramid import blur

GAIN = 0.95  # of the band, at most
FINE, COARSE = 1.0, 3.0  # px, standard deviations of the Gaussians whose difference is the band
CORE = 0.01  # contrast of the band, from which on half of the gain is given
SPREAD = 4.0  # px, standard deviation of the Gaussian over which the contrast is averaged
_REACH = math.ceil(3 * (COARSE + SPREAD))  # px that a pixel depends on
_STRIP = 256  # rows at once


def sharpen(filled: Tensor, hole: Tensor) -> Tensor:
    """Sharpen the hole of a filled picture.

    Args:
        filled: `(N, 3, H, W)`, sRGB in [0, 1] as a rule.
        hole: `(N, 1, H, W)` bool.

    Returns:
        `(N, 3, H, W)`, equal to `filled` outside the hole; may leave the range of `filled`.
    """
    sharp = filled.clone()
    _, rows, columns = box_of(hole, _REACH)
    for top in range(rows.start or 0, rows.stop, _STRIP):  # a large picture's band would take as much memory as it does
        seen = (..., slice(max(0, top - _REACH), top + _STRIP + _REACH), columns)
        part = filled[seen].float()
        band = blur(part, FINE) - blur(part, COARSE)
        energy = blur(band.square().mean(1, keepdim=True), SPREAD)
        more = (part + GAIN * energy / (energy + CORE**2) * band).to(filled.dtype)
        strip, start = (..., slice(top, top + _STRIP), columns), top - seen[1].start
        sharp[strip] = torch.where(hole[strip], more[..., start : start + _STRIP, :], filled[strip])
    return sharp
