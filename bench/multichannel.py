"""The straightforward formulation, to compare with: a mask for each channel, counted by a convolution of ones.

This is how public implementations of partial convolution work: each layer convolves a mask as wide as its input with
`(C_out, C_in, k, k)` ones, which costs as much as the convolution of the features.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pconv import PConvUNet
from torch import Tensor


def multichannel_forward(network: PConvUNet, ones: dict[Any, Tensor], image: Tensor, hole: Tensor) -> Tensor:
    """Compute what `network(image, hole)` does, with multi-channel masks.

    Args:
        network: U-Net of partial convolutions in eval mode, folded or not.
        ones: Weights of the mask convolutions, of `mask_weights`.
        image: `(N, 3, H, W)` in [0, 1], H and W multiples of 2 to the number of stages.
        hole: `(N, 1, H, W)`, 0 = keep.

    Returns:
        `(N, 3, H, W)`.
    """
    mean = torch.tensor(network.config.mean, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(network.config.std, device=image.device).view(1, 3, 1, 1)
    features, mask = (image - mean) / std, (hole == 0).float().expand_as(image)
    skips = []
    for stage in network.encoder:
        skips.append((features, mask))
        features, mask = _stage(stage, ones[stage], features, mask)
    for stage in network.decoder:
        skip, skip_mask = skips.pop()
        features = torch.cat([F.interpolate(features, scale_factor=2.0), skip], 1)
        mask = torch.cat([F.interpolate(mask, scale_factor=2.0), skip_mask], 1)
        features, mask = _stage(stage, ones[stage], features, mask)
    return features * std + mean


def mask_weights(network: PConvUNet) -> dict[Any, Tensor]:
    """Make the ones that count each stage's mask, `(C_out, C_in, k, k)`, by stage."""
    return {stage: torch.ones_like(stage.conv.weight) for stage in (*network.encoder, *network.decoder)}


def _stage(stage: Any, ones: Tensor, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    conv = stage.conv
    raw = F.conv2d(features * mask, conv.weight, None, conv.stride, conv.padding)
    count = F.conv2d(mask, ones, None, conv.stride, conv.padding)
    mask = count.clamp(0, 1)
    output = raw * (conv.weight[0].numel() / (count + 1e-8) * mask)
    if conv.bias is not None:
        output = output + conv.bias.view(1, -1, 1, 1) * mask
    if stage.norm is not None:
        output = stage.norm(output)
    return stage.activation(output), mask
