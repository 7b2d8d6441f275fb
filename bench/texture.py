"""What the texture stage costs beside the network, against the size of the hole."""

from collections.abc import Iterator

import torch
from pconv import PConvUNet, PConvUNetConfig, add_texture, fold_batch_norm, inpaint
from pconv_api import Box, context_box
from torch import Tensor

from bench.measure import Row, interleave, milliseconds, ratio

SIDES = (50, 100, 200, 300)  # px of a square hole
SIZE = 6000, 4000  # px of the photo


def rows(rounds: int) -> Iterator[Row]:
    """Fill square holes amid 24 megapixels with `compact()`, as the server would, and add texture."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = fold_batch_norm(PConvUNet(PConvUNetConfig.compact()).eval().to(device))
    for side in SIDES:
        image, hole = (part.to(device) for part in _surroundings(Box(3000, 2000, side, side)))
        seconds = _measure(network, image, hole, rounds)
        yield ratio(f"texture ÷ network, hole of {side} px", seconds["texture"], seconds["network"])
        beside = "≤ 1500 ms on two cores" if side == 300 else ""
        yield milliseconds(f"texture, hole of {side} px", seconds["texture"], beside)


def _surroundings(hole_box: Box) -> tuple[Tensor, Tensor]:
    """What the network sees of a photo (here noise) with a rectangular hole, and the hole."""
    context = context_box(hole_box, *SIZE)
    hole = torch.zeros(1, 1, context.height, context.width)
    x, y = hole_box.x - context.x, hole_box.y - context.y
    hole[..., y : y + hole_box.height, x : x + hole_box.width] = 1
    return torch.rand(1, 3, context.height, context.width), hole


def _measure(network: PConvUNet, image: Tensor, hole: Tensor, rounds: int) -> dict[str, list[float]]:
    filled = inpaint(network, image, hole)
    candidates = {"network": lambda: inpaint(network, image, hole), "texture": lambda: add_texture(filled, hole)}
    return interleave(candidates, rounds)
