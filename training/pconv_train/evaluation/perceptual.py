"""A perceptual distance under its own name: LPIPS where its trunk is to be had, else shift-tolerant LPIPS."""

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pconv_train.config import ConfigError

CHOICES = ("auto", "lpips", "st-lpips", "none")
_TRUNK = "alexnet-owt-7be5be79.pth"  # torchvision's file, which lpips downloads


@dataclass(frozen=True)
class Perceptual:
    """A distance and its name."""

    name: str
    distance: Callable[[Tensor, Tensor], float]  # two pictures (1, 3, H, W) in [0, 1]; 0 = equal


def load_perceptual(choice: str, device: str) -> Perceptual | str:
    """Load a perceptual distance.

    Args:
        choice: One of CHOICES; auto takes LPIPS if that needs no download, else ST-LPIPS, else nothing.
        device: Where it is computed.

    Returns:
        The distance, or the reason why there is none.

    Raises:
        ConfigError: One was asked for by its name and cannot be had.
    """
    if choice not in CHOICES:
        raise ConfigError(f"--perceptual must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "none":
        return "not asked for"
    at_hand = find_spec("lpips") is not None and (Path(torch.hub.get_dir()) / "checkpoints" / _TRUNK).is_file()
    name = "lpips" if choice == "lpips" or (choice == "auto" and at_hand) else "st-lpips"
    try:
        return _lpips(device) if name == "lpips" else _st_lpips(device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = f"{name} cannot be had: {error}"
        if choice == "auto":
            return reason
        raise ConfigError(reason) from error


def _lpips(device: str) -> Perceptual:
    import lpips

    return _wrap("LPIPS (Alex)", lambda: lpips.LPIPS(net="alex", verbose=False), device)


def _st_lpips(device: str) -> Perceptual:
    with _stubs({"IPython": "embed", "torchsummary": "summary"}):  # imported for debugging, never called
        from stlpips_pytorch import stlpips

    return _wrap("ST-LPIPS (Alex)", lambda: stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False), device)


def _wrap(name: str, build: Callable[[], Any], device: str) -> Perceptual:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, on arguments of old
        network = build().to(device).eval()

    @torch.inference_mode()
    def distance(restored: Tensor, target: Tensor) -> float:
        return float(network(restored.float().to(device), target.float().to(device), normalize=True))

    return Perceptual(name, distance)


@contextmanager
def _stubs(names: dict[str, str]) -> Iterator[None]:
    """Let `from MODULE import NAME` succeed for modules that are not installed."""
    missing = [name for name in names if find_spec(name) is None]
    for name in missing:
        stub = types.ModuleType(name)
        setattr(stub, names[name], None)
        sys.modules[name] = stub
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
