"""Where the islands of a hole are, and how much of the picture around them the network sees.

Client and server cut the same boxes, so every door gives the same pixels. Standard library only, because it runs inside
GIMP's Python: rows are read through `re`, `int` and slices, which pass over bytes in C.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

GAP = 16  # px; parts of a hole that are nearer than this, or up to twice as near in y, are one island
MIN_CONTEXT = 64  # px around an island, at the least
# A run of hole pixels; gaps below GAP are bridged, so a dotted hole has few runs.
_RUN = re.compile(rb"[^\0]+(?:\0{1,%d}[^\0]+)*" % (GAP - 1))


class Box(NamedTuple):
    """A rectangle of whole pixels, `x` from the left, `y` from the top."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column beyond the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row beyond the box."""
        return self.y + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def union(self, other: "Box") -> "Box":
        """The smallest box that holds both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        return Box(x, y, max(self.right, other.right) - x, max(self.bottom, other.bottom) - y)

    def intersects(self, other: "Box") -> bool:
        """Whether the boxes share a pixel."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom


class Job(NamedTuple):
    """One filling: pixels are taken from `target` alone; `context` is what the network sees."""

    target: Box
    context: Box


def islands(hole: bytes, width: int, height: int) -> list[Box]:
    """Find the parts of a hole that lie apart.

    Args:
        hole: `width` · `height` bytes, rows from the top; 0 = keep, any other value = fill.
        width: Of the picture, px.
        height: Of the picture, px.

    Returns:
        The tight box around each part, from the top; parts nearer than `GAP` px count as one. Boxes may overlap.

    Raises:
        ValueError: The hole's length is not `width` · `height`.
    """
    if width < 1 or height < 1 or len(hole) != width * height:
        raise ValueError(f"a hole of {width} × {height} px has {width * height} bytes, got {len(hole)}")
    hole = bytes(hole)
    found: list[Box] = []
    above: list[tuple[int, int, int]] = []  # runs of the strip above: first column, column beyond, island
    parent: list[int] = []
    zeros = bytes(width * GAP)
    for y in range(0, height, GAP):
        rows = min(GAP, height - y)
        strip = hole[y * width : (y + rows) * width]
        here: list[tuple[int, int, int]] = []
        if strip != zeros[: len(strip)]:
            for left, right in _runs(strip, width):
                parent.append(len(parent))
                found.append(_tight(strip, width, rows, y, left, right))
                here.append((left, right, len(parent) - 1))
        _join(above, here, parent)
        above = here
    boxes: dict[int, Box] = {}
    for index, box in enumerate(found):
        root = _root(parent, index)
        boxes[root] = boxes[root].union(box) if root in boxes else box
    return sorted(boxes.values(), key=lambda box: (box.y, box.x))


def context_box(target: Box, width: int, height: int, margin: int | None = None) -> Box:
    """Grow a box by what the network should see around it, clipped at the borders of the picture.

    Args:
        target: Box around a hole.
        width: Of the picture, px.
        height: Of the picture, px.
        margin: Pixels on each side; by default half the longer side of the hole, at least `MIN_CONTEXT`.

    Returns:
        The context.
    """
    if margin is None:
        margin = max(MIN_CONTEXT, (max(target.width, target.height) + 1) // 2)
    x, y = max(0, target.x - margin), max(0, target.y - margin)
    return Box(x, y, min(width, target.right + margin) - x, min(height, target.bottom + margin) - y)


def plan_jobs(hole: bytes, width: int, height: int, margin: int | None = None) -> list[Job]:
    """Cut a picture with a hole into the few jobs that fill it.

    Islands become one job where that is cheaper than filling them apart, or where their boxes overlap.

    Args:
        hole: `width` · `height` bytes, rows from the top; 0 = keep, any other value = fill.
        width: Of the picture, px.
        height: Of the picture, px.
        margin: As for `context_box`.

    Returns:
        Jobs whose targets are disjoint and cover the hole; none if there is no hole.
    """

    def job(target: Box) -> Job:
        return Job(target, context_box(target, width, height, margin))

    # Many specks: on a grid first, so that merging pairs stays quick.
    todo = [job(box) for box in _thin_out(islands(hole, width, height), width, height)]
    done: list[Job] = []
    while todo:
        current = todo.pop()
        for index, other in enumerate(done):
            union = job(current.target.union(other.target))
            cheaper = union.context.area <= current.context.area + other.context.area
            if cheaper or current.target.intersects(other.target):
                del done[index]
                todo.append(union)
                break
        else:
            done.append(current)
    if len(done) > 2:  # no pair is cheaper together, but all may be
        whole = job(functools.reduce(Box.union, (item.target for item in done)))
        if whole.context.area <= sum(item.context.area for item in done):
            return [whole]
    return sorted(done, key=lambda item: (item.target.y, item.target.x))


def crop(raster: bytes, width: int, box: Box, pixel_bytes: int = 1) -> bytes:
    """Copy a box out of a packed raster.

    Args:
        raster: Rows of `width` pixels.
        width: Of the raster, px.
        box: What to copy; within the raster.
        pixel_bytes: Bytes of a pixel.

    Returns:
        The packed rows of the box.
    """
    view, stride, row = memoryview(raster), width * pixel_bytes, box.width * pixel_bytes
    starts = range(box.y * stride + box.x * pixel_bytes, box.bottom * stride, stride)
    return b"".join([view[start : start + row] for start in starts[: box.height]])


def _runs(strip: bytes, width: int) -> list[tuple[int, int]]:
    """Columns of a strip of rows that have a hole, gaps bridged."""
    merged = 0
    for start in range(0, len(strip), width):
        merged |= int.from_bytes(strip[start : start + width], "little")
    return [match.span() for match in _RUN.finditer(merged.to_bytes(width, "little"))]


def _tight(strip: bytes, width: int, rows: int, y: int, left: int, right: int) -> Box:
    """The run's box within its strip, without its empty rows."""
    zeros = bytes(right - left)
    filled = [row for row in range(rows) if strip[row * width + left : row * width + right] != zeros]
    return Box(left, y + filled[0], right - left, filled[-1] - filled[0] + 1)


def _join(above: Sequence[tuple[int, int, int]], here: Sequence[tuple[int, int, int]], parent: list[int]) -> None:
    """Make runs of two strips one island where they touch or nearly do; both are sorted by column."""
    i = j = 0
    while i < len(above) and j < len(here):
        first, second = above[i], here[j]
        if first[0] < second[1] + GAP and second[0] < first[1] + GAP:
            a, b = _root(parent, first[2]), _root(parent, second[2])
            parent[max(a, b)] = min(a, b)
        if first[1] < second[1]:
            i += 1
        else:
            j += 1


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _thin_out(boxes: Iterable[Box], width: int, height: int, most: int = 64) -> list[Box]:
    """Merge the boxes of each cell of a coarse grid while there are more than `most`."""
    boxes = list(boxes)
    cell = 4 * MIN_CONTEXT
    while len(boxes) > most and cell < 2 * max(width, height):
        cells: dict[tuple[int, int], Box] = {}
        for box in boxes:
            key = (box.x + box.right) // 2 // cell, (box.y + box.bottom) // 2 // cell
            cells[key] = cells[key].union(box) if key in cells else box
        boxes, cell = list(cells.values()), 2 * cell
    return boxes
