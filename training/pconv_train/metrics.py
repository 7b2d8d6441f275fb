"""How close a restored picture is to the truth: ℓ1, PSNR, SSIM, seam, specks; each for one of a batch at a time.

Pictures are `(N, 3, H, W)` float in [0, 1]; results `(N,)` float64.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def l1_percent(restored: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over all pixels and channels, in percent of the range (table 1's ℓ1)."""
    return 100 * (restored.double() - target.double()).abs().flatten(1).mean(1)


def psnr(restored: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all pixels and channels, dB; infinite for equal pictures."""
    return -10 * torch.log10((restored.double() - target.double()).square().flatten(1).mean(1))


def ssim(restored: Tensor, target: Tensor) -> Tensor:
    """Structural similarity, mean over the channels (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861).

    Gaussian window of 11×11 px, σ = 1.5, population statistics, the border of 5 px left out: what scikit-image gives
    for `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.

    Raises:
        ValueError: The pictures are smaller than the window.
    """
    return similarity(restored.double(), target.double())


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """Compute `ssim` in the pictures' own precision: a loss needs no more than float32."""
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs pictures of at least 11×11 px, got {tuple(x.shape[-2:])}")
    mx, my, xx, yy, xy = _gaussian(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return index.flatten(1).mean(1)


def seam(restored: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """Measure how visible the hole's edge is: the mean gradient across it ÷ the same in the target.

    The gradient across the edge is |p − q|, mean over the channels, for all 4-neighbours p in the hole and q outside.
    One level of 255 is added to both means, so that flat targets divide by something.

    Args:
        restored: Picture to judge.
        target: Ground truth.
        hole: `(N, 1, H, W)`, not 0 = hole.

    Returns:
        1 = as in the target, above = a visible edge, below = a blurred one; NaN for a hole without an edge.
    """
    inside = hole != 0
    across_rows = inside[..., 1:, :] != inside[..., :-1, :]
    across_columns = inside[..., 1:] != inside[..., :-1]
    count = across_rows.flatten(1).sum(1) + across_columns.flatten(1).sum(1)

    def gradient(image: Tensor) -> Tensor:
        image = image.double()
        rows = (image[..., 1:, :] - image[..., :-1, :]).abs().mean(1, keepdim=True) * across_rows
        columns = (image[..., 1:] - image[..., :-1]).abs().mean(1, keepdim=True) * across_columns
        return (rows.flatten(1).sum(1) + columns.flatten(1).sum(1)) / count

    return (gradient(restored) + 1 / 255) / (gradient(target) + 1 / 255)


def specks_percent(restored: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """Measure what a blur never has and invented grain does: how much of the hole is rougher than the truth is there.

    Roughness is the absolute Laplacian (4 neighbours, the border repeated) of luma (ITU-R BT.601), or of colour: RGB
    without luma, the largest of its channels. Rough is what exceeds the 99th percentile of the truth's own roughness in
    the hole by at least 4 levels of 255, which is more than rounding to 8 bits can do to a Laplacian.

    Args:
        restored: Picture to judge.
        target: Ground truth.
        hole: `(N, 1, H, W)`, not 0 = hole.

    Returns:
        Rough pixels in percent of the hole, by luma or by colour, whichever has more; the truth itself has at most 1.
        NaN where there is no hole.
    """
    both = zip(_roughness(restored.double()), _roughness(target.double()), strict=True)
    return torch.stack([_share_above(kind, true, hole != 0) for kind, true in both]).amax(0)


def luma(image: Tensor) -> Tensor:
    """Compute luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B: `(N, 3, H, W)` → `(N, 1, H, W)`."""
    return (image * image.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _roughness(image: Tensor) -> tuple[Tensor, Tensor]:
    """Take the absolute Laplacian of luma and of colour, `(N, 1, H, W)` each."""
    gray = luma(image)
    planes = torch.cat([gray, image - gray], 1)
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    around = padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] + padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1]
    laplacian = (around - 4 * planes).abs()
    return laplacian[:, :1], laplacian[:, 1:].amax(1, keepdim=True)


def _share_above(values: Tensor, true: Tensor, hole: Tensor) -> Tensor:
    shares = []
    for found, wanted, inside in zip(values, true, hole, strict=True):
        wanted = wanted[inside].sort().values
        limit = wanted[99 * len(wanted) // 100] + 4 / 255 if len(wanted) else wanted.new_tensor(math.nan)
        shares.append(100 * (found[inside] >= limit).double().mean())  # of nothing: NaN
    return torch.stack(shares)


def _gaussian(image: Tensor) -> Tensor:
    weights = torch.tensor([math.exp(-(i**2) / (2 * 1.5**2)) for i in range(-5, 6)], dtype=image.dtype)
    weights = (weights / weights.sum()).to(image.device).expand(image.shape[1], 1, 1, -1)
    rows = F.conv2d(image, weights, groups=image.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=image.shape[1])
