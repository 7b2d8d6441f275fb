"""How long a fill takes, by the size of the hole and by the size of the picture: cost follows the hole."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from pconv import fold_batch_norm, inpaint, load_checkpoint
from pconv_server.doors import ProcessDoor, fill
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from pconv_server.pictures import Photo

from bench.measure import Row, interleave, milliseconds, ratio

HOLES = (30, 50, 100, 200, 300, 500, 800)  # px, side of a round hole in the largest picture
SIDES = (600, 1200, 2400, 4900)  # px, of the picture around a hole of 300 px; the last has 24 megapixels
PLOT = Path("build/bench/fill-time.svg")


def rows(rounds: int) -> Iterator[Row]:
    """Measure the whole way of `pconv inpaint` but for files, with the weights that ship; writes two plots."""
    with tempfile.TemporaryDirectory() as nothing:
        door = ProcessDoor(Engine(models=ModelFolder(Path(nothing))))
        fills: dict[str, Callable[[], object]] = {}
        for width in HOLES:
            fills[f"hole {width}"] = partial(_fill, door, Photo(_picture(SIDES[-1])), _disc(SIDES[-1], width))
        for side in SIDES:
            fills[f"picture {side}"] = partial(_fill, door, Photo(_picture(side)), _disc(side, 300))
        seconds = interleave(fills, max(3, rounds // 3))
    for name, values in seconds.items():
        what, number = name.split()
        where = f"a {number}-px hole in 24 megapixels" if what == "hole" else f"a 300-px hole in {number}²"
        yield milliseconds(f"fill of {where}", values)
    smallest, largest = f"picture {2 * SIDES[0]}", f"picture {SIDES[-1]}"
    yield ratio("fill of 300 px: 24 ÷ 1.4 megapixels", seconds[largest], seconds[smallest])
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    PLOT.write_text(_plots({name: median(values) for name, values in seconds.items()}), encoding="utf-8")
    yield Row("plots", str(PLOT))
    yield _tile_seam(256)


def _tile_seam(tile: int) -> Row:
    """Compare gradients across the edges of tiles, within the hole, with those at the same places of one window."""
    network = fold_batch_norm(load_checkpoint(ModelFolder().find("", "inpaint").path))
    image = torch.from_numpy(_picture(1000)).permute(2, 0, 1)[None] / 255
    hole = torch.zeros(1, 1, 1000, 1000)
    for start in range(10, 1000, 60):
        hole[..., start : start + 25, :] = 1
        hole[..., start : start + 25] = 1
    found = []
    for side in (tile, 4000):
        filled = inpaint(network, image, hole, tile=side)
        across = [(filled[..., x] - filled[..., x - 1]).abs() for x in range(tile, 1000, tile)]
        within = [(hole[..., x] * hole[..., x - 1]).expand_as(across[0]) > 0 for x in range(tile, 1000, tile)]
        found.append(torch.cat([a[w] for a, w in zip(across, within, strict=True)]).mean().item())
    value = found[0] / found[1]
    return Row(f"seam of windows: tiles of {tile} px ÷ one window", f"{value:.3f}", "≤ 1.05", value <= 1.05)


def _fill(door: ProcessDoor, photo: Photo, hole: NDArray[np.bool_]) -> None:
    fill(door, photo, hole, "", None, lambda _: None)


def _picture(side: int) -> NDArray[np.uint8]:
    tile: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    times = -(-side // tile.shape[0])
    return np.ascontiguousarray(np.tile(tile, (times, times, 1))[:side, :side])


def _disc(side: int, width: int) -> NDArray[np.bool_]:
    y, x = np.ogrid[:side, :side]
    return np.asarray((y - side / 2) ** 2 + (x - side / 2) ** 2 < (width / 2) ** 2)


def _plots(seconds: Mapping[str, float]) -> str:
    """Draw seconds against the hole's width and against the picture's megapixels, side by side."""
    panels: list[tuple[str, list[tuple[float, float]]]] = [
        ("width of the hole, px (picture of 24 megapixels)", [(w, seconds[f"hole {w}"]) for w in HOLES]),
        ("picture, megapixels (hole of 300 px)", [(s * s / 1e6, seconds[f"picture {s}"]) for s in SIDES]),
    ]
    top = 1.15 * max(seconds.values())
    drawn = "".join(_panel(60 + 430 * number, *panel, top) for number, panel in enumerate(panels))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 340" font-family="sans-serif" font-size="13">'
        f'<rect width="900" height="340" fill="white"/>{drawn}</svg>\n'
    )


def _panel(left: int, label: str, points: list[tuple[float, float]], top: float) -> str:
    """One plot of 360 × 240 px, its origin at (left, 280)."""
    right = 1.05 * max(x for x, _ in points)
    places = [(left + 360 * x / right, 280 - 240 * y / top) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f'<path d="M{left} 40V280H{left + 360}" fill="none" stroke="#888"/>',
        f'<polyline points="{line}" fill="none" stroke="#2a6fdb" stroke-width="2"/>',
        f'<text x="{left + 180}" y="325" text-anchor="middle">{label}</text>',
        f'<text x="{left}" y="28" text-anchor="middle">seconds</text>',
    ]
    for (x, y), (value, took) in zip(places, points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#2a6fdb"/>')
        parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{took:.2f}</text>')
        parts.append(f'<text x="{x:.1f}" y="298" text-anchor="middle" fill="#666" font-size="11">{value:.3g}</text>')
    return "".join(parts)
