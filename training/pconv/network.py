"""The inpainting U-Net of the paper (§3.2, table 2): all convolutions partial, masks travel beside the features."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from torch import Tensor, nn

from pconv.layers import PartialConv2d, PlainConv2d, ResidualBlock, upsample, zero_holes
from pconv.noise import PERIOD, random_map, strength_factor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UPSAMPLINGS = ("nearest", "bilinear", "binomial")
_NOISE_STRENGTH = 0.3  # at first; from 0 it hardly grows (training/RECIPE.md)


@dataclass(frozen=True)
class PConvUNetConfig:
    """All that is needed to build a `PConvUNet`; it travels inside the checkpoint.

    The decoder mirrors the encoder: each of its stages has as many output channels as its skip link, the last has 3.
    """

    channels: tuple[int, ...]  # output channels of each encoder stage, one stage halves height and width
    kernel_sizes: tuple[int, ...]  # of each encoder stage, px; decoder stages have 3
    partial: bool = True  # False: the plain-convolution twin (the paper's "Conv")
    batch_norm: bool = True  # False: it was folded into the convolutions, for inference
    upsampling: str = (
        "nearest"  # as in the paper; "bilinear": texture of the decoder has no squares; "binomial": no weave
    )
    noise: bool = False  # random numbers in the decoder, and in the result (pconv.noise)
    smooth_noise: bool = False  # those of the decoder without their finest waves
    blocks: tuple[int, ...] = ()  # residual blocks after each decoder stage, deepest first; (): none, as in the paper
    mean: tuple[float, float, float] = IMAGENET_MEAN  # RGB in [0, 1]; subtracted from the input, added to the output
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.kernel_sizes):
            raise ValueError(
                f"need one kernel size for each of at least one stage: "
                f"{len(self.channels)} channels, {len(self.kernel_sizes)} kernel sizes"
            )
        if any(c < 1 for c in self.channels) or any(k < 1 or k % 2 == 0 for k in self.kernel_sizes):
            raise ValueError(f"need positive channels and odd kernel sizes, got {self.channels}, {self.kernel_sizes}")
        if self.upsampling not in UPSAMPLINGS:
            raise ValueError(f"upsampling must be one of {', '.join(UPSAMPLINGS)}, got {self.upsampling!r}")
        if len(self.blocks) >= len(self.channels) or any(b < 0 for b in self.blocks):
            raise ValueError(
                f"need at most {len(self.channels) - 1} numbers of blocks, for decoder stages but the last, "
                f"none below 0: got {self.blocks}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"need mean and std > 0 of three colours, got {self.mean}, {self.std}")

    @classmethod
    def paper(cls, stages: int = 8, partial: bool = True) -> Self:
        """Table 2 to the letter (32.9 M parameters); fewer `stages` leave out the deepest."""
        return cls._first_stages((64, 128, 256, 512, 512, 512, 512, 512), stages, partial)

    @classmethod
    def compact(cls, stages: int = 8, partial: bool = True) -> Self:
        """Half the channels of table 2: a quarter of its work and weights."""
        return cls._first_stages((32, 64, 128, 256, 256, 256, 256, 256), stages, partial)

    @classmethod
    def light(cls, stages: int = 6, partial: bool = True) -> Self:
        """`compact` with fewer channels where pixels are many, for quicker steps (training/RECIPE.md)."""
        return cls._first_stages((16, 48, 128, 256, 256, 256, 256, 256), stages, partial)

    @classmethod
    def _first_stages(cls, channels: tuple[int, ...], stages: int, partial: bool) -> Self:
        if not 1 <= stages <= len(channels):
            raise ValueError(f"stages must be 1…{len(channels)}, got {stages}")
        return cls(channels[:stages], (7, 5, 5, 3, 3, 3, 3, 3)[:stages], partial)


class Stage(nn.Module):
    """One row of table 2: convolution, batch norm, activation; keeps its output 0 wherever it is not valid."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        kernel_size: int,
        stride: int,
        norm: bool,
        activation: nn.Module,
        config: PConvUNetConfig,
        noise: bool = False,
    ) -> None:
        super().__init__()
        convolution = PartialConv2d if config.partial else PlainConv2d
        # Batch norm has a bias of its own.
        bias = not (norm and config.batch_norm)
        padding = kernel_size // 2
        self.conv = convolution(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels) if norm and config.batch_norm else None
        self.smooth_noise = config.smooth_noise
        self.noise_strength = nn.Parameter(torch.full((out_channels,), _NOISE_STRENGTH)) if noise else None
        self.activation = activation
        nn.init.kaiming_normal_(self.conv.weight)  # He et al., fan-in (§4.2)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(
        self,
        sources: Sequence[Tensor],
        valids: Sequence[Tensor],
        period: int = PERIOD,
        blocks: Sequence[nn.Module] = (),
    ) -> tuple[Tensor, Tensor]:
        """Run the stage.

        Args:
            sources: `(N, C_i, H, W)` each, 0 wherever not valid; the first of two may have half the size, which
                stands for its nearest ×2 enlargement.
            valids: `(N, 1, H, W)` each; ignored by the plain twin.
            period: Of the random numbers, places.
            blocks: Residual blocks to run on the output. They do not see this stage's random numbers, of which they
                would make strokes along the axes (training/RECIPE.md, "Strokes along the axes").

        Returns:
            Features `(N, C, H', W')`, 0 wherever not valid, and their mask `(N, 1, H', W')`.
        """
        features, valid = self.conv.forward_zeroed(sources, valids)
        if self.norm is not None:
            features = self.norm(features)
        change = self._change(features, valid, blocks) if blocks else None
        if self.noise_strength is not None:
            strength = strength_factor() * self.noise_strength.view(1, -1, 1, 1).to(features.dtype)
            features = features + strength * random_map(features, period, self.training, self.smooth_noise)
        # Without both the convolution left 0 in holes; activations keep it.
        if valid is not None and (self.norm is not None or self.noise_strength is not None):
            features = features.masked_fill_(valid == 0, 0)
        output = self.activation(features)
        return output if change is None else output + change, valids[0] if valid is None else valid

    def _change(self, features: Tensor, valid: Tensor | None, blocks: Sequence[nn.Module]) -> Tensor:
        before = self.activation(features.clone())  # which may work in place
        after = before = before if valid is None else zero_holes(before, valid)
        for block in blocks:
            after = block(after, valid)
        return after - before


class PConvUNet(nn.Module):
    """U-Net of partial convolutions (table 2): ×2 upsampling; skip links concatenate features and masks.

    The last stage sees the input picture with its holes and the hole itself, so it can copy known pixels.

    Args:
        config: Channels, kernel sizes and kind of the stages.
    """

    def __init__(self, config: PConvUNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = (3, *config.channels)
        self.encoder = nn.ModuleList(
            Stage((widths[i],), widths[i + 1], kernel, 2, i > 0, nn.ReLU(inplace=True), config)
            for i, kernel in enumerate(config.kernel_sizes)
        )
        last = 4 if config.noise else 3  # the fourth says how strong the numbers of the result are
        self.decoder = nn.ModuleList(  # deepest first, as it runs
            Stage((widths[i + 1], widths[i]), widths[i], 3, 1, True, _leaky_relu(), config, config.noise)
            for i in reversed(range(1, len(config.channels)))
        )
        self.decoder.append(Stage((widths[1], widths[0]), last, 3, 1, False, nn.Identity(), config))
        counts = (*config.blocks, *[0] * (len(config.channels) - len(config.blocks)))
        self.blocks = nn.ModuleList(  # after each stage of the decoder
            nn.ModuleList(ResidualBlock(width) for _ in range(count))
            for width, count in zip(reversed(widths[:-1]), counts, strict=True)
        )

    def forward(self, image: Tensor, hole: Tensor) -> Tensor:
        """Predict the whole picture from what is outside the hole.

        Args:
            image: `(N, 3, H, W)`, sRGB in [0, 1], any height and width ≥ 1; its values under the hole never matter.
            hole: `(N, 1, H, W)`, 0 = keep, anything else = fill.

        Returns:
            `(N, 3, H, W)` float32, the paper's I_out: everywhere predicted, not clamped.

        Raises:
            ValueError: Shapes that do not fit each other.
        """
        check_image_and_hole(image, hole)
        valid = (hole == 0).to(torch.float32)
        # Not buffers: `.half()` would round them, and with them every pixel.
        mean = torch.tensor(self.config.mean, device=image.device).view(1, 3, 1, 1)
        std = torch.tensor(self.config.std, device=image.device).view(1, 3, 1, 1)
        # A hole of 0 in normalised values is a hole filled with the mean: what the plain twin is given (§4.3).
        features = zero_holes(((image - mean) / std).to(next(self.parameters()).dtype), valid)
        skips = [(features, valid)]
        for stage in self.encoder:
            features, valid = stage((features,), (valid,))
            skips.append((features, valid))
        features, valid = skips.pop()
        for stage, blocks in zip(self.decoder, self.blocks, strict=True):
            skip, skip_valid = skips.pop()
            period = PERIOD >> len(skips)
            size = skip.shape[-2:]
            valids = (upsample(valid, size), skip_valid) if self.config.partial else (skip_valid,)
            if self.config.upsampling != "nearest":
                features = upsample(features, size, self.config.upsampling)
                # Beside holes values fade into 0; few holes are left in the decoder, so nothing makes up for it.
                features = zero_holes(features, valids[0]) if self.config.partial else features
            features, valid = stage((features, skip), valids, period, list(cast(nn.ModuleList, blocks)))
        if self.config.noise:
            features = features[:, :3] + features[:, 3:] * random_map(features, PERIOD, self.training)
        return features * std + mean  # float32 again, as they are


def fold_batch_norm(network: PConvUNet) -> PConvUNet:
    """Copy a network for inference, its batch norm folded into the convolutions.

    With running statistics batch norm is `γ' · x + β'`, and `γ' · (Wᵀ(X⊙M) · scale) + β'` is a partial convolution with
    weights `γ'W` and bias `β'`. Same output as the original in eval mode, fewer passes over memory.

    Args:
        network: Trained network; it is not changed.

    Returns:
        An independent network in eval mode on the same device, without gradients.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for stage in (*folded.encoder, *folded.decoder):
        norm = stage.norm
        if norm is None:
            continue
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shift = norm.bias.double() - norm.running_mean.double() * gain
        weight = stage.conv.weight
        stage.conv.weight = nn.Parameter((weight.double() * gain.view(-1, 1, 1, 1)).to(weight.dtype), False)
        stage.conv.bias = nn.Parameter(shift.to(weight.dtype), False)
        stage.norm = None
    folded.config = replace(network.config, batch_norm=False)
    return folded


def check_image_and_hole(image: Tensor, hole: Tensor) -> None:
    """Raise ValueError unless `image` is `(N, 3, H, W)` with H, W ≥ 1 and `hole` its `(N, 1, H, W)`."""
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (N, 3, H, W) with N, H, W ≥ 1, got {tuple(image.shape)}")
    wanted = (image.shape[0], 1, *image.shape[2:])
    if tuple(hole.shape) != wanted:
        raise ValueError(f"hole must have shape (N, 1, H, W) = {wanted}, got {tuple(hole.shape)}")


def _leaky_relu() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)
