import numpy as np
import pytest
from pconv_train.curriculum import draw_difficulty, draw_edges, small_hole


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_an_edge_crosses_most_small_holes(difficulty):
    crossed = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        picture, hole = draw_edges(rng, 64, difficulty), small_hole(rng, 64, difficulty)
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert 0 < hole.sum() < 64 * 64 / 3
        crossed.append(np.ptp(picture[hole].astype(int), axis=0).max() > 20)
    assert np.mean(crossed) > 0.7


def test_the_easiest_hole_is_in_the_middle_and_the_hardest_anywhere_near():
    easy = {small_hole(np.random.default_rng(seed), 64, 0.0).tobytes() for seed in range(5)}
    assert len(easy) == 1
    rows = [np.argwhere(small_hole(np.random.default_rng(seed), 64, 1.0)).mean(0) for seed in range(40)]
    assert np.ptp(rows, axis=0).min() > 8


def test_samples_become_harder_until_seven_tenths_of_the_curriculum():
    hardest = [
        max(draw_difficulty(np.random.default_rng(seed), done) for seed in range(99)) for done in (0, 0.35, 0.7, 1)
    ]
    assert hardest == pytest.approx([0, 0.5, 1, 1], abs=0.02)
