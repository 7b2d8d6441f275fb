import json

import numpy as np
import pytest
from pconv_train.holes import (
    RATIO_BINS,
    border_class,
    border_margin,
    contact_sheet,
    dilate,
    load_hole,
    random_hole,
    test_set,
    write_test_set,
)
from PIL import Image

test_set.__test__ = False  # the paper's word, not pytest's


@pytest.mark.parametrize("bounds", RATIO_BINS)
@pytest.mark.parametrize("side", [16, 64, 256])
def test_ratio_is_above_low_and_at_most_high(bounds, side):
    for seed in range(5):
        hole = random_hole(np.random.default_rng(seed), side, bounds)
        assert hole.shape == (side, side)
        assert bounds[0] < hole.mean() <= bounds[1]


def test_same_seed_same_hole():
    first, second, other = (random_hole(np.random.default_rng(seed), 96) for seed in (7, 7, 8))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_margin_stays_free():
    for seed in range(10):
        hole = random_hole(np.random.default_rng(seed), 100, (0.5, 0.6), margin=10)
        assert not hole[:10].any()
        assert not hole[-10:].any()
        assert not hole[:, :10].any()
        assert not hole[:, -10:].any()


def test_impossible_ratio_is_refused():
    with pytest.raises(ValueError, match=r"no hole of ratio \(0.5, 0.6\] fits"):
        random_hole(np.random.default_rng(0), 100, (0.5, 0.6), margin=20)


@pytest.mark.parametrize(("side", "margin"), [(512, 50), (256, 25), (100, 10)])
def test_border_margin_is_50_px_at_512(side, margin):
    assert border_margin(side) == margin


@pytest.mark.parametrize("corner", [(0, 0), (255, 30), (24, 128), (128, 231)])
def test_a_hole_nearer_than_the_margin_is_b(corner):
    hole = np.zeros((256, 256), bool)
    hole[corner] = True
    assert border_class(hole) == "B"


@pytest.mark.parametrize("corner", [(25, 25), (230, 230), (128, 128)])
def test_a_hole_at_the_margin_is_n(corner):
    hole = np.zeros((256, 256), bool)
    hole[corner] = True
    assert border_class(hole) == "N"


def test_the_test_set_has_every_kind_and_holds_its_rules():
    rows = [(row, hole) for row, hole in test_set(64, 2, seed=3)]
    assert len(rows) == 24
    for row, hole in rows:
        low, high = RATIO_BINS[row.bin]
        assert low < hole.mean() <= high
        assert row.ratio == pytest.approx(hole.mean())
        margin = border_margin(64)
        inner = np.zeros_like(hole)
        inner[margin:-margin, margin:-margin] = True
        assert (hole & ~inner).any() == (row.border == "B")


def test_a_larger_test_set_begins_with_the_smaller(tmp_path):
    small = {row.file: hole for row, hole in test_set(48, 1, seed=3)}
    large = {row.file: hole for row, hole in test_set(48, 2, seed=3)}
    assert all(np.array_equal(hole, large[name]) for name, hole in small.items())


def test_files_and_index_are_the_test_set(tmp_path):
    calls = []
    write_test_set(tmp_path, 48, 1, 3, lambda: calls.append(1))
    index = json.loads((tmp_path / "index.json").read_text())
    assert len(calls) == len(index["holes"]) == 12
    for entry, (row, hole) in zip(index["holes"], test_set(48, 1, 3), strict=True):
        assert entry["file"] == row.file
        assert np.array_equal(np.asarray(Image.open(tmp_path / row.file)) > 0, hole)


def test_dilate_grows_a_square():
    hole = np.zeros((9, 9), bool)
    hole[4, 4] = hole[0, 0] = True
    grown = dilate(hole, 2)
    assert grown[2:7, 2:7].all()
    assert grown[:3, :3].all()
    assert grown.sum() == 25 + 9 - 1  # the squares share (2, 2)


def test_mask_files_are_white_for_hole(tmp_path):
    pixels = np.zeros((80, 100), np.uint8)
    pixels[20:60, 30:70] = 255
    pixels[0, 0] = 127
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    ratios = [load_hole(tmp_path / "mask.png", np.random.default_rng(seed), 64).mean() for seed in range(30)]
    assert 0.05 < np.mean(ratios) < 0.6
    assert len(set(ratios)) > 10


def test_contact_sheet_shows_all():
    sheet = contact_sheet([np.ones((8, 8), bool)] * 5, columns=3)
    assert sheet.size == (3 * 12 - 4, 2 * 12 - 4)
    assert (np.asarray(sheet) == 255).sum() == 5 * 64
