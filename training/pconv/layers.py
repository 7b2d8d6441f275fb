"""The partial convolution of Liu et al. 2018 (arXiv:1804.07723, §3.1) and its plain twin.

Inside the layers the paper's M is called `valid`: 1 = known, 0 = hole, one channel for each *source* of the input. An
encoder stage has one source, a decoder stage two (upsampled, skip). All channels of a source share its mask, so
`sum(M)` of a window is `Σ channels · box filter of the source's mask`, and no mask ever has a channel for each feature.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero_holes(features: Tensor, valid: Tensor) -> Tensor:
    """Set features to 0 wherever they are not valid.

    This selects instead of multiplying, so NaN and Inf in a hole vanish too (0 · NaN is NaN).

    Args:
        features: `(N, C, H, W)`, any floating dtype.
        valid: `(N, 1, H, W)`, 1 = known, 0 = hole.

    Returns:
        `(N, C, H, W)`, X ⊙ M of eq. 1, for any values under the hole.
    """
    return torch.where(valid > 0, features, torch.zeros((), dtype=features.dtype, device=features.device))


class PartialConv2d(nn.Conv2d):
    """Partial convolution, eqs. 1 and 2: a convolution that sees valid values only.

    `x' = Wᵀ(X ⊙ M) · sum(1)/sum(M) + b` and `m' = 1` where the window has a valid value; both exactly 0 elsewhere, bias
    included. Version 1 of the paper prints the scale as `1/sum(M)`; later versions and the authors' code use
    `sum(1)/sum(M)`, as here: a fully valid window then equals a plain convolution. The padding is a hole (§3.2), so
    `sum(1)` is the full window in corners too.

    Args:
        in_channels: Channels of the input, or of each of its sources, which have a mask each.
        out_channels: Channels of the output.
        kernel_size: Height and width of the window, in pixels.
        stride: Step of the window, in pixels.
        padding: Ring of holes around the input, in pixels.
        dilation: Distance of neighbouring taps, in pixels.
        bias: Whether to learn b of eq. 1.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
    ) -> None:
        self.source_channels = (in_channels,) if isinstance(in_channels, int) else tuple(in_channels)
        super().__init__(sum(self.source_channels), out_channels, kernel_size, stride, padding, dilation, bias=bias)

    def forward(  # type: ignore[override] # a partial convolution takes and returns masks
        self, features: Tensor | Sequence[Tensor], valid: Tensor | Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Convolve what is valid; values under a hole never matter, NaN and Inf included.

        Args:
            features: `(N, C, H, W)`, or one such tensor for each source.
            valid: `(N, 1, H, W)`, 1 = known, 0 = hole; one for each source.

        Returns:
            Features `(N, out_channels, H', W')` and their mask `(N, 1, H', W')` in {0, 1}, float32.

        Raises:
            ValueError: Sources, channels or sizes do not fit the layer.
        """
        sources = [features] if isinstance(features, Tensor) else list(features)
        valids = [valid] if isinstance(valid, Tensor) else list(valid)
        self._check(sources, valids)
        valids = [(m > 0).to(torch.float32) for m in valids]
        return self.forward_zeroed([zero_holes(x, m) for x, m in zip(sources, valids, strict=True)], valids)

    def forward_zeroed(self, sources: Sequence[Tensor], valids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`forward` for sources that are 0 in their holes already, and float32 masks of {0, 1}: it saves passes.

        The first source may have half the height and width of the second: it stands for its nearest ×2 enlargement.
        Masks are always of full size.
        """
        count = self._count(valids)
        new_valid = count.clamp(max=1)
        output = _convolve(self, sources, None)
        window = self.weight[0].numel()  # sum(1)
        exact = torch.promote_types(output.dtype, torch.float32)
        scale = window * new_valid / count.to(exact).clamp(min=1)  # 0 where the window has no valid value
        # In place: no gradient needs the values before, and passes over memory are what masks cost.
        output.mul_(scale.to(output.dtype))
        if self.bias is not None:
            output.addcmul_(new_valid.to(output.dtype), self.bias.view(1, -1, 1, 1))
        return output, new_valid

    def _count(self, valids: Sequence[Tensor]) -> Tensor:
        """Count the valid values of each window, sum(M): float32 integers, one channel, whatever the layer's width."""
        ones = valids[0].new_ones(1, 1, *self.kernel_size)
        with torch.autocast(ones.device.type, enabled=False):  # its dtypes end at 2^8 or 2^16
            boxes = F.conv2d(torch.cat(list(valids)), ones, None, self.stride, self.padding, self.dilation)
        # Winograd and FFT convolutions are not exact, and a count of 1e-7 would make a hole valid.
        parts = boxes.round().chunk(len(valids))
        return torch.stack([c * part for c, part in zip(self.source_channels, parts, strict=True)]).sum(0)

    def _check(self, sources: Sequence[Tensor], valids: Sequence[Tensor]) -> None:
        channels = tuple(x.shape[1] if x.ndim == 4 else -1 for x in sources)
        if channels != self.source_channels:
            shapes = [tuple(x.shape) for x in sources]
            raise ValueError(f"expected sources (N, C, H, W) of C = {self.source_channels} channels, got {shapes}")
        wanted = [(x.shape[0], 1, *x.shape[2:]) for x in sources]
        found = [tuple(m.shape) for m in valids]
        if found != wanted:
            raise ValueError(f"expected one valid mask (N, 1, H, W) a source, {wanted}, got {found}")
        for first, second in pairwise(sources):
            if first[:, 0].shape != second[:, 0].shape:
                shapes = [tuple(x.shape) for x in sources]
                raise ValueError(f"sources must have the same N, H and W, got {shapes}")


class PlainConv2d(nn.Conv2d):
    """The paper's "Conv": the same layer without masks, for comparison. Padding is zeros, every window counts fully."""

    def __init__(self, in_channels: Sequence[int], out_channels: int, kernel_size: int, **options: int | bool) -> None:
        super().__init__(sum(in_channels), out_channels, kernel_size, **options)  # type: ignore[arg-type] # passed on

    def forward_zeroed(self, sources: Sequence[Tensor], valids: Sequence[Tensor]) -> tuple[Tensor, None]:
        """Convolve all sources, `(N, C_i, H, W)` each; `valids` is not looked at and no mask comes back."""
        return _convolve(self, sources, self.bias), None


def upsample(features: Tensor, size: torch.Size, mode: str = "nearest") -> Tensor:
    """Enlarge ×2, "nearest", "bilinear" or "binomial", and cut `(N, C, ⌈H/2⌉, ⌈W/2⌉)` to `size` = (H, W).

    Their kernels are [1 1], [1 3 3 1] / 4 and [1 5 10 10 5 1] / 16.
    """
    if mode == "binomial":
        large = F.pad(F.interpolate(features, scale_factor=2.0, mode="bilinear"), (1, 1, 1, 1), mode="replicate")
        row = large.new_tensor([0.25, 0.5, 0.25])
        blur = torch.outer(row, row).expand(large.shape[1], 1, 3, 3)
        large = F.conv2d(large, blur, groups=large.shape[1])  # several times faster than avg_pool2d twice
    else:
        large = F.interpolate(features, scale_factor=2.0, mode=mode)
    return large[..., : size[0], : size[1]]


_ENOUGH_PIXELS = 2048  # below, making the 4×4 kernel costs more than it saves


def _convolve(conv: nn.Conv2d, sources: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """Convolve all sources, side by side as channels."""
    first, last = sources[0], sources[-1]
    doubled = len(sources) == 2 and (2 * first.shape[2], 2 * first.shape[3]) == tuple(last.shape[2:])
    if doubled and last[:, 0].numel() >= _ENOUGH_PIXELS and conv.kernel_size == (3, 3) and conv.padding == (1, 1):
        return _convolve_doubled(first, last, conv.weight, bias)
    if first.shape[2:] != last.shape[2:]:
        first = upsample(first, last.shape[2:])
    features = first if len(sources) == 1 else torch.cat([first, *sources[1:]], dim=1)
    output: Tensor = conv._conv_forward(features, conv.weight, bias)
    return output


def _convolve_doubled(low: Tensor, skip: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve nearest ×2 of `low` beside `skip` with 3×3 weights, without making the large features.

    A 3×3 window of the enlarged features sees only 2×2 different values, so enlarging and convolving is one transposed
    convolution of stride 2, whose 4×4 kernel is the flipped 3×3 kernel spread over 2×2: 4 multiplications instead of 9,
    and no copy of the largest tensors of the network.
    """
    channels = low.shape[1]
    turned = weight[:, :channels].flip(2, 3).transpose(0, 1)
    kernel = F.pad(turned, (0, 1, 0, 1)) + F.pad(turned, (1, 0, 0, 1))
    kernel = kernel + F.pad(turned, (0, 1, 1, 0)) + F.pad(turned, (1, 0, 1, 0))
    output = F.conv_transpose2d(low, kernel, None, stride=2, padding=1)
    return output + F.conv2d(skip, weight[:, channels:], bias, padding=1)


class ResidualBlock(nn.Module):
    """Residual block (He et al. 2016, arXiv:1512.03385) for what one convolution a stage cannot see across a hole.

    Its last convolution begins with 0, so a block that is added to a trained network changes nothing at first; which
    is also why it needs no batch norm (Zhang et al. 2019, arXiv:1901.09321).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, valid: Tensor | None) -> Tensor:
        """Run the block.

        Args:
            features: `(N, C, H, W)`, 0 wherever not valid.
            valid: `(N, 1, H, W)`, 1 = known, 0 = hole; None: all is known, as for the plain twin.

        Returns:
            `(N, C, H, W)`, 0 wherever not valid.
        """
        change = self.last(self.first(features).relu())
        return features + (change if valid is None else zero_holes(change, valid))
