"""Sheets of pictures: what each method got and gave, its worst cases, the dilation study, an ablation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pconv_train.evaluation.measure import Metric
from pconv_train.evaluation.methods import FACTOR, Picture
from pconv_train.evaluation.pairs import InpaintPair, Pair, Problem, column_name
from pconv_train.evaluation.run import Run, picture_path

T = TypeVar("T")
_GAP, _HEAD, _MARGIN = 6, 26, 130  # px between tiles, of the title line, of the row labels
_CROP = 160  # px of an enlarged picture that are shown


@dataclass(frozen=True)
class Figure:
    """A sheet with its title and what there is to see."""

    file: str
    title: str
    caption: str
    sheet: Image.Image


@dataclass(frozen=True)
class Gallery:
    """The pictures of a run."""

    folder: Path
    run: Run
    methods: Sequence[str]  # names that have results
    checkpoints: Sequence[str]  # those of them that are ours

    def row(self, pair: Pair, methods: Sequence[str], box: tuple[int, int, int] | None = None) -> list[Picture | None]:
        """Show input, each method and truth, cut to (left, top, side) if given."""
        problem = pair.load()
        if problem.hole is None and box is None:
            box = _center(problem.target)
        pictures = [show_input(problem), *(self._result(name, pair) for name in methods), problem.target]
        return [picture if box is None or picture is None else _cut(picture, box) for picture in pictures]

    def _result(self, method: str, pair: Pair) -> Picture | None:
        record = self.run.records.get((method, pair))
        path = picture_path(self.folder, record["key"]) if record else None
        if path is None or not path.exists():  # failed, or deleted since
            return None
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))


def draw_figures(
    gallery: Gallery, pairs: Sequence[Pair], study: Sequence[Pair], metrics: Sequence[Metric]
) -> list[Figure]:
    """Draw every figure that the run has results for."""
    titles = ["input", *gallery.methods, "truth"]
    rows = [(pair.column, gallery.row(pair, gallery.methods)) for pair in _examples(pairs)]
    caption = "The first photos of the draw: none is chosen by hand."
    figures = [Figure("examples.jpg", "Side by side", caption, sheet(rows, titles))]
    metric = next((metric for metric in metrics if metric.key == "perceptual"), metrics[0])
    holes = ", each with its worst hole (fig. 11)" if pairs and isinstance(pairs[0], InpaintPair) else ""
    for number, name in enumerate(gallery.checkpoints):
        for kind, found in choose_ranks(rank_pairs(gallery.run, name, pairs, metric)).items():
            rows = [(f"{pair.column}\n{value:.4f}", gallery.row(pair, gallery.methods)) for value, pair in found]
            caption = f"Photos where {name} does {kind} by {metric.label}{holes}."
            figures.append(Figure(f"{kind}-{number}.jpg", f"{name}: {kind}", caption, sheet(rows, titles)))
    studied = [name for name in gallery.methods if any((name, pair) in gallery.run.records for pair in study)]
    if studied:
        rows = [(pair.column, gallery.row(pair, studied)) for pair in study]
        caption = (
            "One picture, its hole grown: it should get worse gracefully (fig. 10). Widths are in proportion to 512 px."
        )
        figures.append(Figure("dilation.jpg", "Dilation study", caption, sheet(rows, ["input", *studied, "truth"])))
    return figures + _ablation(gallery, pairs)


def choose_ranks(ranked: Sequence[T], count: int = 6) -> dict[str, Sequence[T]]:
    """Take the worst, the median and the best of a ranking, the worst first; of a short one fewer of each."""
    if len(ranked) < 3:
        return {"worst": ranked} if ranked else {}
    count = min(count, len(ranked) // 3)
    middle = (len(ranked) - count) // 2
    return {"worst": ranked[:count], "median": ranked[middle : middle + count], "best": ranked[-count:]}


def rank_pairs(run: Run, method: str, pairs: Sequence[Pair], metric: Metric) -> list[tuple[float, Pair]]:
    """Rank photos by the pair that a method does worst on, the worst first."""
    found = [
        (run.records[method, pair]["figures"][metric.key], pair)
        for pair in pairs
        if (method, pair) in run.records and run.records[method, pair]["figures"].get(metric.key) is not None
    ]
    found.sort(key=lambda item: item[0], reverse=metric.better == "lower")
    first = {pair.photo: (value, pair) for value, pair in reversed(found)}  # a photo's worst comes last, and stays
    return sorted(first.values(), key=lambda item: found.index(item))


def sheet(rows: Sequence[tuple[str, Sequence[Picture | None]]], titles: Sequence[str], side: int = 192) -> Image.Image:
    """Lay pictures out as a table with titles and row labels; a missing one is a gray tile."""
    width = _MARGIN + len(titles) * (side + _GAP)
    canvas = Image.new("RGB", (width, _HEAD + len(rows) * (side + _GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)  # it has no en dash
    for column, title in enumerate(titles):
        draw.text((_MARGIN + column * (side + _GAP), 5), title[: side // 8].replace("–", "-"), "black", font)
    for number, (label, pictures) in enumerate(rows):
        top = _HEAD + number * (side + _GAP)
        draw.multiline_text((6, top + 6), label.replace("–", "-"), "black", font)
        for column, picture in enumerate(pictures):
            left = _MARGIN + column * (side + _GAP)
            if picture is None:
                canvas.paste((200, 200, 200), (left, top, left + side, top + side))
            else:
                kind = Image.Resampling.NEAREST if max(picture.shape[:2]) <= side else Image.Resampling.LANCZOS
                canvas.paste(Image.fromarray(picture).resize((side, side), kind), (left, top))
    return canvas


def show_input(problem: Problem) -> Picture:
    """Paint the hole white; or enlarge the reduced picture without interpolation."""
    if problem.hole is None:
        return np.repeat(np.repeat(problem.image, FACTOR, 0), FACTOR, 1)
    return np.where(problem.hole[..., None], np.uint8(255), problem.image)


def _examples(pairs: Sequence[Pair]) -> list[Pair]:
    """Take one pair of each column, of another photo each time; or a few of each set."""
    if isinstance(pairs[0], InpaintPair):
        photos = list(dict.fromkeys(pair.photo for pair in pairs))
        columns = list(dict.fromkeys(pair.column for pair in pairs))
        wanted = {(photos[number % len(photos)], column) for number, column in enumerate(columns)}
        chosen = [pair for pair in pairs if (pair.photo, pair.column) in wanted]
        return sorted(chosen, key=lambda pair: columns.index(pair.column))
    sets: dict[str, list[Pair]] = {}
    for pair in pairs:
        sets.setdefault(pair.column, []).append(pair)
    return [pair for found in sets.values() for pair in found[:5]]


def _ablation(gallery: Gallery, pairs: Sequence[Pair]) -> list[Figure]:
    """Show checkpoints alone, enlarged where the hole is: what a term of the loss does (fig. 3)."""
    chosen = [pair for pair in pairs if isinstance(pair, InpaintPair) and pair.column == column_name(2, "N")][:4]
    if len(gallery.checkpoints) < 2 or not chosen:
        return []
    rows = [(pair.photo.stem, gallery.row(pair, gallery.checkpoints, _hole_box(pair))) for pair in chosen]
    titles = ["input", *gallery.checkpoints, "truth"]
    caption = "Checkpoints alone, enlarged where the hole is thickest (fig. 3)."
    return [Figure("ablation.jpg", "Checkpoints compared", caption, sheet(rows, titles, 256))]


def _hole_box(pair: InpaintPair) -> tuple[int, int, int]:
    """Find the window of half the side, on a coarse lattice, with the most hole."""
    hole = pair.load().hole
    assert hole is not None
    half, step = pair.side // 2, max(1, pair.side // 16)
    corners = [(left, top) for top in range(0, half + 1, step) for left in range(0, half + 1, step)]
    left, top = max(corners, key=lambda corner: hole[corner[1] : corner[1] + half, corner[0] : corner[0] + half].sum())
    return left, top, half


def _center(picture: Picture) -> tuple[int, int, int]:
    height, width = picture.shape[:2]
    side = min(height, width, _CROP)
    return (width - side) // 2, (height - side) // 2, side


def _cut(picture: Picture, box: tuple[int, int, int]) -> Picture:
    left, top, side = box
    return picture[top : top + side, left : left + side]
