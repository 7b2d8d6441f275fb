"""Selections of GIMP: read on a layer, reshaped, and put in place of another for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gi.repository import Gegl, Gimp
from pconv_api import Box
from pconv_api.geometry import crop
from pixels import clear_pixels, name_of, read

SELECTION = "Y u8"  # a selection is linear: "Y' u8" would bend it


def selection_on(image: Any, layer: Any) -> "tuple[Box, bytes] | None":
    """Read the selection where it meets a layer.

    Returns:
        The smallest box that holds it, in coordinates of the layer, and its values there, 0…255; None: nothing is
        selected there.
    """
    if Gimp.Selection.is_empty(image):
        return None
    meets, x, y, width, height = layer.mask_intersect()
    if not meets or width < 1 or height < 1:
        return None
    _, left, top = layer.get_offsets()
    box = Box(x, y, width, height)
    values = read(image.get_selection(), Box(x + left, y + top, width, height), SELECTION)
    return (box, values) if values.strip(b"\0") else None


def transparent_part(layer: Any) -> "tuple[Box, bytes] | None":
    """The transparent pixels of a layer as a selection: 255 where alpha is 0; None: there are none."""
    box = Box(0, 0, layer.get_width(), layer.get_height())
    values = clear_pixels(layer, box)
    return (box, values) if values.strip(b"\0") else None


def reshaped(layer: Any, part: "tuple[Box, bytes]", grow: int, feather: float) -> "tuple[Box, bytes]":
    """Grow and feather a selection as GIMP does, without touching the image."""
    box, values = part
    width, height = layer.get_width(), layer.get_height()
    scratch = Gimp.Image.new(width, height, Gimp.ImageBaseType.GRAY)
    try:
        _set_selection(scratch, box, values)
        if grow:
            Gimp.Selection.grow(scratch, grow)
        if feather:
            Gimp.Selection.feather(scratch, feather)
        _, _, left, top, right, bottom = Gimp.Selection.bounds(scratch)
        grown = Box(left, top, right - left, bottom - top)
        return grown, read(scratch.get_selection(), grown, SELECTION)
    finally:
        scratch.delete()


def on_canvas(image: Any, layer: Any, part: "tuple[Box, bytes]") -> "tuple[Box, bytes] | None":
    """Cut off what lies beyond the canvas, where nothing can be selected; None: all of it."""
    box, values = part
    _, left, top = layer.get_offsets()
    x, y = max(box.x, -left), max(box.y, -top)
    width = min(box.right, image.get_width() - left) - x
    height = min(box.bottom, image.get_height() - top) - y
    if width < 1 or height < 1:
        return None
    inner = crop(values, box.width, Box(x - box.x, y - box.y, width, height))
    return (Box(x, y, width, height), inner) if inner.strip(b"\0") else None


@contextmanager
def selected(image: Any, layer: Any, part: "tuple[Box, bytes] | None") -> Iterator[None]:
    """Have something else selected for a moment. Leaves neither a trace nor an undo step.

    Args:
        image: Whose selection.
        layer: Whose coordinates `part` has.
        part: Box and values 0…255; None: the selection is right as it is.
    """
    if part is None:
        yield
        return
    box, values = part
    _, left, top = layer.get_offsets()
    whole = Box(0, 0, image.get_width(), image.get_height())
    before = read(image.get_selection(), whole)
    try:
        _clear_selection(image, whole)
        _set_selection(image, Box(box.x + left, box.y + top, box.width, box.height), values)
        yield
    finally:
        buffer = image.get_selection().get_buffer()
        buffer.set(Gegl.Rectangle.new(*whole), name_of(image.get_selection()), before)
        _selection_changed(image, buffer, whole)


def _set_selection(image: Any, box: Box, values: bytes) -> None:
    buffer = image.get_selection().get_buffer()
    buffer.set(Gegl.Rectangle.new(*box), SELECTION, values)
    _selection_changed(image, buffer, box)


def _clear_selection(image: Any, whole: Box) -> None:
    _set_selection(image, whole, bytes(whole.area))


def _selection_changed(image: Any, buffer: Any, box: Box) -> None:
    buffer.flush()
    image.get_selection().update(*box)
