"""Distances that trained networks see, under their own names: LPIPS or shift-tolerant LPIPS, and Inception's."""

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
import torch.nn.functional as F
from torch import Tensor

from pconv_train.config import ConfigError

CHOICES = ("auto", "lpips", "st-lpips", "none")
# torchvision's files in its cache. LPIPS downloads the first; the second is taken only if it is there.
_TRUNK, _INCEPTION = "alexnet-owt-7be5be79.pth", "inception_v3_google-0cc3c7bd.pth"


@dataclass(frozen=True)
class Perceptual:
    """A distance and its name."""

    key: str  # of the figure
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
    at_hand = find_spec("lpips") is not None and _in_cache(_TRUNK)
    name = "lpips" if choice == "lpips" or (choice == "auto" and at_hand) else "st-lpips"
    try:
        return _lpips(device) if name == "lpips" else _st_lpips(device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = f"{name} cannot be had: {error}"
        if choice == "auto":
            return reason
        raise ConfigError(reason) from error


def load_inception(device: str) -> Perceptual | str:
    """Load what we take table 1's IScore for, if torchvision's Inception v3 (ImageNet) is in its cache; or say how.

    The paper calls it Inception score, but lower is better and equal pictures have 0: so not the score of Salimans et
    al. 2016. Here it is the Kullback–Leibler divergence, in nats, of the classes that Inception sees in the result from
    those that it sees in the truth.
    """
    if not _in_cache(_INCEPTION):
        return (
            f"{_INCEPTION} is not in torchvision's cache; fetch it by `python -c 'import torchvision.models as m; "
            'm.inception_v3(weights="DEFAULT")\'`'
        )
    from torchvision.models import Inception_V3_Weights, inception_v3
    from torchvision.transforms.functional import normalize, resize

    weights = Inception_V3_Weights.IMAGENET1K_V1
    network = inception_v3(weights=weights).to(device).eval()
    transform = weights.transforms()

    def classes(picture: Tensor) -> Tensor:
        seen = normalize(resize(picture.float().to(device), [299, 299], antialias=True), transform.mean, transform.std)
        logits: Tensor = network(seen)
        return logits.log_softmax(1)

    @torch.inference_mode()
    def distance(restored: Tensor, target: Tensor) -> float:
        return float(F.kl_div(classes(restored), classes(target), reduction="batchmean", log_target=True))

    return Perceptual("inception", "Inception KL, nats", distance)


def _in_cache(file: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()


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

    return Perceptual("perceptual", name, distance)


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
