"""Pixels, selections and layers of GIMP: the one module that knows about formats."""

from array import array
from collections.abc import Iterator
from functools import reduce
from math import isfinite
from typing import Any, Literal, NamedTuple

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("Babl", "0.1")
from gi.repository import Babl, Gegl, Gimp  # noqa: E402
from pconv_api import Box  # noqa: E402

SAMPLE_BYTES = {"u8": 1, "u16": 2, "float": 4}
CODES: 'dict[str, Literal["B", "H", "f"]]' = {"u8": "B", "u16": "H", "float": "f"}
RAW = "Y u8"  # of a buffer that holds bytes of any meaning
STRIP_BYTES = 4 << 20


class Format(NamedTuple):
    """How the pixels of a layer travel, and how they are written."""

    channels: int  # on the wire: 1 or 3
    sample: str  # "u8", "u16" or "float"
    name: str  # of the format to read and write
    alpha: bool  # the named format has alpha, which does not travel
    merges_exactly: bool  # a merge leaves unselected pixels as they are to the last bit

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel as it travels."""
        return self.channels * SAMPLE_BYTES[self.sample]

    @property
    def code(self) -> 'Literal["B", "H", "f"]':
        """Of a sample, as `memoryview` calls it."""
        return CODES[self.sample]


def format_of(layer: Any) -> Format:
    """Choose how a layer's pixels travel.

    Samples of 8 and 16 bits that are not linear travel as they are stored: nothing is converted, so nothing is lost,
    whatever the colour profile. All else travels as floats, which keep HDR and colours outside of sRGB.
    """
    model, component = Babl.format_get_encoding(layer.get_format()).rsplit(" ", 1)
    gray = model.startswith("Y")
    if component in ("u8", "u16") and ("'" in model or "~" in model):
        return Format(1 if gray else 3, component, name_of(layer), model.endswith("A"), True)
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
    expected = box.area * kind.pixel_bytes
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
    rectangle, own = Gegl.Rectangle.new(*box), name_of(layer)
    before = read(layer, box)
    shadow = layer.get_shadow_buffer()
    shadow.set(rectangle, own, before)
    for target, data in targets:
        write_pixels(shadow, target, data, kind)
    shadow.flush()
    filled = b"" if kind.merges_exactly else bytes(shadow.get(rectangle, 1.0, own, Gegl.AbyssPolicy.NONE))
    # Without a selection, GIMP would replace the whole layer.
    if Gimp.Selection.is_empty(layer.get_image()) or not layer.merge_shadow(True):
        return False
    if not kind.merges_exactly:
        # GIMP computes the whole box in linear float32: that rounds floats, and 0 · infinity is not a number. What we
        # write here belongs to the merge's undo step, which has saved the box.
        merged = choose(no_numbers(layer, box, kind), filled, read(layer, box))
        buffer = layer.get_buffer()
        buffer.set(rectangle, own, choose(values, merged, before))
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


def clear_pixels(layer: Any, box: Box) -> bytes:
    """Where a layer is wholly transparent: 255, elsewhere 0; packed rows."""
    if not layer.has_alpha():
        return bytes(box.area)
    sample = format_of(layer).sample
    alpha = read(layer, box, f"A {sample}")
    size = SAMPLE_BYTES[sample]
    planes = (int.from_bytes(alpha[place::size], "little") for place in range(size))
    return reduce(int.__or__, planes).to_bytes(box.area, "little").translate(b"\xff" + bytes(255))


def strips(width: int, height: int, pixel_bytes: int) -> "Iterator[Box]":
    """Cut a picture into boxes of its width with at most `STRIP_BYTES`, or one row, from the top."""
    rows = max(1, STRIP_BYTES // (width * pixel_bytes))
    for y in range(0, height, rows):
        yield Box(0, y, width, min(rows, height - y))


class Raster:
    """Packed rows of a large picture, which GEGL keeps out of memory when they are many.

    Args:
        row_bytes: Of a row.
        height: Number of rows.
    """

    def __init__(self, row_bytes: int, height: int) -> None:
        self._row_bytes = row_bytes
        self._buffer = Gegl.Buffer.new(RAW, 0, 0, row_bytes, height)

    def write(self, row: int, data: bytes) -> None:
        """Put rows."""
        self._buffer.set(self._place(row, len(data) // self._row_bytes), RAW, data)

    def read(self, row: int, rows: int) -> bytes:
        """Get rows."""
        return bytes(self._buffer.get(self._place(row, rows), 1.0, RAW, Gegl.AbyssPolicy.NONE))

    def _place(self, row: int, rows: int) -> Any:
        return Gegl.Rectangle.new(0, row, self._row_bytes, rows)


def replace_colours(layer: Any, raster: Raster, kind: Format) -> None:
    """Write the colours of a whole layer, and keep its alpha. Is no undo step."""
    buffer, name = layer.get_buffer(), kind.name
    keeps = layer.has_alpha()
    if keeps and not kind.alpha:
        name = name.replace("' ", "'A ")
    for box in strips(layer.get_width(), layer.get_height(), kind.pixel_bytes):
        data, place = raster.read(box.y, box.height), Gegl.Rectangle.new(*box)
        if keeps:
            old = bytes(buffer.get(place, 1.0, name, Gegl.AbyssPolicy.NONE))
            data = with_alpha(data, kind, old)
        buffer.set(place, name, data)
    buffer.flush()
    layer.update(0, 0, layer.get_width(), layer.get_height())


def no_numbers(layer: Any, box: Box, kind: Format) -> bytes:
    """Where a colour is NaN or infinite: 255, elsewhere 0; packed rows."""
    samples = array("f", read(layer, box, kind.name)) if kind.sample == "float" else array("f")
    if isfinite(sum(samples)):  # as good as always
        return bytes(box.area)
    pixels = (samples[place : place + kind.channels] for place in range(0, len(samples), kind.channels))
    return bytes(0 if isfinite(sum(pixel)) else 255 for pixel in pixels)


def without_alpha(data: bytes, kind: Format) -> bytes:
    """Take alpha, the last sample of every pixel, away."""
    out = bytearray(len(data) * kind.channels // (kind.channels + 1))
    source, target = memoryview(data).cast(kind.code), memoryview(out).cast(kind.code)
    for channel in range(kind.channels):
        target[channel :: kind.channels] = source[channel :: kind.channels + 1]
    return bytes(out)


def with_alpha(data: bytes, kind: Format, old: "bytes | None" = None) -> bytes:
    """Give every pixel the alpha of `old`, or make it opaque (integers only)."""
    size = len(data) * (kind.channels + 1) // kind.channels
    out = bytearray(b"\xff") * size if old is None else bytearray(old)
    source, target = memoryview(data).cast(kind.code), memoryview(out).cast(kind.code)
    for channel in range(kind.channels):
        target[channel :: kind.channels + 1] = source[channel :: kind.channels]
    return bytes(out)


def name_of(drawable: Any) -> str:
    """The name of a drawable's own format with its colour space: samples go in and out as they are stored."""
    return str(Babl.get_name(drawable.get_format()))
