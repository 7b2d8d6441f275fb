"""From a method's picture to figures: table 1's metrics, and the protocol of the super-resolution literature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pconv_train.data import to_unit
from pconv_train.evaluation.methods import FACTOR, MethodError, Picture
from pconv_train.evaluation.pairs import Problem
from pconv_train.evaluation.perceptual import Perceptual
from pconv_train.metrics import l1_percent, psnr, seam, specks_percent, ssim

_BEST_PSNR = 100.0  # dB, for equal pictures: better than any one wrong level in a picture of 8 bits


@dataclass(frozen=True)
class Metric:
    """A figure of a table."""

    key: str
    label: str
    better: str  # "lower", "higher" or "one": what is nearer to 1
    digits: int


def metrics(task: str, distances: Sequence[Perceptual]) -> list[Metric]:
    """List the figures of a task."""
    seen = [Metric(distance.key, distance.name, "lower", 4) for distance in distances]
    if task == "upscale":
        y = [Metric("psnr", "PSNR (Y), dB", "higher", 2), Metric("ssim", "SSIM (Y)", "higher", 4)]
        return [*y, *seen, Metric("consistency", "Consistency error, %", "lower", 2)]
    table1 = [
        Metric("l1", "ℓ1, %", "lower", 2),
        Metric("psnr", "PSNR, dB", "higher", 2),
        Metric("ssim", "SSIM", "higher", 3),
    ]
    return [*table1, *seen, Metric("seam", "Seam", "one", 2), Metric("specks", "Specks, %", "lower", 2)]


def compose(problem: Problem, restored: Picture) -> Picture:
    """Check what a method returned, and put the known pixels back.

    Raises:
        MethodError: It has the wrong size or type.
    """
    if restored.shape != problem.target.shape or restored.dtype != np.uint8:
        raise MethodError(f"it returned {restored.dtype} {restored.shape} instead of uint8 {problem.target.shape}")
    return restored if problem.hole is None else np.where(problem.hole[..., None], restored, problem.target)


def measure(problem: Problem, restored: Picture, distances: Sequence[Perceptual]) -> dict[str, float | None]:
    """Judge a composed picture; None where a figure has no meaning."""
    result, target = _to_batch(restored), _to_batch(problem.target)
    figures: dict[str, float | None]
    if problem.hole is None:
        figures = _upscale_figures(problem, restored)
    else:
        hole = torch.from_numpy(problem.hole)[None, None]
        figures = {
            "l1": float(l1_percent(result, target)),
            "psnr": min(float(psnr(result, target)), _BEST_PSNR),
            "ssim": float(ssim(result, target)),
            "seam": float(seam(result, target, hole)),
            "specks": float(specks_percent(result, target, hole)),
        }
    for distance in distances:
        figures[distance.key] = distance.distance(result, target)
    return {name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()}


def luma(picture: Picture, gray: bool) -> NDArray[np.float64]:
    """Get what super-resolution is judged by, in levels of 255: Y of BT.601 in studio range, as MATLAB's rgb2ycbcr.

    A gray photo is its own luma: that is how Set14's published figures take its one.
    """
    pixels = picture.astype(np.float64)
    if gray:
        return np.asarray(pixels @ [0.299, 0.587, 0.114])
    return np.asarray(16 + pixels @ [65.481, 128.553, 24.966] / 255)


def _upscale_figures(problem: Problem, restored: Picture) -> dict[str, float | None]:
    edge = slice(FACTOR, -FACTOR)
    y, wanted = (
        torch.from_numpy(luma(picture, problem.gray)[edge, edge])[None, None] / 255
        for picture in (restored, problem.target)
    )
    # Averaged back by 4: what a pixel of the input stands for.
    averaged = F.avg_pool2d(_to_batch(restored).double(), FACTOR)
    return {
        "psnr": min(float(psnr(y, wanted)), _BEST_PSNR),
        "ssim": float(ssim(y, wanted)) if min(y.shape[-2:]) >= 11 else None,
        "consistency": float(l1_percent(averaged, _to_batch(problem.image))),
    }


def _to_batch(picture: Picture) -> Tensor:
    return to_unit(torch.from_numpy(np.array(picture))).permute(2, 0, 1)[None]
