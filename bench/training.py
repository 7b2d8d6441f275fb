"""The training step's speed: pictures a second, what the full loss and half precision cost or save, decoding."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import skimage.data
import torch
from pconv import PConvUNet, PConvUNetConfig
from pconv_train.data import CropDataset, CropSettings, find_photos
from pconv_train.losses import LossWeights, total_loss
from pconv_train.machine import choose_precision
from pconv_train.vgg import VGG_CHANNELS, VggFeatures
from PIL import Image
from torch import Tensor

from bench.measure import Row, interleave, ratio
from bench.multichannel import mask_weights, multichannel_forward

BATCH = 4
LOADED = 32  # crops that one measurement of the loader makes


def rows(rounds: int) -> Iterator[Row]:
    """Measure optimizer steps of 4 pictures, on the first GPU if there is one, else the CPU."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = max(3, rounds // 3)  # a step of the paper's network takes seconds
    yield from _against_straightforward(device, rounds)
    for preset in ("compact", "paper"):
        for side in (128, 256):
            steps = {"ℓ1": _step(preset, side, device, LossWeights.l1())}
            if preset == "compact" and side == 256:
                steps["full loss"] = _step(preset, side, device, LossWeights())
                steps["full loss, VGG on 128²"] = _step(preset, side, device, LossWeights(), 128)
            if choose_precision("auto", device) == torch.bfloat16:
                steps["ℓ1, bfloat16"] = _step(preset, side, device, LossWeights.l1(), dtype=torch.bfloat16)
            for name, seconds in interleave(steps, rounds).items():
                yield _pictures(f"step of {preset} at {side}², {name}", seconds, BATCH)
    if choose_precision("auto", device) != torch.bfloat16:
        yield Row("step in bfloat16", "not run: this device has no fast bfloat16")
    yield _loader(rounds)


def _against_straightforward(device: torch.device, rounds: int) -> Iterator[Row]:
    """Compare the ℓ1 step with masks of as many channels as the features, float32, contiguous."""
    network = PConvUNet(PConvUNetConfig.compact(7)).train().to(device)
    ones = mask_weights(network)
    straightforward = _make_step(
        network, 256, LossWeights.l1(), lambda image, hole: multichannel_forward(network, ones, image, hole)
    )
    precision = choose_precision("auto", device)  # what `pconv-train fit` would take here
    steps = {
        "ours": _step("compact", 256, device, LossWeights.l1(), dtype=precision),
        "straightforward": straightforward,
    }
    seconds = interleave(steps, rounds)
    what = f"ℓ1 step of compact at 256²: multi-channel masks, float32 ÷ ours, {precision}"
    yield ratio(what, seconds["straightforward"], seconds["ours"], least=2.5)


def _step(
    preset: str,
    side: int,
    device: torch.device,
    weights: LossWeights,
    perceptual_crop: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], None]:
    stages = 7 if side == 256 else 6  # a bottleneck of 2×2
    config = {"compact": PConvUNetConfig.compact, "paper": PConvUNetConfig.paper}[preset](stages)
    network = PConvUNet(config).train().to(device)
    network.to(memory_format=torch.channels_last)

    def forward(image: Tensor, hole: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return cast(Tensor, network(image, hole))

    return _make_step(network, side, weights, forward, perceptual_crop)


def _make_step(
    network: PConvUNet,
    side: int,
    weights: LossWeights,
    forward: Callable[[Tensor, Tensor], Tensor],
    perceptual_crop: int | None = None,
) -> Callable[[], None]:
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)
    image = torch.rand(BATCH, 3, side, side, device=device)
    hole = torch.zeros(BATCH, 1, side, side, device=device)
    hole[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    vgg = _random_vgg().to(device) if weights.style else None

    def step() -> None:
        loss, _ = total_loss(forward(image, hole), image, hole, weights, vgg, perceptual_crop)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _random_vgg() -> VggFeatures:
    """VGG-16 of random weights: as fast as the real one."""
    weights = {}
    for number, (into, out) in VGG_CHANNELS.items():
        weights[f"features.{number}.weight"] = torch.randn(out, into, 3, 3) / (3 * into**0.5)
        weights[f"features.{number}.bias"] = torch.zeros(out)
    return VggFeatures(weights)


def _loader(rounds: int) -> Row:
    """Decode, crop and draw holes in one process, from JPEG photos of scikit-image's."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("astronaut", "coffee", "chelsea"):
            Image.fromarray(getattr(skimage.data, name)()).save(Path(folder) / f"{name}.jpg", quality=90)
        crops = CropDataset(find_photos(Path(folder)), CropSettings("inpaint", 256, seed=0))
        seconds = interleave({"loader": lambda: [crops[number] for number in range(LOADED)]}, rounds)
    return _pictures("samples at 256² from one decoding process", seconds["loader"], LOADED)


def _pictures(what: str, seconds: list[float], pictures: int) -> Row:
    values = sorted(pictures / s for s in seconds)
    return Row(what, f"{values[len(values) // 2]:.1f} pictures/s [{values[0]:.1f} … {values[-1]:.1f}]")
