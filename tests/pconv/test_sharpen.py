"""Contrast that a fill lacks, given back."""

import pytest
import torch
from pconv import sharpen as module
from pconv.sharpen import CORE, GAIN, sharpen

torch.set_num_threads(1)


def waves(contrast: float, length: float = 10.0) -> torch.Tensor:
    """Vertical stripes `(1, 3, 96, 96)` around middle gray."""
    row = 0.5 + contrast * torch.sin(2 * torch.pi / length * torch.arange(96))
    return row.expand(1, 3, 96, 96).clone()


def middle() -> torch.Tensor:
    hole = torch.zeros(1, 1, 96, 96, dtype=torch.bool)
    hole[..., 16:80, 16:80] = True
    return hole


def contrast(picture: torch.Tensor) -> float:
    return float(picture[..., 40:56, 38:58].std(-1).mean())


def test_bold_stripes_get_more_contrast_faint_ones_and_slopes_do_not() -> None:
    bold, faint = (contrast(sharpen(x, middle())) / contrast(x) for x in (waves(0.2), waves(CORE / 20)))
    assert 1 + 0.5 * GAIN < bold < 1 + GAIN
    assert faint < 1.01
    slope = torch.linspace(0, 1, 96).expand(1, 3, 96, 96).clone()
    torch.testing.assert_close(sharpen(slope, middle()), slope, atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [2.0, 80.0])
def test_finest_noise_and_broad_shading_stay(length: float) -> None:
    assert 0.99 < contrast(sharpen(waves(0.2, length), middle())) / contrast(waves(0.2, length)) < 1.05


def test_nothing_is_touched_outside_the_hole_nor_without_one() -> None:
    picture, hole = torch.rand(1, 3, 96, 96), middle()
    before = picture.clone()
    result = sharpen(picture, hole)
    known = ~hole.expand_as(picture)
    assert torch.equal(result[known], picture[known])
    assert not torch.equal(result, picture)
    assert torch.equal(picture, before)
    assert torch.equal(sharpen(picture, torch.zeros_like(hole)), picture)


def test_a_large_hole_is_the_same_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, hole = torch.rand(2, 3, 150, 40), torch.zeros(2, 1, 150, 40, dtype=torch.bool)
    hole[0, :, 3:149, 5:40] = hole[1, :, 70:80, :9] = True
    whole = sharpen(picture, hole)
    monkeypatch.setattr(module, "_STRIP", 32)
    assert torch.equal(sharpen(picture, hole), whole)
