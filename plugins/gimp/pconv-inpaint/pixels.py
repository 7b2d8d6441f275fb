"""Pixels, selections and layers of GIMP: the one module that knows about buffers and formats."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("Babl", "0.1")
from failures import Refusal  # noqa: E402
from gi.repository import Babl, Gegl, Gimp  # noqa: E402
from pconv_api import Box  # noqa: E402
from pconv_api.geometry import crop  # noqa: E402

SELECTION = "Y u8"  # a selection is linear: "Y' u8" would bend it


class Format(NamedTuple):
    """How the pixels of a layer travel, and how they are written."""

    channels: int  # on the wire: 1 or 3
    sample: str  # "u8", "u16" or "float"
    name: str  # of the format to read and write
    alpha: bool  # the named format has alpha, which does not travel
    merges_exactly: bool  # a merge leaves unselected pixels as they are to the last bit

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return {"u8": 1, "u16": 2, "float": 4}[self.sample]


def format_of(layer: Any) -> Format:
    """Choose how a layer's pixels travel.

    Samples of 8 and 16 bits that are not linear travel as they are stored: nothing is converted, so nothing is lost,
    whatever the colour profile. All else travels as floats, which keep HDR and colours outside of sRGB.
    """
    model, component = Babl.format_get_encoding(layer.get_format()).rsplit(" ", 1)
    gray = model.startswith("Y")
    if component in ("u8", "u16") and ("'" in model or "~" in model):
        return Format(1 if gray else 3, component, _name(layer), model.endswith("A"), True)
    return Format(1 if gray else 3, "float", "Y' float" if gray else "R'G'B' float", False, component in ("u8", "u16"))


def read(drawable: Any, box: Box, name: "str | None" = None) -> bytes:
    """Read packed rows of a box, in coordinates of the drawable; zeros outside of it."""
    rectangle = Gegl.Rectangle.new(box.x, box.y, box.width, box.height)
    return bytes(drawable.get_buffer().get(rectangle, 1.0, name, Gegl.AbyssPolicy.NONE))


def read_pixels(layer: Any, box: Box, kind: Format) -> bytes:
    """Read what travels: the colours of a box, without alpha."""
    data = read(layer, box, kind.name)
    return without_alpha(data, kind) if kind.alpha else data


def write_pixels(buffer: Any, box: Box, data: bytes, kind: Format) -> None:
    """Write the colours of a box, opaque; the inverse of `read_pixels`."""
    expected = box.area * kind.channels * kind.sample_bytes
    if len(data) != expected:  # GIMP would write nothing and say nothing
        raise ValueError(f"{box} needs {expected} bytes, got {len(data)}")
    rectangle = Gegl.Rectangle.new(box.x, box.y, box.width, box.height)
    buffer.set(rectangle, kind.name, with_alpha(data, kind) if kind.alpha else data)


def merge(layer: Any, part: "tuple[Box, bytes]", targets: "list[tuple[Box, bytes]]", kind: Format) -> bool:
    """Let GIMP blend pixels into the selected part of a layer, in linear light.

    Args:
        layer: To be changed; pushes one undo step.
        part: The selection, on the layer.
        targets: Boxes and their new colours.
        kind: Of the colours.

    Returns:
        False: GIMP refused, and nothing was changed.
    """
    box, values = part
    rectangle, own = Gegl.Rectangle.new(*box), _name(layer)
    before = read(layer, box)
    shadow = layer.get_shadow_buffer()
    shadow.set(rectangle, own, before)
    for target, data in targets:
        write_pixels(shadow, target, data, kind)
    shadow.flush()
    # Without a selection, GIMP would replace the whole layer.
    if Gimp.Selection.is_empty(layer.get_image()) or not layer.merge_shadow(True):
        return False
    if not kind.merges_exactly:
        # GIMP computes the whole box in linear float32: that rounds floats, and 0 · infinity is not a number. What we
        # write here belongs to the merge's undo step, which has saved the box.
        buffer = layer.get_buffer()
        buffer.set(rectangle, own, choose(values, read(layer, box), before))
        buffer.flush()
    layer.update(*box)
    return True


def choose(values: bytes, inside: bytes, outside: bytes) -> bytes:
    """Take the pixels of `inside` where a selection is not 0, of `outside` elsewhere; raw bytes of any format."""
    pixel_bytes = len(inside) // len(values)
    mask, flags = bytearray(len(inside)), values.translate(b"\0" + b"\xff" * 255)
    for index in range(pixel_bytes):
        mask[index::pixel_bytes] = flags
    chosen, first, second = (int.from_bytes(data, "little") for data in (mask, inside, outside))
    return (second ^ ((first ^ second) & chosen)).to_bytes(len(inside), "little")


def without_alpha(data: bytes, kind: Format) -> bytes:
    """Take alpha, the last sample of every pixel, away."""
    code: Literal["B", "H"] = "B" if kind.sample == "u8" else "H"
    out = bytearray(len(data) * kind.channels // (kind.channels + 1))
    source, target = memoryview(data).cast(code), memoryview(out).cast(code)
    for channel in range(kind.channels):
        target[channel :: kind.channels] = source[channel :: kind.channels + 1]
    return bytes(out)


def with_alpha(data: bytes, kind: Format) -> bytes:
    """Add full alpha to every pixel."""
    code: Literal["B", "H"] = "B" if kind.sample == "u8" else "H"
    out = bytearray(b"\xff") * (len(data) * (kind.channels + 1) // kind.channels)
    source, target = memoryview(data).cast(code), memoryview(out).cast(code)
    for channel in range(kind.channels):
        target[channel :: kind.channels + 1] = source[channel :: kind.channels]
    return bytes(out)


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
    if not layer.has_alpha():
        return None
    box = Box(0, 0, layer.get_width(), layer.get_height())
    clear = bytes(255 if value == 0 else 0 for value in range(256))
    values = read(layer, box, "A u8").translate(clear)
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
        buffer.set(Gegl.Rectangle.new(*whole), _name(image.get_selection()), before)
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


def _name(drawable: Any) -> str:
    """The name of a drawable's own format with its colour space: samples go in and out as they are stored."""
    return str(Babl.get_name(drawable.get_format()))


def refuse_unfit(drawables: "list[Any]") -> Any:
    """Return the one layer to work on.

    Raises:
        Refusal: It is not one layer, or one that cannot be worked on.
    """
    if len(drawables) != 1:
        raise Refusal(f"Select one layer: {len(drawables)} are selected in the Layers dialog.")
    layer = drawables[0]
    if isinstance(layer, Gimp.LayerMask):
        raise Refusal("The layer mask is selected: click on the layer's own picture in the Layers dialog.")
    if not isinstance(layer, Gimp.Layer):
        raise Refusal("A channel is selected: click on a layer in the Layers dialog.")
    if layer.is_group():
        raise Refusal(
            "The layer is a group: select a layer inside of it, or merge the group (Layer → Merge Layer Group)."
        )
    if layer.is_floating_sel():
        raise Refusal("There is a floating selection: anchor it first (Layer → Anchor Floating Layer).")
    if layer.is_indexed():
        raise Refusal("The image has indexed colours: convert it first (Image → Mode → RGB).")
    return layer


def locked(layer: Any) -> "Any | None":
    """The layer or the group around it whose pixels are locked."""
    while layer is not None:
        if layer.get_lock_content():
            return layer
        layer = layer.get_parent()
    return None
