"""What the network is for: fill, enlarge, composite."""

import pytest
import torch
import torch.nn.functional as F
from pconv import PConvUNet, PConvUNetConfig, composite, operations, place_pixels, upscale
from pconv.operations import refine, refined_part, remove_lattice
from torch import Tensor, nn


class Echo(nn.Module):
    """Stands for a network: returns what it was told to, remembers what it was given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: Tensor, hole: Tensor) -> Tensor:
        self.given = image, hole
        return self.output


@pytest.fixture
def network() -> PConvUNet:
    return PConvUNet(PConvUNetConfig((8, 8), (3, 3))).eval()


def some_hole(*size: int) -> Tensor:
    return (torch.rand(size) > 0.5).float()


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_place_pixels_puts_each_pixel_on_the_lattice_and_nothing_else(factor: int) -> None:
    image = torch.rand(2, 3, 5, 7) + 0.1
    placed, hole = place_pixels(image, factor)
    assert placed.shape == (2, 3, factor * 5, factor * 7)
    assert hole.shape == (2, 1, factor * 5, factor * 7)
    assert hole.dtype == torch.float32
    for y in range(5):
        for x in range(7):
            row, column = factor * y + factor // 2, factor * x + factor // 2
            assert torch.equal(placed[..., row, column], image[..., y, x])
            assert (hole[..., row, column] == 0).all()
    assert (placed != 0).sum() == image.numel()
    assert (hole == 0).sum() == 2 * 5 * 7
    assert set(hole.unique().tolist()) <= {0.0, 1.0}


def test_place_pixels_by_four_leaves_fifteen_sixteenths_hole() -> None:
    image = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    placed, hole = place_pixels(image, 4)
    assert hole.mean() == 15 / 16
    assert placed.dtype == torch.float64
    assert torch.equal(placed[..., 2::4, 2::4], image)


def test_place_pixels_refuses_what_is_no_factor_or_no_batch() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        place_pixels(torch.rand(1, 3, 4, 4), 0)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(3, 4, 4\)"):
        place_pixels(torch.rand(3, 4, 4), 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_composite_keeps_known_pixels_bit_for_bit(dtype: torch.dtype) -> None:
    image, output, hole = torch.rand(2, 3, 9, 8).to(dtype), torch.randn(2, 3, 9, 8), some_hole(2, 1, 9, 8)
    result = composite(output, image, hole)
    inside = (hole != 0).expand_as(image)
    assert result.dtype == dtype
    assert torch.equal(result[~inside], image[~inside])
    assert torch.equal(result[inside], output.clamp(0, 1).to(dtype)[inside])


def test_composite_ignores_the_picture_under_the_hole_and_the_output_outside() -> None:
    image, output, hole = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), some_hole(1, 1, 4, 4)
    dirty = composite(output.masked_fill(hole == 0, torch.nan), image.masked_fill(hole != 0, torch.nan), hole * 0.2)
    assert torch.equal(dirty, composite(output, image, hole))


def smaller(large: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(large, like.shape[-2:], mode="bicubic", antialias=True)


@pytest.mark.parametrize("factor", [2, 4])
def test_upscale_shows_the_network_the_lattice_and_keeps_what_it_adds(factor: int) -> None:
    large = torch.rand(2, 3, 5 * factor, 6 * factor) * 0.2 + 0.4
    image = smaller(large, torch.empty(5, 6))
    echo = Echo(large)
    result = upscale(echo, image, factor)
    torch.testing.assert_close(result, large)  # reduced it is the picture: nothing is missing
    for given, wanted in zip(echo.given, place_pixels(image, factor), strict=True):
        assert torch.equal(given, wanted)


def test_a_reduced_result_is_the_picture() -> None:
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 30, 34), 5, 1) * 0.8 + 0.1
    unknown = torch.zeros(1, 1, 26, 30)
    unknown[..., 4:20, 6:22] = 1
    off = Echo(torch.full((1, 3, 104, 120), 0.5))
    assert (smaller(upscale(off, image), image) - image).abs().mean() < 0.05 * (0.5 - image).abs().mean()
    result = upscale(off, image, hole=unknown)
    assert torch.equal(result[..., 46:50, 54:58], off.output[..., 46:50, 54:58])  # nothing to go by there


def test_upscale_ends_in_the_range() -> None:
    result = upscale(Echo(torch.randn(1, 3, 16, 16) * 9), torch.rand(1, 3, 4, 4))
    assert result.min() == 0
    assert result.max() == 1


def test_a_gray_picture_is_enlarged_to_a_gray_one_and_others_are_not() -> None:
    image, unknown = torch.rand(3, 1, 6, 5).expand(3, 3, 6, 5).clone(), torch.zeros(3, 1, 6, 5)
    image[0] *= 3  # beyond white, too
    image[1, 2, 3, 3] += 0.1
    image[2, 2, 3, 3] += 0.1
    unknown[2, 0, 3, 3] = 1
    output = torch.rand(3, 3, 24, 20)
    result = upscale(Echo(output), image, hole=unknown)
    spread = (result.amax(1) - result.amin(1)).flatten(1).mean(1)
    assert spread[0] == spread[2] == 0
    assert spread[1] > 0.1
    colour = upscale(Echo(output), image + torch.tensor([0, 0, 1e-6]).view(3, 1, 1), hole=unknown)
    torch.testing.assert_close(result[[0, 2]], colour[[0, 2]].mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_values_beyond_white_are_enlarged_beside_the_network() -> None:
    image = torch.rand(1, 3, 6, 5)
    image[..., 2:4, 1:3] = torch.tensor([3.0, -0.5, 0.5]).view(3, 1, 1)
    inside = image.clamp(0, 1)
    echo = Echo(torch.full((1, 3, 24, 20), 0.5))
    result = upscale(echo, image)
    beyond = torch.nn.functional.interpolate(image - inside, scale_factor=4, mode="bicubic")
    torch.testing.assert_close(result, upscale(echo, inside) + beyond)
    assert echo.given[0].min() >= 0
    assert echo.given[0].max() <= 1
    unknown = torch.zeros(1, 1, 6, 5)
    unknown[..., 2:4, 1:3] = 1
    assert torch.equal(upscale(echo, image, hole=unknown), upscale(echo, inside, hole=unknown))


def test_refinement_keeps_what_is_known_and_what_the_coarse_picture_shows() -> None:
    truth, part = torch.rand(1, 3, 41, 60), torch.zeros(1, 1, 41, 60)
    part[..., 8:32, 10:50] = 1
    placed, between = place_pixels(F.avg_pool2d(truth, 2), 2)
    image = truth.clone()
    image[..., :40, :] = torch.where(part[..., :40, :] > 0, placed, image[..., :40, :])
    hole = part.clone()
    hole[..., :40, :] *= between
    part[..., 31, 49] = 0  # a lattice pixel at the very corner has hole to one side only
    assert torch.equal(refined_part(hole), part)
    noise = torch.rand_like(image)
    result = refine(lambda image, hole: noise, image, hole)
    assert torch.equal(result[part.expand_as(image) == 0], image[part.expand_as(image) == 0])
    inner = (..., slice(6, 14), slice(7, 23))

    def error(picture: torch.Tensor) -> float:
        reduced = F.interpolate(picture[..., :40, :], (20, 30), mode="bicubic", antialias=True)
        return float((reduced - F.avg_pool2d(truth, 2))[inner].square().mean())

    assert error(result) < 0.2 * error(noise)
    assert result[..., 12:28, 14:46].std() > 0.15  # and the rest is the network's


def test_upscale_of_a_real_network_by_four(network: PConvUNet) -> None:
    result = upscale(network, torch.rand(1, 3, 3, 7))
    assert result.shape == (1, 3, 12, 28)
    assert result.isfinite().all()
    assert not result.requires_grad


def test_a_lattice_is_removed_in_strips_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inside = torch.zeros(1, 1, 400, 90, dtype=torch.bool)
    inside[..., 5:390, 3:80] = True
    lattice = 0.02 * (-1.0) ** torch.arange(400)[:, None] * torch.linspace(0, 1, 400)[:, None]
    picture = F.interpolate(torch.rand(1, 3, 9, 9), (400, 90), mode="bicubic") + lattice
    whole = remove_lattice(picture, inside)
    assert (whole - picture)[..., 300:380, 10:70].abs().mean() > 0.01
    monkeypatch.setattr(operations, "_STRIP", 96)
    torch.testing.assert_close(remove_lattice(picture, inside), whole, atol=5e-4, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (150, 201)])
def test_what_alternates_all_over_a_part_is_taken_away_and_nothing_else(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    inside = torch.zeros(1, 1, *size, dtype=torch.bool)
    inside[..., size[0] // 4 :, : 1 + 3 * size[1] // 4] = True
    rows, columns = ((-1.0) ** torch.arange(side) for side in size)
    picture = F.interpolate(torch.rand(1, 3, 9, 9), size, mode="bicubic") + 0.05 * torch.randn(1, 3, *size)
    lattice = 0.02 * columns - 0.01 * rows[:, None] + 0.015 * torch.outer(rows, columns)
    result = remove_lattice(picture + lattice * inside, inside)
    outside = ~inside.expand_as(result)
    assert torch.equal(result[outside], picture[outside])
    if min(size) > 100:
        error = (result - picture)[..., size[0] // 4 + 16 : -16, 16 : size[1] // 2]
        assert error.square().mean() < 0.03 * lattice.square().mean()  # by chance noise alternates a little
    flat = torch.full((1, 3, *size), 0.3)
    torch.testing.assert_close(remove_lattice(flat, inside), flat)
