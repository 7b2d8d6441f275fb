"""Ψ of the paper's losses: pool1, pool2 and pool3 of an ImageNet VGG-16."""

from pathlib import Path
from urllib.error import URLError

import safetensors.torch
import torch
import torch.nn.functional as F
from pconv.network import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor, nn

from pconv_train.config import ConfigError

_BLOCKS = ((0, 2), (5, 7), (10, 12, 14))  # torchvision's numbers of the convolutions before pool1, pool2, pool3
VGG_CHANNELS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}


class VggFeatures(nn.Module):
    """Frozen VGG-16 up to pool3.

    Args:
        weights: `features.N.weight` and `features.N.bias` under torchvision's names; further entries are ignored.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({str(n): nn.Conv2d(*VGG_CHANNELS[n], 3, padding=1) for n in VGG_CHANNELS})
        for number, conv in self.convs.items():
            for name, parameter in conv.named_parameters():
                key = f"features.{number}.{name}"
                if key not in weights or weights[key].shape != parameter.shape:
                    found = tuple(weights[key].shape) if key in weights else "nothing"
                    raise ConfigError(
                        f"VGG-16 weights: {key} should have shape {tuple(parameter.shape)}, found {found}"
                    )
                parameter.data.copy_(weights[key])
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute Ψ of an RGB picture `(N, 3, H, W)` in [0, 1]: pool1, pool2, pool3, of 1/2, 1/4, 1/8 its size."""
        mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=image.device).view(1, 3, 1, 1)
        x = (image - mean) / std
        pools = []
        for block in _BLOCKS:
            for number in block:
                x = F.relu(self.convs[str(number)](x), inplace=True)
            x = F.max_pool2d(x, 2)
            pools.append(x)
        return pools[0], pools[1], pools[2]


def load_vgg(path: Path | None) -> VggFeatures:
    """Load VGG-16 from a local file, or through torchvision.

    Args:
        path: safetensors, or a state dict of `torch.save`, with torchvision's names and normalisation; None:
            torchvision downloads its own weights once.

    Raises:
        ConfigError: No weights at `path`, or they are not VGG-16's; or torchvision cannot download.
    """
    if path is None:
        from torchvision.models import VGG16_Weights

        try:
            return VggFeatures(VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
        except (URLError, OSError) as error:
            raise ConfigError(
                f"VGG-16's weights cannot be downloaded ({error}). Either run once with a network connection, "
                "or give a local file: --vgg FILE (safetensors or .pth with torchvision's names)"
            ) from error
    if not path.is_file():
        raise ConfigError(f"no VGG-16 weights at {path}. Leave out --vgg to let torchvision download them")
    try:
        if path.suffix == ".safetensors":
            weights = safetensors.torch.load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, for a file that is something else
        raise ConfigError(f"{path} holds no weights that can be read ({error!r:.200})") from error
    return VggFeatures(weights)
