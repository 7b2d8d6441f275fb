"""How good the weights are on a fixed set of samples, while they are trained."""

from collections.abc import Callable
from functools import partial

import torch
from pconv import PConvUNet, composite, describe_checkpoint, fold_batch_norm, inpaint, load_checkpoint
from pconv.filling import halve, place_coarse
from pconv.operations import make_consistent, predict, refine, refined_part
from torch import Tensor, nn

from pconv_train.config import ConfigError, TrainConfig
from pconv_train.data import UPSCALE_FACTOR, Sample, to_unit
from pconv_train.log import RunLog
from pconv_train.metrics import l1_percent, psnr, ssim
from pconv_train.state import Ema

Batch = tuple[Tensor, Tensor, Tensor]  # image, hole, target: float32, on the device


def restore(model: nn.Module, image: Tensor, hole: Tensor, config: TrainConfig) -> Tensor:
    """Let the network restore pictures the way its task is used, `(N, 3, S, S)` not clamped."""
    if config.task == "refine":
        return refine(model, image, hole)
    output = predict(model, image, hole, config.edge)
    if config.task != "upscale":
        return output
    lattice = slice(UPSCALE_FACTOR // 2, None, UPSCALE_FACTOR)
    return make_consistent(output.float(), image[..., lattice, lattice])


Coarse = Callable[[Tensor, Tensor], Tensor]
"""Fills a reduced picture, `(N, 3, S / 2, S / 2)` with the hole `(N, 1, S / 2, S / 2)`."""


def load_coarse(config: TrainConfig, device: torch.device) -> Coarse | None:
    """Load the network whose fills refinement learns from, if the config names one.

    Raises:
        CheckpointError: It cannot be read.
        ConfigError: It is not for inpainting.
    """
    if not config.coarse:
        return None
    if (task := describe_checkpoint(config.coarse).task) != "inpaint":
        raise ConfigError(f"--coarse takes a checkpoint for inpaint: {config.coarse} is for {task}")
    network = fold_batch_norm(load_checkpoint(config.coarse, str(device)))
    network.to(memory_format=torch.channels_last)
    return partial(inpaint, network)


def with_coarse(coarse: Coarse | None, batch: Batch, config: TrainConfig) -> Batch:
    """Put a coarse fill where the sample has a reduced photograph: the lattice pixels in the hole of `image`."""
    image, hole, target = batch
    if coarse is None:
        return batch
    drawn = restored_part(hole, config) > 0
    image, hole = place_coarse(coarse(*halve(target, drawn)), target, drawn)
    return image.contiguous(memory_format=torch.channels_last), hole, target


def restored_part(hole: Tensor, config: TrainConfig) -> Tensor:
    """Which pixels the output is for: the hole; in refinement its lattice pixels too, which are but a coarse fill's."""
    return refined_part(hole) if config.task == "refine" else hole


@torch.no_grad()
def validate(
    network: PConvUNet,
    ema: Ema,
    samples: list[Sample],
    coarse: Coarse | None,
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
        batch = to_device([part[None] for part in sample], device)
        image, hole, target = with_coarse(coarse, batch, config)
        output = restore(network, image, hole, config).clamp(0, 1)
        # Upscaling shows the raw output, also where it knew a pixel; the others keep what is known.
        restored = output if config.task == "upscale" else composite(output, image, restored_part(hole, config))
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


def to_device(batch: Sample | list[Tensor], device: torch.device) -> Batch:
    """Move a batch of uint8 samples to the device: image and target in [0, 1], hole of {0, 1}, float32."""
    image, hole, target = (part.to(device, non_blocking=True) for part in batch)
    image, target = (to_unit(part).contiguous(memory_format=torch.channels_last) for part in (image, target))
    return image, hole.float(), target
