"""The paper's losses (§3.3, eqs. 3–7) and three terms more, one small function a term, all in float32.

`output` is I_out, `comp` is I_comp (`target` outside the hole), `target` is I_gt; `(N, 3, H, W)` in [0, 1]. `hole` is
1 − M, `(N, 1, H, W)` of {0, 1}. The first version of the paper prints plain norms; the means here follow its later
version, and belong to what the weights of eq. 7 mean.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pconv_train.metrics import luma, similarity

Features = Callable[[Tensor], Sequence[Tensor]]  # Ψ: a picture to its pool1, pool2, pool3


@dataclass(frozen=True)
class LossWeights:
    """Weights of eq. 7, and of three terms that it does not have; a term of weight 0 is not computed."""

    valid: float = 1.0
    hole: float = 6.0
    perceptual: float = 0.05
    style: float = 120.0
    tv: float = 0.1
    unit_perceptual: float = 0.0
    ssim: float = 0.0
    chroma: float = 0.0

    @property
    def need_vgg(self) -> bool:
        """Whether a term looks at Ψ."""
        return any((self.perceptual, self.style, self.unit_perceptual))

    @classmethod
    def l1(cls, valid: float = 1.0, hole: float = 6.0) -> Self:
        """The first two terms alone: no VGG, so many times faster."""
        return cls(valid, hole, 0.0, 0.0, 0.0)


def valid_loss(output: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """L_valid = ‖M ⊙ (I_out − I_gt)‖₁, averaged over all N·C·H·W elements (eq. 3)."""
    return ((1 - hole) * (output - target)).abs().mean()


def hole_loss(output: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """L_hole = ‖(1 − M) ⊙ (I_out − I_gt)‖₁, averaged over all N·C·H·W elements (eq. 3)."""
    return (hole * (output - target)).abs().mean()


def perceptual_loss(features: Sequence[Tensor], target_features: Sequence[Tensor]) -> Tensor:
    """Σ_n ‖Ψ_n(I) − Ψ_n(I_gt)‖₁, each averaged over its elements: one of the two sums of eq. 4."""
    return torch.stack([F.l1_loss(a, b) for a, b in zip(features, target_features, strict=True)]).sum()


def unit_perceptual_loss(features: Sequence[Tensor], target_features: Sequence[Tensor]) -> Tensor:
    """Σ_n of the squared distance of Ψ_n of length 1 at each place, averaged over places.

    LPIPS with all its channels' weights 1 (Zhang et al. 2018, eq. 1, https://arxiv.org/abs/1801.03924). Unlike eq. 4 it
    counts faint detail as much as bold.
    """
    pairs = zip(features, target_features, strict=True)
    return torch.stack([(F.normalize(a) - F.normalize(b)).square().sum(1).mean() for a, b in pairs]).sum()


def ssim_loss(comp: Tensor, target: Tensor) -> Tensor:
    """1 − SSIM, averaged over the batch (Zhao et al. 2017, https://arxiv.org/abs/1511.08861).

    Raises:
        ValueError: The pictures are smaller than SSIM's window of 11 px.
    """
    return 1 - similarity(comp, target).mean()


def chroma_loss(output: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """‖(1 − M) ⊙ (I_out − I_gt − their luma's difference)‖₁, averaged over all N·C·H·W elements.

    Texture in photographs is mostly of luma; without this, texture that terms on Ψ ask for comes as coloured specks.
    """
    error = hole * (output - target)
    return (error - luma(error)).abs().mean()


def gram(features: Tensor) -> Tensor:
    """K_n ΨᵀΨ with K_n = 1/(C·H·W) (eqs. 5, 6): `(N, C, H, W)` → `(N, C, C)` float32."""
    n, channels, height, width = features.shape
    # Divided in two steps, before and after the product, so that half precision neither overflows nor underflows.
    flat = features.float().reshape(n, channels, height * width) / (height * width) ** 0.5
    product: Tensor = flat @ flat.transpose(1, 2)
    return product / channels


def style_loss(features: Sequence[Tensor], target_features: Sequence[Tensor]) -> Tensor:
    """Σ_n ‖K_n(ΨᵀΨ − Ψ_gtᵀΨ_gt)‖₁, averaged over C×C (eq. 5 for I_out, eq. 6 for I_comp)."""
    pairs = zip(features, target_features, strict=True)
    return torch.stack([F.l1_loss(gram(a), gram(b)) for a, b in pairs]).sum()


def tv_loss(comp: Tensor, hole: Tensor) -> Tensor:
    """Total variation in the hole dilated by one pixel, P: both neighbours in P; the sum ÷ N·C·H·W."""
    region = F.max_pool2d(hole, 3, 1, 1)
    across = (region[..., 1:] * region[..., :-1] * (comp[..., 1:] - comp[..., :-1])).abs().sum()
    down = (region[..., 1:, :] * region[..., :-1, :] * (comp[..., 1:, :] - comp[..., :-1, :])).abs().sum()
    return (across + down) / comp.numel()


def total_loss(
    output: Tensor,
    target: Tensor,
    hole: Tensor,
    weights: LossWeights,
    features: Features | None = None,
    perceptual_crop: int | None = None,
    generator: torch.Generator | None = None,
    turned: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_total of eq. 7, and what else has a weight.

    With a valid weight of 0, the terms that look at Ψ leave out I_out.

    Args:
        output: I_out, `(N, 3, H, W)`, any floating dtype.
        target: I_gt, `(N, 3, H, W)` in [0, 1].
        hole: `(N, 1, H, W)` of {0, 1}, 1 = hole.
        weights: Of the five terms.
        features: Ψ; needed if `weights.need_vgg`.
        perceptual_crop: Side of the window to which Ψ is applied, px, around a random pixel of each hole; half of the
            windows are of the picture at half its size, if that is as large. None: the whole picture.
        generator: CPU generator that places the window.
        turned: Whether the window is anywhere in the picture, turned by any angle, and 0.9 to 1.44 times as large as it
            was there, or as much larger as it has to be to lie within the picture.

    Returns:
        The weighted sum, and each unweighted term by name, detached.
    """
    output, hole = output.float(), hole.float()
    comp = torch.where(hole > 0, output, target)
    terms = {"valid": valid_loss(output, target, hole), "hole": hole_loss(output, target, hole)}
    if weights.tv:
        terms["tv"] = tv_loss(comp, hole)
    if weights.chroma:
        terms["chroma"] = chroma_loss(output, target, hole)
    if weights.ssim:
        terms["ssim"] = ssim_loss(comp, target)
    if weights.need_vgg:
        assert features is not None, "perceptual and style terms need VGG features"
        window = (_turned_window if turned else _window)(hole, perceptual_crop, generator)
        # Without a valid term nothing holds I_out to the known pixels, so only I_comp is worth looking at.
        shown = (output, comp) if weights.valid else (comp,)
        with torch.no_grad():
            psi_target = [x.float() for x in features(window(target))]
        layers = features(torch.cat([window(x) for x in shown]))
        psi = list(zip(*(x.float().chunk(len(shown)) for x in layers), strict=True))
        if weights.perceptual:
            terms["perceptual"] = torch.stack([perceptual_loss(x, psi_target) for x in psi]).sum()
        if weights.unit_perceptual:
            terms["unit_perceptual"] = torch.stack([unit_perceptual_loss(x, psi_target) for x in psi]).sum()
        if weights.style:
            terms["style"] = torch.stack([style_loss(x, psi_target) for x in psi]).sum()
    weighted = asdict(weights)
    total = torch.stack([weighted[name] * term for name, term in terms.items()]).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def _window(hole: Tensor, side: int | None, generator: torch.Generator | None) -> Callable[[Tensor], Tensor]:
    """Place a window of each picture around a random pixel of its hole: elsewhere I_comp has nothing to learn.

    Where the picture has room, half of them are twice as large, and halved: there Ψ sees shapes twice as large.
    """
    if side is None:
        return lambda image: image
    lengths = hole.shape[-2:]
    views = []
    for inside in hole[:, 0]:
        halved = bool(torch.rand((), generator=generator) < 0.5) and 2 * side <= min(lengths)
        crop = [min(2 * side if halved else side, length) for length in lengths]
        places = inside.nonzero()
        places = places if len(places) else torch.ones_like(inside).nonzero()
        middle = places[int(torch.randint(len(places), (), generator=generator))].tolist()
        corner = [min(max(0, at - c // 2), n - c) for at, c, n in zip(middle, crop, lengths, strict=True)]
        views.append((halved, tuple(slice(at, at + c) for at, c in zip(corner, crop, strict=True))))

    def look(one: Tensor, halved: bool, view: tuple[slice, ...]) -> Tensor:
        part = one[None, ..., *view]
        return F.interpolate(part, scale_factor=0.5, mode="bicubic", antialias=True) if halved else part

    return lambda image: torch.cat([look(one, *view) for one, view in zip(image, views, strict=True)])


def _turned_window(hole: Tensor, side: int | None, generator: torch.Generator | None) -> Callable[[Tensor], Tensor]:
    """Place a square that lies within each picture, sampled bicubically: what VGG favours has no direction then."""
    count, _, height, width = hole.shape
    shorter = min(height, width)
    side = min(side or shorter, shorter)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    across = cos.abs() + sin.abs()  # of the upright square around the turned one, in its sides
    zoom = 0.9 * 1.6 ** torch.rand(count, generator=generator)
    seen = (side / zoom).minimum(shorter / across)  # px
    x, y = (
        2 * (torch.rand(count, generator=generator) - 0.5) * (length - seen * across) / length
        for length in (width, height)
    )
    rows = (seen * cos / width, -seen * sin / width, x), (seen * sin / height, seen * cos / height, y)
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False).to(hole.device)
    return lambda image: F.grid_sample(image, grid, "bicubic", "border", align_corners=False)
