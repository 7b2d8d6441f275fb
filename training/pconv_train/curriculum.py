"""Easy samples to begin with: drawn edges, and small holes that grow as training goes on.

A network that sees photographs with wide holes from the start hardly learns to continue an edge: near the harmonic
fill, which the correction of `pconv.edge` gives it for nothing, there is next to no gradient (training/RECIPE.md,
"Edges, and what keeps them from being learnt"). Hence a curriculum (Bengio et al. 2009,
https://doi.org/10.1145/1553374.1553380).
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pconv_train.holes import Hole

DRAWN = 0.6  # share of drawn pictures; the others are photographs
CELL = 64  # px; side of a drawn picture, larger samples have several
_FINER = 4  # edges are drawn so many times as large, then reduced


def draw_difficulty(rng: np.random.Generator, done: float) -> float:
    """Draw how hard a sample is, 0 to 1, when `done` of the curriculum, 0 to 1, is over: anything after 70 % of it."""
    return float(math.sqrt(rng.random()) * min(1.0, done / 0.7))


def small_hole(rng: np.random.Generator, side: int, difficulty: float) -> Hole:
    """Draw a hole that an edge may cross: from 8×8 px in the middle to a turned box or a bent stroke off it.

    Args:
        rng: Source of all randomness.
        side: Height and width of the picture, px.
        difficulty: 0 to 1; the hardest is up to 16 px wide and 28 px long, strokes half the picture longer.

    Returns:
        `(side, side)` bool, True = fill.
    """
    width, length = 8 + 8 * difficulty * rng.random(), 8 + 20 * difficulty * rng.random()
    middle = side / 2 + rng.uniform(-8, 8, 2) * difficulty
    across, along = _axes(side, middle, math.pi * difficulty * rng.random())
    if difficulty > 0.3 and rng.random() < 0.4:
        across = across + rng.uniform(-0.02, 0.02) * along**2
        length += side * rng.random()
    hole: Hole = (np.abs(across) < width / 2) & (np.abs(along) < length / 2)
    return hole


def draw_edges(rng: np.random.Generator, side: int, difficulty: float) -> NDArray[np.uint8]:
    """Draw an edge or a band near the middle, harder ones bent, shaded, noisy or two of them.

    Args:
        rng: Source of all randomness.
        side: Height and width, px.
        difficulty: 0 to 1; 3 to 9 px off the middle at most.

    Returns:
        `(side, side, 3)` uint8, sRGB.
    """
    fine = np.empty((side * _FINER, side * _FINER, 3), np.uint8)
    fine[:] = rng.integers(256, size=3)
    for _ in range(1 if rng.random() < 1 - difficulty / 2 else 2):
        angle = rng.uniform(0, 2 * math.pi)
        if rng.random() < difficulty / 4:
            angle = math.pi / 2 * rng.integers(4)
        across, along = (axis / _FINER for axis in _axes(side * _FINER, np.full(2, side * _FINER / 2), angle))
        across = across - rng.uniform(-1, 1) * (3 + 6 * difficulty)
        if difficulty > 0.3 and rng.random() < 0.3:
            across = across + rng.uniform(-0.01, 0.01) * along**2
        band = np.abs(across) < rng.uniform(3, 14) / 2
        fine[across > 0 if rng.random() < 0.5 else band] = rng.integers(256, size=3)
    picture = Image.fromarray(fine).reduce(_FINER)
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    pixels = np.asarray(picture, np.float64)
    if rng.random() < 0.7 * difficulty:
        slope, _ = _axes(side, np.full(2, side / 2), rng.uniform(0, 2 * math.pi))
        pixels = pixels + slope[..., None] / side * rng.normal(0, 40, 3)
    if rng.random() < 0.7 * difficulty:
        pixels = pixels + rng.normal(0, rng.uniform(0, 10), (side, side, 1))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def lay_out_cells(
    rng: np.random.Generator, photo: NDArray[np.uint8], difficulty: float
) -> tuple[NDArray[np.uint8], Hole]:
    """Put drawn edges in place of some cells of a photo, and a small hole in each: one is too little in a large one.

    Args:
        rng: Source of all randomness.
        photo: `(side, side, 3)` uint8; a cell that `CELL` leaves over at its border is cut off.
        difficulty: 0 to 1, of all cells.

    Returns:
        Picture `(side, side, 3)` uint8, and hole `(side, side)` bool.
    """
    target, hole = photo.copy(), np.zeros(photo.shape[:2], bool)
    places = range(0, photo.shape[0], CELL)
    for top, left in itertools.product(places, places):
        cell = slice(top, top + CELL), slice(left, left + CELL)
        height, width = hole[cell].shape
        if rng.random() < DRAWN:
            target[cell] = draw_edges(rng, CELL, difficulty)[:height, :width]
        hole[cell] = small_hole(rng, CELL, difficulty)[:height, :width]
    return target, hole


def _axes(side: int, middle: NDArray[np.float64], angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each pixel's place across and along a line through `middle` at an angle, px."""
    y, x = np.mgrid[:side, :side] + 0.5 - middle[:, None, None]
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
