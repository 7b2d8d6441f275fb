"""Trained networks to go on from in another form: copies with the same weights, and with something more to learn."""

from dataclasses import replace
from typing import Any

import torch
from pconv import PConvUNet

_SMOOTH_STRENGTH = 1.3  # times that of white numbers, of which more waves pass (training/RECIPE.md)


def with_noise(network: PConvUNet) -> PConvUNet:
    """Copy a network that was trained without random numbers; the copy has them, at first in its decoder only.

    Args:
        network: Trained network; it is not changed.

    Returns:
        A network in the same mode; the network itself if it has them already.
    """
    if network.config.noise:
        return network
    noisy = PConvUNet(replace(network.config, noise=True)).train(network.training)
    state = network.state_dict()
    last = f"decoder.{len(network.decoder) - 1}.conv."
    for name in ("weight", "bias"):
        state[last + name] = torch.cat([state[last + name], torch.zeros_like(state[last + name][:1])])
    noisy.load_state_dict(state, strict=False)
    return noisy


def with_options(network: PConvUNet, **options: Any) -> PConvUNet:
    """Copy a network with the same weights, for training to go on with other options of its config that have none."""
    other = PConvUNet(replace(network.config, **options)).train(network.training)
    other.load_state_dict(network.state_dict())
    return other


def with_smooth_noise(network: PConvUNet) -> PConvUNet:
    """Copy a network with random numbers for them to be smooth, and stronger, so that as much texture is made of them.

    Returns:
        A network in the same mode; the network itself if they are smooth already.
    """
    if network.config.smooth_noise:
        return network
    smooth = with_options(network, smooth_noise=True)
    with torch.no_grad():
        for name, parameter in smooth.named_parameters():
            if name.endswith(".noise_strength"):
                parameter.mul_(_SMOOTH_STRENGTH)
    return smooth


def with_blocks(network: PConvUNet, blocks: tuple[int, ...]) -> PConvUNet:
    """Copy a network with other numbers of residual blocks: more change nothing at first, those too many are left out.

    Raises:
        ValueError: More numbers of blocks than decoder stages that can have some, or one below 0.
    """
    other = PConvUNet(replace(network.config, blocks=blocks)).train(network.training)
    other.load_state_dict(network.state_dict(), strict=False)
    return other
