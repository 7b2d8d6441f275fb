"""Seeded irregular holes (§4.1): streaks, free shapes and occlusions, by hole-to-image ratio and border class.

The paper takes its masks from occlusion between video frames; those files are not public everywhere, so ours are drawn.
Here a hole is a `bool` array `(side, side)`, True = fill.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Hole = NDArray[np.bool_]

RATIO_BINS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))  # each (low, high], table 1


def random_hole(rng: np.random.Generator, side: int, ratio: tuple[float, float] = (0.01, 0.6), margin: int = 0) -> Hole:
    """Draw an irregular hole of a wanted size.

    Args:
        rng: Source of all randomness.
        side: Height and width, px.
        ratio: Hole-to-image ratio, (low, high]; the target in between is uniform.
        margin: Ring along the border that stays free of hole, px.

    Returns:
        `(side, side)` bool, low < ratio ≤ high.

    Raises:
        ValueError: The margin leaves too little room for the ratio, or the picture too few pixels.
    """
    low, high = ratio
    room = max(side - 2 * margin, 0) ** 2 / side**2
    if not 0 <= low < high <= 1 or math.floor(high * side**2) <= low * side**2 or room <= low:
        raise ValueError(f"no hole of ratio ({low}, {high}] fits into {side}×{side} px with a margin of {margin} px")
    target = rng.uniform(low, min(high, room))
    hole = np.zeros((side, side), bool)
    scale = math.sqrt(target)
    while (found := hole.mean()) <= low or found < 0.9 * target:
        drawn = hole | _keep_margin(_piece(rng, side, scale), margin)
        if drawn.mean() <= high:
            hole = drawn
        if drawn.mean() > high or scale * side < 4:
            scale *= 0.7
        if scale * side < 2:  # pieces of single pixels would take for ever
            return _top_up(rng, hole, low, high, margin)
    return hole


def border_class(hole: Hole) -> str:
    """Table 1's N or B: N holes keep 50 px (at side 512) from the border, B holes come closer."""
    return "N" if not (hole & ~_keep_margin(np.ones_like(hole), border_margin(hole.shape[0]))).any() else "B"


def border_margin(side: int) -> int:
    """Ring that an N hole keeps free, px: 50 at 512, in proportion at other sides, rounded up."""
    return math.ceil(50 * side / 512)


@dataclass(frozen=True)
class TestHole:
    """One row of the index of a test set."""

    file: str  # below the set's folder
    ratio: float  # hole pixels ÷ all pixels
    bin: int  # index into RATIO_BINS
    border: str  # "N" or "B"


def test_set(side: int, count: int, seed: int) -> Iterator[tuple[TestHole, Hole]]:
    """Draw table 1's test holes: 6 ratios × {N, B} × `count`, each from a seed of its own.

    Args:
        side: Height and width, px.
        count: Holes of each of the twelve kinds (the paper: 1000).
        seed: Same seed, same holes, whatever `count` is.

    Yields:
        Index row and hole.
    """
    for index, bounds in enumerate(RATIO_BINS):
        for border in ("N", "B"):
            for number in range(count):
                hole = test_hole(side, index, border, number, seed)
                row = TestHole(f"{border}{index + 1}/{number:04d}.png", float(hole.mean()), index, border)
                assert bounds[0] < row.ratio <= bounds[1]
                assert border_class(hole) == border
                yield row, hole


def test_hole(side: int, index: int, border: str, number: int, seed: int) -> Hole:
    """Draw one hole of the test set: number `number` of RATIO_BINS[`index`] and border class "N" or "B"."""
    rng = np.random.default_rng((seed, index, border == "B", number))
    return _of_class(rng, side, RATIO_BINS[index], border)


def write_test_set(folder: Path, side: int, count: int, seed: int, progress: Callable[[], object]) -> None:
    """Write `test_set` as 1-bit PNG files (white = hole) with `index.json` beside them."""
    rows = []
    for row, hole in test_set(side, count, seed):
        path = folder / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(hole).save(path)
        rows.append(asdict(row))
        progress()
    index = {"side": side, "count": count, "seed": seed, "hole": "white", "bins": RATIO_BINS, "holes": rows}
    (folder / "index.json").write_text(json.dumps(index, indent=1))


def load_hole(path: Path, rng: np.random.Generator, side: int) -> Hole:
    """Read a mask file (≥ 128 = hole) and vary it as the paper does: dilation, rotation, crop, mirror."""
    with Image.open(path) as file:
        picture = file.convert("L").point(lambda value: 255 * (value >= 128))
    picture = picture.rotate(rng.uniform(0, 360), Image.Resampling.NEAREST)
    edge = min(picture.size)
    cut = max(1, round(edge * rng.uniform(0.5, 1)))
    x, y = int(rng.integers(picture.width - cut + 1)), int(rng.integers(picture.height - cut + 1))
    picture = picture.resize((side, side), Image.Resampling.NEAREST, (x, y, x + cut, y + cut))
    hole = dilate(np.asarray(picture) > 0, int(rng.choice([0, 0, 1, 2, 4])))
    return np.ascontiguousarray(hole[:, ::-1]) if rng.random() < 0.5 else hole


def dilate(hole: Hole, radius: int) -> Hole:
    """Grow a hole by `radius` px in each direction, diagonals included (a square of 2·radius + 1)."""
    grown = hole.copy()
    for step in range(1, radius + 1):
        grown[step:] |= hole[:-step]
        grown[:-step] |= hole[step:]
    rows = grown.copy()
    for step in range(1, radius + 1):
        grown[:, step:] |= rows[:, :-step]
        grown[:, :-step] |= rows[:, step:]
    return grown


def contact_sheet(holes: list[Hole], columns: int) -> Image.Image:
    """Lay holes out in rows, white on black, with a gray gap."""
    side, gap = holes[0].shape[0], 4
    rows = math.ceil(len(holes) / columns)
    sheet = Image.new("L", (columns * (side + gap) - gap, rows * (side + gap) - gap), 96)
    for number, hole in enumerate(holes):
        corner = (number % columns * (side + gap), number // columns * (side + gap))
        sheet.paste(Image.fromarray(hole.astype(np.uint8) * 255), corner)
    return sheet


def _of_class(rng: np.random.Generator, side: int, bounds: tuple[float, float], border: str) -> Hole:
    margin = border_margin(side) if border == "N" else 0
    while True:
        hole = random_hole(rng, side, bounds, margin)
        if border_class(hole) == border:
            return hole


def _piece(rng: np.random.Generator, side: int, scale: float) -> Hole:
    """Draw one piece of roughly `scale · side` px across."""
    draw = (_streak, _shape, _occlusion)[rng.choice(3, p=[0.45, 0.25, 0.3])]
    canvas = Image.new("L", (side, side))
    draw(rng, canvas, scale * side)
    return dilate(np.asarray(canvas) > 0, int(rng.choice([0, 0, 0, 1, 2, 4])))


def _streak(rng: np.random.Generator, canvas: Image.Image, size: float) -> None:
    """A brush stroke that wanders: a scratch, a wire, a limb."""
    draw = ImageDraw.Draw(canvas)
    x, y = rng.uniform(0, canvas.width, 2)
    angle, width = rng.uniform(0, 2 * math.pi), max(1, round(size * rng.uniform(0.03, 0.3)))
    for _ in range(rng.integers(2, 9)):
        angle += rng.normal(0, 0.8)
        length = size * rng.uniform(0.15, 0.5)
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        draw.line([(x, y), end], 255, width)
        draw.ellipse([end[0] - width / 2, end[1] - width / 2, end[0] + width / 2, end[1] + width / 2], 255)
        x, y = end


def _shape(rng: np.random.Generator, canvas: Image.Image, size: float) -> None:
    """A closed shape whose radius varies smoothly with the angle."""
    center = rng.uniform(0, canvas.width, 2)
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    radius = np.ones_like(angles)
    for wave in range(2, 6):
        radius += rng.uniform(0, 0.5 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * math.pi))
    radius *= size * rng.uniform(0.15, 0.45)
    stretch, turn = rng.uniform(0.4, 1), rng.uniform(0, 2 * math.pi)
    u, v = radius * np.cos(angles), radius * np.sin(angles) * stretch
    points = np.stack([u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)], 1) + center
    ImageDraw.Draw(canvas).polygon([(float(px), float(py)) for px, py in points], 255)


def _occlusion(rng: np.random.Generator, canvas: Image.Image, size: float) -> None:
    """What a moving thing uncovers: a shape, warped by a smooth random flow, minus itself."""
    for _ in range(rng.integers(1, 4)):
        _shape(rng, canvas, size * 1.4)
    shape = np.asarray(canvas)
    grid = int(rng.integers(3, 7))
    flow = rng.normal(0, size * 0.12, (2, grid, grid)).astype(np.float32)
    shift = rng.normal(0, size * 0.12, 2)
    dx, dy = (
        np.asarray(Image.fromarray(f).resize(canvas.size, Image.Resampling.BICUBIC)) + s
        for f, s in zip(flow, shift, strict=True)
    )
    rows, columns = np.indices(shape.shape)
    limit = canvas.width - 1
    moved = shape[
        np.clip(rows + dy, 0, limit).astype(np.intp),
        np.clip(columns + dx, 0, limit).astype(np.intp),
    ]
    canvas.paste(Image.fromarray(np.where(moved > 0, 0, shape)))


def _keep_margin(hole: Hole, margin: int) -> Hole:
    if margin:
        hole = hole.copy()
        hole[:margin], hole[-margin:], hole[:, :margin], hole[:, -margin:] = False, False, False, False
    return hole


def _top_up(rng: np.random.Generator, hole: Hole, low: float, high: float, margin: int) -> Hole:
    """Add single pixels until the ratio is above `low`: the last resort for tiny pictures and narrow bins."""
    free = np.argwhere(_keep_margin(~hole, margin))
    wanted = math.floor((low + high) / 2 * hole.size) if low > 0 else math.floor(high * hole.size)
    wanted = max(wanted, math.floor(low * hole.size) + 1) - int(hole.sum())
    for row, column in rng.permutation(free)[: max(wanted, 0)]:
        hole[row, column] = True
    return hole
