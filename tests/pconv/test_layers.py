"""Partial convolution against eqs. 1 and 2 written out, and its properties."""

import random

import pytest
import torch
import torch.nn.functional as F
from pconv.layers import PartialConv2d, PlainConv2d, zero_holes
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@torch.no_grad()
def reference(layer: PartialConv2d, sources: list[Tensor], valids: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Eqs. 1 and 2 in float64: a mask for each channel, each window written out as a column."""
    options = {
        "kernel_size": layer.kernel_size,
        "dilation": layer.dilation,
        "padding": layer.padding,
        "stride": layer.stride,
    }
    known = torch.cat([m.double().expand_as(x) for x, m in zip(sources, valids, strict=True)], 1)
    values = torch.cat([x.double() for x in sources], 1).masked_fill(known == 0, 0)
    weight = layer.weight.double().flatten(1)
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.double()
    output, new_valid = [], []
    for x, m in zip(F.unfold(values, **options), F.unfold(known, **options), strict=True):  # one picture each
        columns, masks = [], []
        for window, window_valid in zip(x.T, m.T, strict=True):
            total = window_valid.sum()
            seen = total > 0
            scale = len(window) / total if seen else 0
            columns.append(weight @ window * scale + bias if seen else torch.zeros(layer.out_channels).double())
            masks.append(seen)
        output.append(torch.stack(columns, 1))
        new_valid.append(torch.stack(masks))
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            sources[0].shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]
    return torch.stack(output).unflatten(2, size), torch.stack(new_valid).unflatten(1, size)[:, None].float()


def random_case(seed: int) -> tuple[PartialConv2d, list[Tensor], list[Tensor]]:
    rng = random.Random(seed)

    def pair(low: int, high: int) -> tuple[int, int]:
        return rng.randint(low, high), rng.randint(low, high)

    while True:
        kernel, stride, dilation, padding = pair(1, 7), pair(1, 3), rng.choice([(1, 1), pair(1, 3)]), pair(0, 4)
        size = rng.choice([pair(1, 8), pair(1, 64)])
        if all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
            break
    channels = [rng.randint(1, 5) for _ in range(rng.randint(1, 2))]
    layer = PartialConv2d(channels, rng.randint(1, 4), kernel, stride, padding, dilation, bias=rng.random() < 0.7)
    batch = rng.randint(1, 2)
    ratios = [rng.choice([0, 0.1, 0.5, 0.9, 0.99, 1]) for _ in channels]
    sources = [torch.randn(batch, c, *size) for c in channels]
    return layer, sources, [(torch.rand(batch, 1, *size) >= ratio).float() for ratio in ratios]


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_equations_written_out(seed: int) -> None:
    layer, sources, valids = random_case(seed)
    output, new_valid = layer(sources, valids)
    wanted, wanted_valid = reference(layer, sources, valids)
    assert torch.equal(new_valid, wanted_valid)
    torch.testing.assert_close(output.double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()) + 1e-30)


@pytest.mark.parametrize("seed", range(5))
def test_float64_is_exact_to_float64(seed: int) -> None:
    layer, sources, valids = random_case(seed)
    output, _ = layer.double()([x.double() for x in sources], valids)
    torch.testing.assert_close(output, reference(layer, sources, valids)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels", [[2], [2, 3]])
def test_gradients(channels: list[int]) -> None:
    layer = PartialConv2d(channels, 2, 3, stride=2, padding=1).double()
    valids = [(torch.rand(2, 1, 6, 5) > 0.8).float() for _ in channels]
    assert 0 < layer([torch.ones(2, c, 6, 5).double() for c in channels], valids)[1].mean() < 1  # both cases of eq. 1
    sources = [torch.randn(2, c, 6, 5, dtype=torch.float64, requires_grad=True) for c in channels]

    def run(weight: Tensor, bias: Tensor, *sources: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (list(sources), valids))[0]

    assert torch.autograd.gradcheck(run, (layer.weight, layer.bias, *sources))


def gradients(layer: PartialConv2d, features: Tensor, valid: Tensor) -> list[Tensor]:
    layer.zero_grad()
    features = features.clone().requires_grad_()
    output, _ = layer(features, valid)
    output.square().sum().backward()
    return [output.detach(), layer.weight.grad, layer.bias.grad, features.grad]


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("dilation", [1, 2])
def test_values_under_the_hole_never_matter(rubbish: float, dilation: int) -> None:
    layer = PartialConv2d(3, 4, 3, padding=1, dilation=dilation)
    features, valid = torch.randn(2, 3, 12, 9), (torch.rand(2, 1, 12, 9) > 0.7).float()
    dirty = torch.where(valid > 0, features, rubbish)
    for clean_one, dirty_one in zip(gradients(layer, features, valid), gradients(layer, dirty, valid), strict=True):
        assert dirty_one.isfinite().all()
        assert torch.equal(clean_one, dirty_one)


def test_zero_holes_keeps_the_rest_bit_for_bit() -> None:
    features, valid = torch.randn(1, 2, 3, 3), torch.tensor([1.0, 0, 1] * 3).view(1, 1, 3, 3)
    zeroed = zero_holes(features.masked_fill(valid == 0, torch.nan), valid)
    assert torch.equal(zeroed, features.masked_fill(valid == 0, 0))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_valid_is_all_above_zero_in_any_dtype(dtype: torch.dtype) -> None:
    layer, features, valid = PartialConv2d(2, 3, 3, padding=1), torch.randn(1, 2, 8, 8), torch.rand(1, 1, 8, 8) > 0.7
    wanted = layer(features, valid.float())
    for found in (layer(features, valid.to(dtype)), layer(features, valid * 0.3)):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert found[1].dtype == torch.float32


def test_a_window_without_valid_values_is_zero_bias_included_and_stays_hole() -> None:
    layer = PartialConv2d(2, 3, 3, padding=1)
    nn.init.constant_(layer.bias, 5)
    valid = torch.zeros(1, 1, 7, 7)
    valid[..., 0, 0] = 1
    output, new_valid = layer(torch.randn(1, 2, 7, 7), valid)
    wanted = torch.zeros(1, 1, 7, 7)
    wanted[..., :2, :2] = 1
    assert torch.equal(new_valid, wanted)
    assert (output[wanted.expand_as(output) == 0] == 0).all()
    assert (output[wanted.expand_as(output) == 1] != 0).all()


def test_without_holes_equals_a_convolution_inside_and_is_renormalised_at_the_border() -> None:
    layer, plain = PartialConv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 5, padding=2)
    plain.load_state_dict(layer.state_dict())
    features = torch.randn(2, 3, 16, 16)
    output, new_valid = layer(features, torch.ones(2, 1, 16, 16))
    wanted = plain(features)
    assert new_valid.all()
    torch.testing.assert_close(output[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], rtol=1e-5, atol=1e-6)
    # The corner's window has 3 × 3 of its 5 × 5 values in the picture; the bias is not scaled.
    bias = layer.bias
    torch.testing.assert_close(output[..., 0, 0], (wanted[..., 0, 0] - bias) * 25 / 9 + bias, rtol=1e-5, atol=1e-5)


def test_one_valid_pixel_fills_everything_after_enough_layers() -> None:
    layer = PartialConv2d(1, 1, 3, padding=1)
    features, valid = torch.randn(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    valid[..., 0, 0] = 1
    for step in range(1, 16):
        features, valid = layer(features, valid)
        assert valid.sum() == (step + 1) ** 2
    assert valid.all()


def test_a_mask_has_one_channel_and_is_filtered_once_whatever_the_width() -> None:
    class Record(TorchFunctionMode):
        filtered: list[tuple[int, ...]]

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (F.conv2d, torch.conv2d, F.avg_pool2d, torch._C._nn.avg_pool2d):
                self.filtered.append(tuple(args[0].shape))
            return function(*args, **(kwargs or {}))

    layer = PartialConv2d([40, 24], 8, 3, padding=1)
    sources, valids = [torch.randn(1, 40, 8, 8), torch.randn(1, 24, 8, 8)], [torch.ones(1, 1, 8, 8)] * 2
    with Record() as record:
        record.filtered = []
        _, new_valid = layer(sources, valids)
    assert new_valid.shape == (1, 1, 8, 8)
    assert sorted(record.filtered) == [(1, 64, 8, 8), (2, 1, 8, 8)]  # the features; both masks, one channel


def test_counts_are_exact_in_autocast_too() -> None:
    layer = PartialConv2d(7300, 1, 3, padding=1, dilation=2, bias=False)  # sum(1) = 65700 is infinite in float16
    features = torch.randn(1, 7300, 5, 5)
    with torch.autocast("cpu", torch.float16):
        output, _ = layer(features, torch.ones(1, 1, 5, 5))
        wanted = F.conv2d(features, layer.weight, None, 1, 1, 2)
    assert output.dtype == torch.float16
    torch.testing.assert_close(output[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("channels", "features", "valid", "message"),
    [
        (3, [(1, 4, 8, 8)], [(1, 1, 8, 8)], r"C = \(3,\) channels, got \[\(1, 4, 8, 8\)\]"),
        (3, [(3, 8, 8)], [(1, 8, 8)], r"\(N, C, H, W\)"),
        (3, [(1, 3, 8, 8)], [(1, 3, 8, 8)], r"\[\(1, 1, 8, 8\)\], got \[\(1, 3, 8, 8\)\]"),
        (3, [(1, 3, 8, 8)], [(1, 1, 8, 7)], r"got \[\(1, 1, 8, 7\)\]"),
        ([3, 2], [(1, 3, 8, 8)], [(1, 1, 8, 8)], r"C = \(3, 2\) channels"),
        ([3, 2], [(1, 3, 8, 8), (1, 2, 4, 4)], [(1, 1, 8, 8), (1, 1, 4, 4)], "same N, H and W"),
        ([3, 2], [(1, 3, 8, 8), (2, 2, 8, 8)], [(1, 1, 8, 8), (2, 1, 8, 8)], "same N, H and W"),
    ],
)
def test_wrong_shapes_are_named(channels, features, valid, message: str) -> None:
    layer = PartialConv2d(channels, 2, 3)
    with pytest.raises(ValueError, match=message):
        layer([torch.zeros(s) for s in features], [torch.ones(s) for s in valid])


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (6, 8)])
@pytest.mark.parametrize("layer", [PartialConv2d, PlainConv2d])
def test_a_source_of_half_the_size_counts_as_enlarged(layer, size):
    conv = layer((3, 2), 4, 3, padding=1).double()
    low = torch.randn(1, 3, -(-size[0] // 2), -(-size[1] // 2), dtype=torch.float64, requires_grad=True)
    skip = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    valids = [(torch.rand(1, 1, *size) < 0.5).float() for _ in range(2)]
    large = low.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : size[0], : size[1]]
    found, wanted = (conv.forward_zeroed(sources, valids)[0] for sources in ((low, skip), (large, skip)))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(wanted)
    parameters = [low, skip, conv.weight, conv.bias]
    for a, b in zip(*(torch.autograd.grad((y * direction).sum(), parameters) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
