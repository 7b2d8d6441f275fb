"""What a run needs to go on bit for bit: weights, optimizer, EMA and counters, in one file, written atomically.

Samples and random windows are drawn from the seed and the step number, so no random state has to be kept.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pconv import PConvUNet
from pconv.checkpoint import write_atomically
from torch import Tensor

STATE_FILE = "state.pt"


class Ema:
    """Exponential moving average of a network's weights and batch-norm statistics.

    Args:
        network: Its present values are the start.
        decay: Weight of the past a step; smaller in the first steps, so that the start is forgotten.
    """

    def __init__(self, network: PConvUNet, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in _floats(network).items()}

    @torch.no_grad()
    def update(self, network: PConvUNet, step: int) -> None:
        """Take the network's values of `step` (from 1) in."""
        decay = min(self.decay, step / (step + 10))
        current = _floats(network)
        torch._foreach_lerp_(list(self.values.values()), [current[name] for name in self.values], 1 - decay)

    def copy_to(self, network: PConvUNet) -> None:
        """Set a network's weights to the averages."""
        network.load_state_dict(self.values, strict=False)


@dataclass
class Progress:
    """Counters of a run."""

    step: int = 0  # optimizer steps done, skipped ones included
    pictures: int = 0  # crops seen, by all processes
    seconds: float = 0.0  # spent in training, over all resumes
    skipped: int = 0  # steps whose gradient was not finite
    figures: dict[str, float] = field(default_factory=dict)  # of the last validation


def save_state(
    run: Path,
    progress: Progress,
    network: PConvUNet,
    optimizer: torch.optim.Optimizer,
    ema: Ema,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write `state.pt`; the old one stays whole until the new one is.

    Raises:
        OSError: The disk is full or not writable; the old file is untouched.
    """
    state = {
        "progress": vars(progress),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": ema.values,
        "scaler": scaler.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(run / STATE_FILE, buffer.getvalue())


def load_state(
    run: Path, network: PConvUNet, optimizer: torch.optim.Optimizer, ema: Ema, scaler: torch.amp.GradScaler
) -> Progress:
    """Read `state.pt` into network, optimizer, EMA and scaler; return the counters. No pickled code is run."""
    state: dict[str, Any] = torch.load(run / STATE_FILE, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["ema"].items():
        ema.values[name].copy_(value)
    scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])


def _floats(network: PConvUNet) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
