"""The U-Net against table 2, and its properties."""

import pytest
import torch
from pconv import PConvUNet, PConvUNetConfig, fold_batch_norm
from pconv.layers import upsample
from pconv.network import IMAGENET_MEAN, IMAGENET_STD, UPSAMPLINGS
from pconv_train.warm_start import with_options
from torch import Tensor, nn

# Table 2: kernel, input channels (up + skip), output channels, stride, batch norm, activation.
TABLE_2 = [
    (7, (3,), 64, 2, False, "ReLU"),
    (5, (64,), 128, 2, True, "ReLU"),
    (5, (128,), 256, 2, True, "ReLU"),
    (3, (256,), 512, 2, True, "ReLU"),
    (3, (512,), 512, 2, True, "ReLU"),
    (3, (512,), 512, 2, True, "ReLU"),
    (3, (512,), 512, 2, True, "ReLU"),
    (3, (512,), 512, 2, True, "ReLU"),
    (3, (512, 512), 512, 1, True, "LeakyReLU"),
    (3, (512, 512), 512, 1, True, "LeakyReLU"),
    (3, (512, 512), 512, 1, True, "LeakyReLU"),
    (3, (512, 512), 512, 1, True, "LeakyReLU"),
    (3, (512, 256), 256, 1, True, "LeakyReLU"),
    (3, (256, 128), 128, 1, True, "LeakyReLU"),
    (3, (128, 64), 64, 1, True, "LeakyReLU"),
    (3, (64, 3), 3, 1, False, "Identity"),
]


def small(stages: int = 4, partial: bool = True, upsampling: str = "nearest") -> PConvUNet:
    """An untrained network whose batch norm does something, as after training."""
    channels, kernel_sizes = (8, 16, 24, 32, 32, 32)[:stages], (7, 5, 3, 3, 3, 3)[:stages]
    network = PConvUNet(PConvUNetConfig(channels, kernel_sizes, partial, upsampling=upsampling))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)
    for end in (network.encoder[0], network.decoder[-1]):
        nn.init.normal_(end.conv.bias)
    return network.eval()


def picture(height: int = 40, width: int = 48, batch: int = 2) -> tuple[Tensor, Tensor]:
    hole = torch.zeros(batch, 1, height, width)
    hole[..., height // 4 : height // 2 + 1, width // 4 : -(width // 4) or None] = 1
    return torch.rand(batch, 3, height, width), hole


@torch.no_grad()
def run(network: PConvUNet, image: Tensor, hole: Tensor) -> Tensor:
    return network(image, hole)


def assert_near(found: Tensor, wanted: Tensor, relative: float) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=relative * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def paper() -> PConvUNet:
    with torch.device("meta"):  # shapes are enough
        return PConvUNet(PConvUNetConfig.paper())


def test_paper_is_table_2_row_by_row(paper: PConvUNet) -> None:
    found = [
        (
            stage.conv.kernel_size[0],
            stage.conv.source_channels,
            stage.conv.out_channels,
            stage.conv.stride[0],
            stage.norm is not None,
            type(stage.activation).__name__,
        )
        for stage in (*paper.encoder, *paper.decoder)
    ]
    assert found == TABLE_2
    for stage in (*paper.encoder, *paper.decoder):
        k = stage.conv.kernel_size[0]
        assert (stage.conv.kernel_size, stage.conv.padding) == ((k, k), (k // 2, k // 2))
        assert (stage.conv.bias is None) == (stage.norm is not None)  # batch norm has one of its own
    assert all(s.activation.negative_slope == 0.2 for s in list(paper.decoder)[:-1])


def test_paper_has_32_9_million_parameters(paper: PConvUNet) -> None:
    assert round(sum(p.numel() for p in paper.parameters()) / 1e6, 1) == 32.9


def test_compact_has_half_the_channels_of_paper() -> None:
    compact, paper = PConvUNetConfig.compact(), PConvUNetConfig.paper()
    assert [2 * c for c in compact.channels] == list(paper.channels)
    assert compact.kernel_sizes == paper.kernel_sizes
    assert PConvUNetConfig.compact(stages=3).channels == compact.channels[:3]


def test_light_saves_channels_where_pixels_are_many() -> None:
    light, compact = PConvUNetConfig.light(8), PConvUNetConfig.compact()
    assert light.channels[2:] == compact.channels[2:]
    assert light.channels[:2] < compact.channels[:2]
    assert len(PConvUNetConfig.light().channels) == 6


def test_the_plain_twin_has_the_same_weights() -> None:
    partial, plain = small(), small(partial=False)
    assert {k: v.shape for k, v in partial.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (3, 2), (37, 501)])
def test_any_size(height: int, width: int, partial: bool, upsampling: str) -> None:
    network = small(6, partial, upsampling)
    image, hole = picture(height, width, batch=1)
    before = run(network, *picture())
    hole[..., 0, 0] = 0
    output = run(network, image, hole)
    assert output.shape == image.shape
    assert output.dtype == torch.float32
    assert output.isfinite().all()
    assert before.isfinite().all()


@pytest.mark.parametrize("config", [PConvUNetConfig.compact(), PConvUNetConfig.paper()], ids=["compact", "paper"])
def test_presets_at_512(config: PConvUNetConfig) -> None:
    output = run(fold_batch_norm(PConvUNet(config)), *picture(512, 512, batch=1))
    assert output.shape == (1, 3, 512, 512)
    assert output.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_values_under_the_hole_never_matter(rubbish: float, partial: bool, training: bool, upsampling: str) -> None:
    network, (image, hole) = small(partial=partial, upsampling=upsampling).train(training), picture()
    dirty = torch.where(hole > 0, rubbish, image)
    assert torch.equal(run(network, image, hole), run(network, dirty, hole))
    if training:
        network(dirty, hole).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())


def test_hole_is_all_that_is_not_zero() -> None:
    network, (image, hole) = small(), picture()
    assert torch.equal(run(network, image, hole), run(network, image, hole * 0.3))
    assert torch.equal(run(network, image, hole), run(network, image, hole.bool()))


def test_a_hole_changes_the_output() -> None:
    network, (image, hole) = small(), picture()
    assert not torch.allclose(run(network, image, hole), run(network, image, torch.zeros_like(hole)), atol=1e-2)


def test_the_plain_twin_sees_the_imagenet_mean_in_holes() -> None:
    network, (image, hole) = small(partial=False), picture()
    filled = torch.where(hole > 0, torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), image)
    assert_near(run(network, image, hole), run(network, filled, torch.zeros_like(hole)), 1e-5)


def test_one_known_pixel_is_enough_for_every_pixel() -> None:
    network, image, hole = small(6), torch.rand(1, 3, 33, 31), torch.ones(1, 1, 33, 31)
    hole[..., 32, 0] = 0
    valids = []
    for stage in network.decoder:
        stage.register_forward_hook(lambda _stage, _inputs, outputs: valids.append(outputs[1]))
    run(network, image, hole)
    assert valids[-1].shape == (1, 1, 33, 31)
    assert valids[-1].all()


@pytest.mark.parametrize("upsampling", ["bilinear", "binomial"])
def test_smooth_upsampling_has_no_blocks(upsampling: str) -> None:
    network, (image, hole) = small(upsampling=upsampling), picture(64, 64)
    seen: list[Tensor] = []
    network.decoder[-1].register_forward_pre_hook(lambda _stage, inputs: seen.append(inputs[0][0]))
    run(network, image, hole)
    (large,) = seen
    assert large.shape[-2:] == (64, 64)
    blocks = nn.functional.interpolate(nn.functional.avg_pool2d(large, 2), scale_factor=2.0, mode="nearest")
    assert (large - blocks).abs().mean() > 0.05 * large.abs().mean()


@pytest.mark.parametrize(
    ("mode", "kernel"), [("nearest", [1, 1]), ("bilinear", [1, 3, 3, 1]), ("binomial", [1, 5, 10, 10, 5, 1])]
)
def test_an_upsampling_is_its_kernel(mode: str, kernel: list[int]) -> None:
    single = torch.zeros(1, 2, 9, 9)
    single[..., 4, 4] = 1
    large = upsample(single, torch.Size((17, 18)), mode)
    assert large.shape[-2:] == (17, 18)
    row = 2 * torch.tensor(kernel) / sum(kernel)
    wanted, start = torch.zeros(18), 9 - len(kernel) // 2
    wanted[start : start + len(kernel)] = row
    torch.testing.assert_close(large[0, 1, :, :], torch.outer(wanted[:17], wanted))
    torch.testing.assert_close(upsample(torch.ones(1, 1, 3, 5), torch.Size((6, 10)), mode), torch.ones(1, 1, 6, 10))


def test_another_upsampling_keeps_the_weights() -> None:
    nearest, (image, hole) = small(), picture()
    bilinear = with_options(nearest, upsampling="bilinear")
    assert bilinear.config.upsampling == "bilinear"
    assert nearest.config.upsampling == "nearest"
    assert all(torch.equal(value, nearest.state_dict()[name]) for name, value in bilinear.state_dict().items())
    assert not torch.equal(run(bilinear, image, hole), run(nearest, image, hole))
    assert torch.equal(run(with_options(bilinear, upsampling="nearest"), image, hole), run(nearest, image, hole))


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_features_are_zero_wherever_not_valid(upsampling: str) -> None:
    network, image, hole = small(upsampling=upsampling), torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    hole[..., 0, 0] = 0
    for stage in network.encoder:
        stage.register_forward_hook(lambda _stage, _inputs, outputs: seen.append(outputs))
    for candidate in (network, fold_batch_norm(network)):
        seen: list[tuple[Tensor, Tensor]] = []
        run(candidate, image, hole)
        assert len(seen) == 4
        assert not all(valid.all() for _, valid in seen)
        assert all(not features[(valid == 0).expand_as(features)].any() for features, valid in seen)


@pytest.mark.parametrize("partial", [True, False])
def test_folded_equals_eval(partial: bool) -> None:
    network, (image, hole) = small(partial=partial), picture()
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert_near(run(folded, image, hole), run(network, image, hole), 1e-5)
    assert network.config.batch_norm
    assert not folded.config.batch_norm


def test_folding_leaves_the_network_alone() -> None:
    network = small().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folded = fold_batch_norm(network)
    nn.init.zeros_(folded.encoder[1].conv.weight)
    assert network.training
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
def test_precisions_and_memory_formats(dtype: torch.dtype, relative: float, channels_last: bool) -> None:
    network, (image, hole) = fold_batch_norm(small()), picture()
    wanted = run(network, image, hole)
    network = network.to(dtype)
    if channels_last:
        network, image = network.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
    output = run(network, image, hole)
    assert output.dtype == torch.float32
    assert_near(output, wanted, relative)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-2), (torch.bfloat16, 5e-2)])
def test_cuda(dtype: torch.dtype, relative: float) -> None:
    network, (image, hole) = fold_batch_norm(small()), picture()
    wanted = run(network, image, hole)
    output = run(network.to("cuda", dtype), image.cuda(), hole.cuda())
    assert_near(output.cpu(), wanted, relative)


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    network, (image, hole) = small(), picture(batch=3)
    hole[1] = hole[1].roll(9, 1)
    hole[2] = 0
    together = run(network, image, hole)
    for i in range(3):
        assert_near(together[i : i + 1], run(network, image[i : i + 1], hole[i : i + 1]), 1e-5)


def test_a_trained_size_leaves_no_trace() -> None:
    network = small()
    before = run(network, *picture_of(0))
    for size in [(1, 1), (37, 51), (8, 3)]:
        run(network, *picture(*size))
    assert torch.equal(run(network, *picture_of(0)), before)


def picture_of(seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return picture()


def test_training_reaches_every_weight() -> None:
    network, (image, hole) = small().train(), picture()
    network(image, hole).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_autocast_keeps_its_precision_through_the_network() -> None:
    network, (image, hole) = small(), picture()
    dtypes = []
    network.decoder[0].register_forward_hook(lambda _stage, _inputs, outputs: dtypes.append(outputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        output = run(network, image, hole)
    assert dtypes == [torch.bfloat16]
    assert_near(output, run(network, image, hole), 5e-2)


def test_config_defaults_to_imagenet_normalisation() -> None:
    config = PConvUNetConfig.compact()
    assert (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("image", "hole", "message"),
    [
        ((3, 8, 8), (1, 8, 8), r"\(N, 3, H, W\).*got \(3, 8, 8\)"),
        ((1, 4, 8, 8), (1, 1, 8, 8), r"got \(1, 4, 8, 8\)"),
        ((1, 3, 0, 8), (1, 1, 0, 8), r"got \(1, 3, 0, 8\)"),
        ((1, 3, 8, 8), (1, 3, 8, 8), r"hole must have shape .* \(1, 1, 8, 8\), got \(1, 3, 8, 8\)"),
        ((2, 3, 8, 8), (1, 1, 8, 8), r"\(2, 1, 8, 8\), got \(1, 1, 8, 8\)"),
    ],
)
def test_wrong_shapes_are_named(image: tuple[int, ...], hole: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(image), torch.zeros(hole))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (), "kernel_sizes": ()}, "at least one stage"),
        ({"channels": (8, 8), "kernel_sizes": (3,)}, "2 channels, 1 kernel sizes"),
        ({"channels": (8,), "kernel_sizes": (4,)}, "odd kernel sizes"),
        ({"channels": (0,), "kernel_sizes": (3,)}, "positive channels"),
        ({"channels": (8,), "kernel_sizes": (3,), "std": (0.2, 0.0, 0.2)}, "std > 0"),
        ({"channels": (8,), "kernel_sizes": (3,), "upsampling": "cubic"}, "nearest, bilinear, binomial"),
    ],
)
def test_impossible_configs_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PConvUNetConfig(**arguments)


@pytest.mark.parametrize("stages", [0, 9])
def test_stages_are_one_to_eight(stages: int) -> None:
    with pytest.raises(ValueError, match=f"1…8, got {stages}"):
        PConvUNetConfig.paper(stages)
