"""Copied patches joined in the gradient domain, so that two of a smooth sky do not meet in a step.

Where neighbouring pixels are copied from different places, their difference is in neither: it is a step that no part
of the photograph has. So what is wanted of two neighbours is a difference that one of their sources has, and the
picture is the least-squares compromise between those and the composed colours: a screened Poisson equation (Pérez et
al. 2003, https://doi.org/10.1145/882262.882269; Bhat et al. 2008, https://doi.org/10.1007/978-3-540-88688-4_9).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pconv.pyramid import Level, surroundings

SCREEN = 0.2  # weight of a composed colour, against 1 of a difference; see training/RECIPE.md
_STEPS = 12  # of conjugate gradients, each of which divides the error by 1.4


def join(level: Level, field: Tensor, composed: Tensor, tick: Callable[[int], None]) -> Tensor:
    """Let the pixels of a level's targets differ from each other as in the photograph.

    Args:
        level: What was composed: its targets change, and only they.
        field: `(pixels,)`, where each target is copied from; a pixel that names itself keeps its own differences.
        composed: `(pixels, 3)`, the colours that were voted for; changed in place.
        tick: Called with 0 between steps; what it raises ends the work.

    Returns:
        `composed`.
    """
    size = len(field) // level.width, level.width
    target = torch.zeros_like(level.sources)
    target[level.targets] = True
    target = target.view(size)
    rows, columns = (surroundings(target.any(axis), 0) for axis in (1, 0))
    inside = target[rows, columns].to(composed.dtype)
    colours = composed.view(*size, 3)[rows, columns].permute(2, 0, 1)
    sources = field.view(size)[rows, columns]
    edges = [_first(inside, axis) * _second(inside, axis) for axis in _AXES]
    error = torch.zeros(colours.shape, dtype=colours.dtype, device=colours.device)
    for axis, edge, shift in zip(_AXES, edges, (level.width, 1), strict=True):
        _add_differences(error, axis, edge * (_wanted(level.picture, sources, axis, shift) - colours.diff(dim=axis)))
    colours += _solve(error, edges, tick)
    return composed


_AXES = (-2, -1)  # a pixel and the one below it, a pixel and the one at its right


def _first(x: Tensor, axis: int) -> Tensor:
    return x.narrow(axis, 0, x.shape[axis] - 1)


def _second(x: Tensor, axis: int) -> Tensor:
    return x.narrow(axis, 1, x.shape[axis] - 1)


def _wanted(picture: Tensor, sources: Tensor, axis: int, shift: int) -> Tensor:
    """Ask both sources of two neighbours how they differ, and take the larger answer: a mean would be soft."""
    first, second = _first(sources, axis), _second(sources, axis)
    forward = picture[first + shift] - picture[first]
    backward = picture[second] - picture[second - shift]
    larger = forward.square().sum(-1, keepdim=True) > backward.square().sum(-1, keepdim=True)
    return torch.where(larger, forward, backward).permute(2, 0, 1)


def _add_differences(total: Tensor, axis: int, differences: Tensor) -> None:
    """Tell each pixel its differences to its neighbours along an axis: the transpose of taking them."""
    _second(total, axis).add_(differences)
    _first(total, axis).sub_(differences)


def _solve(wanted: Tensor, edges: Sequence[Tensor], tick: Callable[[int], None]) -> Tensor:
    """Find the change by conjugate gradients, each colour for itself; `wanted` is overwritten."""
    change, residual, direction = torch.zeros_like(wanted), wanted, wanted.clone()
    tiny = torch.finfo(wanted.dtype).tiny
    energy = residual.square().sum((1, 2), keepdim=True)
    for _ in range(_STEPS):
        tick(0)
        applied = SCREEN * direction
        for axis, edge in zip(_AXES, edges, strict=True):
            _add_differences(applied, axis, direction.diff(dim=axis).mul_(edge))
        length = energy / (direction * applied).sum((1, 2), keepdim=True).clamp_min(tiny)
        change.addcmul_(direction, length)
        residual.addcmul_(applied, length, value=-1)
        previous, energy = energy, residual.square().sum((1, 2), keepdim=True)
        direction.mul_(energy / previous.clamp_min(tiny)).add_(residual)
    return change
