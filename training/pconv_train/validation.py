"""How good the weights are on a fixed set of samples, while they are trained."""

import torch
from pconv import PConvUNet, composite
from pconv.operations import make_consistent, predict
from torch import Tensor, nn

from pconv_train.config import TrainConfig
from pconv_train.data import UPSCALE_FACTOR, Sample, to_unit
from pconv_train.log import RunLog
from pconv_train.metrics import l1_percent, psnr, ssim
from pconv_train.state import Ema


def restore(model: nn.Module, image: Tensor, hole: Tensor, config: TrainConfig) -> Tensor:
    """Let the network restore pictures the way its task is used, `(N, 3, S, S)` not clamped."""
    output = predict(model, image, hole, config.edge)
    if config.task != "upscale":
        return output
    lattice = slice(UPSCALE_FACTOR // 2, None, UPSCALE_FACTOR)
    return make_consistent(output.float(), image[..., lattice, lattice])


@torch.no_grad()
def validate(
    network: PConvUNet,
    ema: Ema,
    samples: list[Sample],
    config: TrainConfig,
    device: torch.device,
    log: RunLog,
    step: int,
) -> dict[str, float]:
    """Measure the EMA weights on the fixed samples, log the means and a picture grid, and put the weights back."""
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    ema.copy_to(network)
    network.eval()
    figures: dict[str, list[float]] = {"l1": [], "psnr": [], "ssim": []}
    rows: list[list[Tensor]] = []
    for sample in samples:
        image, hole, target = to_device([part[None] for part in sample], device)
        output = restore(network, image, hole, config).clamp(0, 1)
        # Upscaling shows the raw output, also where it knew a pixel; inpainting keeps what is known.
        restored = output if config.task == "upscale" else composite(output, image, hole)
        for name, metric in (("l1", l1_percent), ("psnr", psnr), ("ssim", ssim)):
            figures[name].append(float(metric(restored, target)))
        if len(rows) < 8:
            gray_hole = torch.where(hole > 0, torch.full_like(image, 0.5), image)
            rows.append([gray_hole[0], output[0], restored[0], target[0]])
    network.load_state_dict(weights)
    set_training_mode(network, config.freeze_encoder_norm)
    means = {name: sum(values) / len(values) for name, values in figures.items()}
    log.scalars(step, "validation", means)
    log.grid(step, rows)
    return means


def set_training_mode(network: PConvUNet, freeze_encoder_norm: bool) -> None:
    """Put the network in training mode; in stage 2 the encoder's batch norm keeps parameters and statistics (§4.2)."""
    network.train()
    if freeze_encoder_norm:
        for stage in network.encoder:
            if isinstance(stage.norm, nn.BatchNorm2d):
                stage.norm.eval().requires_grad_(False)


def to_device(batch: Sample | list[Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Move a batch of uint8 samples to the device: image and target in [0, 1], hole of {0, 1}, float32."""
    image, hole, target = (part.to(device, non_blocking=True) for part in batch)
    image, target = (to_unit(part).contiguous(memory_format=torch.channels_last) for part in (image, target))
    return image, hole.float(), target
