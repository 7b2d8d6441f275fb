"""What the network is for, on tensors: predict a picture with a hole, enlarge a picture."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pconv.edge import EDGE, box_of, dilate, edge_correction, grow_hole
from pconv.network import check_image_and_hole

CONSISTENT = 3  # rounds of back-projection; see training/RECIPE.md
_STEADY = 32  # px
_STRIP = 512  # rows at once
CONSISTENT_RADIUS = 4 * CONSISTENT  # px of the small picture that they look to each side: two there and two back each


def composite(output: Tensor, image: Tensor, hole: Tensor) -> Tensor:
    """Take `output` inside the hole and `image` everywhere else.

    Args:
        output: Network output, `(N, 3, H, W)`; may leave [0, 1], it is clamped here.
        image: Picture to restore, `(N, 3, H, W)` in [0, 1]; its values under the hole are ignored.
        hole: `(N, 1, H, W)`, 0 = keep, anything else = fill.

    Returns:
        `(N, 3, H, W)` in [0, 1], equal to `image` wherever `hole` is 0.
    """
    return torch.where(hole == 0, image, output.clamp(0, 1).to(image.dtype))


def predict(network: Callable[[Tensor, Tensor], Tensor], image: Tensor, hole: Tensor, edge: int = EDGE) -> Tensor:
    """Predict a picture with a hole, so that the prediction in the hole meets what is known around it.

    Args:
        network: A `PConvUNet`, or what wraps one.
        image: `(N, 3, H, W)`, sRGB in [0, 1]; its values under the hole never matter.
        hole: `(N, 1, H, W)`, 0 = keep, anything else = fill.
        edge: Pixels around the hole that the network predicts too, to learn its error there and to correct the hole by
            it (`pconv.edge`); 0 = the network alone, as in the paper.

    Returns:
        `(N, 3, H, W)` float32, not clamped.
    """
    output = network(image, grow_hole(hole, edge))
    return output + edge_correction(output, image, hole) if edge else output


@torch.inference_mode()
def upscale(
    network: Callable[[Tensor, Tensor], Tensor], image: Tensor, factor: int = 4, hole: Tensor | None = None
) -> Tensor:
    """Enlarge a picture by offset pixels (§5.2): its pixels on a lattice, the network fills between them.

    The lattice pixels condition the network, and the raw output counts, at the lattice too; it is made consistent with
    the small picture (`make_consistent`). The network is made for values in [0, 1]: by how much others lie outside is
    enlarged bicubically and added.

    Args:
        network: An upscaling network in eval mode, trained for this factor, or what wraps one.
        image: `(N, 3, H, W)`, sRGB in [0, 1] as a rule; its values under the hole never matter.
        factor: Enlargement K ≥ 1 of height and width.
        hole: `(N, 1, H, W)`, 0 = known, anything else = unknown (transparent, say); None: all is known.

    Returns:
        `(N, 3, K·H, K·W)`, in [0, 1] if the known pixels are; gray if they are.
    """
    if hole is not None:
        check_image_and_hole(image, hole)
        image = image.masked_fill(hole != 0, 0)
    inside = image.clamp(0, 1)
    placed, between = place_pixels(inside, factor)
    if hole is not None:
        between[..., factor // 2 :: factor, factor // 2 :: factor] = (hole != 0).to(between.dtype)
    output: Tensor = network(placed, between)
    result = make_consistent(output.to(image.dtype), inside, hole).clamp(0, 1)
    outside = image - inside
    if outside.any():
        result = result + F.interpolate(outside, scale_factor=factor, mode="bicubic")
    return keep_gray(result, image)


def refine(network: Callable[[Tensor, Tensor], Tensor], image: Tensor, hole: Tensor) -> Tensor:
    """Predict what a coarse picture lacks, which has its pixels on the ×2 lattice of §5.2 in a part of a finer one.

    What the coarse picture shows stays as it is (one round of `make_consistent`).

    Args:
        network: A refinement network, or what wraps one.
        image: `(N, 3, H, W)`, sRGB in [0, 1]; its values under the hole never matter.
        hole: `(N, 1, H, W)`, 0 = known or lattice pixel, anything else = between lattice pixels.

    Returns:
        `(N, 3, H, W)` float32, not clamped; `image` outside of `refined_part`.
    """
    part = refined_part(hole) > 0
    output = torch.where(part, network(image, hole).to(torch.float32), image)
    lattice = (..., slice(1, None, 2), slice(1, None, 2))
    even = (..., slice(hole.shape[-2] // 2 * 2), slice(hole.shape[-1] // 2 * 2))
    output[even] = make_consistent(output[even], image[lattice], ~part[lattice], rounds=1)
    return torch.where(part, output, image)


def remove_lattice(image: Tensor, inside: Tensor) -> Tensor:
    """Take away what alternates from pixel to pixel all over a part of a picture, as the lattice of its input does.

    A refinement network leaves a third of a level of it, of which further enlargements make squares that one sees
    (training/RECIPE.md, "Squares in very wide holes"). Texture does not alternate in step over `_STEADY` px.

    Args:
        image: `(N, 3, H, W)` float32.
        inside: `(N, 1, H, W)` bool, where.

    Returns:
        `image`, changed inside alone.
    """
    if not inside.any():
        return image
    _, rows, columns = box_of(inside, 1)
    result = image.clone()
    for top in range(rows.start, rows.stop, _STRIP):  # all at once would take twenty times the picture's memory
        start, stop = max(rows.start, top - 2 * _STEADY), min(rows.stop, top + _STRIP + 2 * _STEADY)
        seen, end = (..., slice(start, stop), columns), min(rows.stop, top + _STRIP)
        strip = _without_alternation(image[seen], inside[seen].to(image.dtype))
        result[..., top:end, columns] = strip[..., top - start : end - start, :]
    return result


def _without_alternation(part: Tensor, within: Tensor) -> Tensor:
    kernel = torch.tensor([0.25, 0.5, 0.25], device=part.device)  # 0 for waves of 2 px
    framed = F.pad(part.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    rough = (part - F.conv2d(framed, torch.outer(kernel, kernel)[None, None]).view_as(part)) * within
    rows, columns = (1.0 - 2 * (torch.arange(side, device=part.device) % 2) for side in part.shape[-2:])
    count = _steady(within).clamp(min=1e-3)
    for wave in (columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns)), torch.outer(rows, columns)):
        part = part - wave * (_steady(rough * wave) / count) * within
    return part


def _steady(image: Tensor) -> Tensor:
    """Average over `_STEADY` px."""
    means = F.avg_pool2d(image, _STEADY, _STEADY // 2, _STEADY // 2)
    return F.interpolate(means, image.shape[-2:], mode="bilinear")


def refined_part(hole: Tensor) -> Tensor:
    """Which pixels a refinement network predicts: the hole of {0, 1} between lattice pixels, and those."""
    return 1 - dilate(1 - dilate(hole, 1), 1)


def make_consistent(large: Tensor, image: Tensor, hole: Tensor | None = None, rounds: int = CONSISTENT) -> Tensor:
    """Let an enlarged picture be the small one again when it is reduced bicubically, very nearly.

    Each round reduces it, and adds what it lacks of the small picture, enlarged: back-projection (Irani and Peleg 1991,
    https://doi.org/10.1016/1049-9652(91)90045-L). The paper has no such step.

    Args:
        large: `(N, 3, K·H, K·W)`.
        image: The small picture, `(N, 3, H, W)`.
        hole: `(N, 1, H, W)`, 0 = known, anything else = unknown: there nothing is added; None: all is known.
        rounds: How often.

    Returns:
        `(N, 3, K·H, K·W)`, not clamped.
    """
    for _ in range(rounds):
        small = F.interpolate(large, image.shape[-2:], mode="bicubic", antialias=True)
        missing = image - small if hole is None else (image - small).masked_fill(hole != 0, 0)
        large = large + F.interpolate(missing, large.shape[-2:], mode="bicubic")
    return large


def keep_gray(result: Tensor, image: Tensor, hole: Tensor | None = None) -> Tensor:
    """Let what is made of a black and white photograph be one: a network tints it a little.

    Args:
        result: `(N, 3, K·H, K·W)`.
        image: What it was made of, `(N, 3, H, W)`.
        hole: `(N, 1, H, W)`, bool: what was unknown of `image`, and all that may change in `result`; None: nothing was,
            and all may.

    Returns:
        `result`, in which the pictures that were gray are the mean of their channels.
    """
    unlike = image != image[:, :1]
    gray = ~(unlike if hole is None else unlike & ~hole).flatten(1).any(1).view(-1, 1, 1, 1)
    if not gray.any():
        return result
    return torch.where(gray if hole is None else gray & hole, result.mean(1, keepdim=True), result)


def place_pixels(image: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Spread pixels on the lattice of §5.2: pixel (x, y) goes to (K·x + ⌊K/2⌋, K·y + ⌊K/2⌋), all else is hole.

    Args:
        image: `(N, C, H, W)`.
        factor: K ≥ 1.

    Returns:
        The picture `(N, C, K·H, K·W)`, 0 in its hole, and the hole `(N, 1, K·H, K·W)` float32 of {0, 1}.

    Raises:
        ValueError: The factor is below 1, or the image is not four-dimensional.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    if image.ndim != 4:
        raise ValueError(f"image must have shape (N, C, H, W), got {tuple(image.shape)}")
    n, c, h, w = image.shape
    offset = factor // 2
    placed = image.new_zeros(n, c, factor * h, factor * w)
    hole = torch.ones(n, 1, factor * h, factor * w, device=image.device)
    placed[..., offset::factor, offset::factor] = image
    hole[..., offset::factor, offset::factor] = 0
    return placed, hole
