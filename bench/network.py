"""The network's speed: what masks cost, what one mask a source saves, what a fill takes."""

import copy
from collections.abc import Callable, Iterator

import torch
from pconv import PConvUNet, PConvUNetConfig, fold_batch_norm
from pconv.precision import prefers_bf16
from torch import Tensor

from bench.measure import Row, interleave, milliseconds, ratio
from bench.multichannel import mask_weights, multichannel_forward

SIDE = 512  # px, the paper's picture


@torch.inference_mode()
def rows(rounds: int) -> Iterator[Row]:
    """Measure at 512², batch 1, a rectangular hole of a quarter, on the first GPU if there is one, else the CPU."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    image, hole = torch.rand(1, 3, SIDE, SIDE, device=device), torch.zeros(1, 1, SIDE, SIDE, device=device)
    hole[..., SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 1

    def call(network: PConvUNet) -> Callable[[], Tensor]:
        return lambda: network(image, hole)

    paper, plain = (PConvUNet(PConvUNetConfig.paper(partial=p)).eval().to(device) for p in (True, False))
    folded, folded_plain = fold_batch_norm(paper), fold_batch_norm(plain)
    ones = mask_weights(paper)
    _check_same(paper(image, hole), multichannel_forward(paper, ones, image, hole))
    compact = fold_batch_norm(PConvUNet(PConvUNetConfig.compact()).to(device))
    candidates = {
        "paper": call(paper),
        "plain": call(plain),
        "multi-channel": lambda: multichannel_forward(paper, ones, image, hole),
        "folded": call(folded),
        "folded plain": call(folded_plain),
        "compact": call(compact),
    }
    seconds = interleave(candidates, rounds)
    top, bottom, most = seconds["paper"], seconds["plain"], 1.08
    yield ratio("(a) PConv ÷ plain U-Net, float32, eval", top, bottom, most=most)
    yield ratio("(a) … batch norm folded into both", seconds["folded"], seconds["folded plain"], most=most)
    yield from _bfloat16(folded, folded_plain, image, hole, rounds)
    top, bottom = seconds["multi-channel"], seconds["paper"]
    yield ratio("(b) multi-channel masks ÷ one mask a source, eval", top, bottom, least=2.2)
    yield milliseconds("(c) paper(), folded, float32", seconds["folded"], "paper: 230 ms on a V100")
    yield milliseconds("(c) compact(), folded, float32", seconds["compact"])


def _bfloat16(folded: PConvUNet, folded_plain: PConvUNet, image: Tensor, hole: Tensor, rounds: int) -> Iterator[Row]:
    if image.device.type == "cpu" and not prefers_bf16("cpu"):
        reason = "skipped: no CUDA device, and this CPU is not faster with bfloat16"
        yield Row("(a) … bfloat16, channels_last", reason, "≤ 1.08 ×")
        yield Row("(b) float32 ÷ bfloat16, channels_last", reason, "≥ 1.8 ×")
        return
    half, half_plain = (copy.deepcopy(n).to(torch.bfloat16) for n in (folded, folded_plain))
    for network in (half, half_plain):
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    candidates = {
        "float32": lambda: folded(image, hole),
        "partial": lambda: half(image, hole),
        "plain": lambda: half_plain(image, hole),
    }
    seconds = interleave(candidates, rounds)
    yield ratio("(a) … bfloat16, channels_last", seconds["partial"], seconds["plain"], most=1.08)
    yield ratio("(b) float32 ÷ bfloat16, channels_last", seconds["float32"], seconds["partial"], least=1.8)


def _check_same(found: Tensor, wanted: Tensor) -> None:
    error = float((found - wanted).abs().max() / wanted.abs().max())
    if not error < 1e-4:
        raise AssertionError(f"the two formulations differ by {error:.1e} of the largest value")
