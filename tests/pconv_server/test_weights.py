"""The weights that ship: that they are what their cards say, and do what they are for."""

from dataclasses import replace
from pathlib import Path

import pconv_server
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from pconv import PConvUNetConfig, describe_checkpoint, inpaint, load_checkpoint, upscale
from pconv_server.models import preset_name

FOLDER = Path(pconv_server.__file__).parent / "weights"
NAMES = ["inpaint", "upscale", "refine"]


def photo(side: int) -> torch.Tensor:
    """The central square of a photograph, `(1, 3, side, side)` in [0, 1]."""
    pixels = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels[..., :400, 100:500], (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return (found - wanted).square().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_card_and_provenance_belong_to_the_file(name):
    path = FOLDER / f"{name}.safetensors"
    info = describe_checkpoint(path)
    assert info.task == name
    assert path.stat().st_size <= 20e6
    assert all(stage["data"]["description"] for stage in info.provenance["stages"])
    assert info.sha256 in path.with_suffix(".md").read_text()


def test_a_fill_is_nearer_the_truth_than_the_mean_colour():
    target, hole = photo(256), torch.zeros(1, 1, 256, 256)
    hole[..., 60:90, 40:200] = hole[..., 150:200, 120:150] = 1
    known = target[..., hole[0, 0] == 0]
    mean = torch.where(hole > 0, known.mean(-1).view(1, 3, 1, 1), target)
    filled = inpaint(load_checkpoint(FOLDER / "inpaint.safetensors"), target, hole)
    assert error(filled, target) < 0.4 * error(mean, target)


@pytest.mark.parametrize("height", [8, 64])
def test_a_strip_that_a_wide_hole_cuts_through_keeps_its_colour(height):
    flat, hole = torch.full((1, 3, height, 512), 0.5), torch.zeros(1, 1, height, 512)
    hole[..., 56:400] = 1
    networks = [load_checkpoint(FOLDER / f"{name}.safetensors") for name in ("inpaint", "refine")]
    filled = inpaint(networks[0], flat, hole, refine=networks[1])
    assert (filled - flat).abs().max() < 0.25
    assert (filled - flat).abs().mean() < 0.03


def test_refinement_gives_a_wide_hole_detail_and_no_lattice():
    target, hole = photo(400), torch.zeros(1, 1, 400, 400)
    hole[..., 100:300, 80:280] = 1
    network = load_checkpoint(FOLDER / "inpaint.safetensors")
    plain = inpaint(network, target, hole)
    refined = inpaint(network, target, hole, refine=load_checkpoint(FOLDER / "refine.safetensors"))
    box = (..., slice(120, 280), slice(100, 260))
    rough = [(x - F.avg_pool2d(x, 5, 1, 2))[box] for x in (plain, refined)]
    assert rough[1].abs().mean() > 1.2 * rough[0].abs().mean()
    assert (refined - plain)[box].mean().abs() < 1 / 255
    assert all(rough[1][..., y::2, x::2].mean().abs() < 0.1 / 255 for y in (0, 1) for x in (0, 1))


def test_enlarging_beats_bicubic():
    target = photo(256)
    small = F.interpolate(target, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    bicubic = F.interpolate(small, (256, 256), mode="bicubic").clamp(0, 1)
    enlarged = upscale(load_checkpoint(FOLDER / "upscale.safetensors"), small)
    inner = (..., slice(4, -4), slice(4, -4))
    assert error(enlarged[inner], target[inner]) < error(bicubic[inner], target[inner])


@pytest.mark.parametrize("preset", ["paper", "compact", "light"])
@pytest.mark.parametrize("partial", [True, False])
def test_a_preset_is_known_by_its_channels(preset, partial):
    config = getattr(PConvUNetConfig, preset)(5, partial)
    assert preset_name(config) == f"{preset}-5"
    assert preset_name(replace(config, channels=(config.channels[0] + 1, *config.channels[1:]))) == "custom"
