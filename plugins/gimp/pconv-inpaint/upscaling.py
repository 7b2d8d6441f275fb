"""Enlarging: layer by layer through the server, then everything else by GIMP, in one undo step."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import layers
import pixels
import wire
from connection import Connection, find_connection
from failures import Refusal
from gi.repository import Gimp
from pconv_api import Box

NAME = "Upscale ×4"
FACTOR = 4  # what is looked at before the server is asked; the model has the last word
MAX_SIZE = 524288  # px; of GIMP


class Settings(NamedTuple):
    """What the user can choose."""

    scope: str = "image"  # or "layer": the selected ones
    model: str = ""  # empty: the server's default
    server: str = ""  # empty: the known one


class Survey(NamedTuple):
    """What was found in the pixels of a layer."""

    checksum: int
    visible: bool  # there is a pixel that is not wholly transparent
    clear: bool  # there is one that is


class Enlarged(NamedTuple):
    """A layer, and what becomes of it."""

    layer: Any
    before: layers.State
    survey: Survey
    raster: "pixels.Raster | None"  # None: all is transparent, so that GIMP's own scaling does
    factor: int


def upscale(image: Any, drawables: "list[Any]", settings: Settings, folder: Path, events: wire.Events) -> None:
    """Enlarge the image with all that is in it, or some layers.

    Args:
        image: The image.
        drawables: What is selected in the Layers dialog.
        settings: What the user chose.
        folder: Of the plug-in.
        events: Told about queue, progress and notices.

    Raises:
        Refusal: It cannot be done; the image is untouched.
    """
    whole = settings.scope == "image"
    roots = image.get_layers() if whole else chosen(drawables)
    refuse_unfit(image, roots, whole)
    connection = find_connection(folder, settings.server)
    todo = sorted(layers.leaves(roots), key=area, reverse=True)  # what is too large is refused at once
    areas = [area(layer) for layer in todo]
    results = []
    for number, layer in enumerate(todo):
        if not layer.is_valid():
            raise Refusal(layers.DELETED)
        doing = f"Upscaling “{layer.get_name()}” ({number + 1} of {len(todo)})"
        part = share(events, sum(areas[:number]), areas[number], sum(areas))
        results.append(enlarge(connection, layer, settings.model, part, doing))
    factors = {result.factor for result in results if result.raster is not None}
    if len(factors) != 1:
        raise Refusal("All pixels are transparent: there is nothing to upscale.")
    refuse_changed(image, roots, whole, results)
    [factor] = factors
    rasterized = [layer.get_name() for layer in todo if layers.is_live(layer)]
    Gimp.progress_set_text("Writing")
    image.undo_group_start()
    try:
        write(image, None if whole else roots, results, factor)
    finally:
        image.undo_group_end()
    Gimp.displays_flush()
    tell(results, rasterized, events)


def chosen(drawables: "list[Any]") -> "list[Any]":
    """The selected layers, without those that are in a selected group."""
    for drawable in drawables:
        layers.refuse_no_layer(drawable)

    def is_inside(layer: Any) -> bool:
        parent = layer.get_parent()
        return parent is not None and (parent in drawables or is_inside(parent))

    return [layer for layer in drawables if not is_inside(layer)]


def refuse_unfit(image: Any, roots: "list[Any]", whole: bool) -> None:
    """Look whether these layers can be enlarged.

    Raises:
        Refusal: They cannot.
    """
    layers.refuse_mode(image)
    todo = list(layers.leaves(roots))
    if not todo:
        raise Refusal("There is no layer to upscale." if whole else "No layer is selected in the Layers dialog.")
    for layer in todo:
        layers.refuse_locked(layer)
    for layer in [] if whole else roots:
        if layer.get_lock_position():
            raise Refusal(f"The position of “{layer.get_name()}” is locked: unlock it in the Layers dialog.")
    largest = max(max(item.get_width(), item.get_height()) for item in ([image, *todo] if whole else todo))
    if largest * FACTOR > MAX_SIZE:
        raise Refusal(f"Something is {largest} px long: GIMP has at most {MAX_SIZE} px, so {MAX_SIZE // FACTOR} px.")


def area(layer: Any) -> int:
    """Of a layer, px."""
    return int(layer.get_width() * layer.get_height())


def share(events: wire.Events, done: int, part: int, total: int) -> wire.Events:
    """Events of one of several requests."""
    return events._replace(progress=lambda fraction: events.progress((done + fraction * part) / total))


def enlarge(connection: Connection, layer: Any, model: str, events: wire.Events, doing: str) -> Enlarged:
    """Let the server enlarge the colours of a layer, from GIMP's tiles into GIMP's swap."""
    before = layers.state_of(layer)
    (width, height), kind = before.size, before.format
    found = survey(layer, before)
    if not found.visible:
        return Enlarged(layer, before, found, None, 0)
    raster: pixels.Raster | None = None

    def take(row_width: int, row: int, data: bytes) -> None:
        nonlocal raster
        if raster is None:
            raster = pixels.Raster(row_width * kind.pixel_bytes, height * (row_width // width))
        raster.write(row, data)

    def boxes() -> "Iterator[Box]":
        return pixels.strips(width, height, kind.pixel_bytes)

    part = wire.Part(
        Box(0, 0, width, height),
        (pixels.read_pixels(layer, box, kind) for box in boxes()),
        (pixels.clear_pixels(layer, box) for box in boxes()) if found.clear else b"",
    )
    picture = wire.Picture(width, height, kind.channels, kind.sample)
    request = wire.Request("Upscale", picture, [part], model, doing=doing)
    factor = wire.upscale(connection, request, events, take)
    return Enlarged(layer, before, found, raster, factor)


def survey(layer: Any, state: layers.State) -> Survey:
    """Look at all pixels of a layer, strip by strip."""
    checksum, visible, clear = 0, False, False
    for box in pixels.strips(*state.size, state.format.pixel_bytes):
        data = pixels.read(layer, box, state.format.name)
        checksum = zlib.crc32(data, checksum)
        holes = pixels.clear_pixels(layer, box)
        checksum = zlib.crc32(holes, checksum)
        visible = visible or 0 in holes
        clear = clear or 255 in holes
    return Survey(checksum, visible, clear)


def refuse_changed(image: Any, roots: "list[Any]", whole: bool, results: "list[Enlarged]") -> None:
    """Look whether all is as it was when the server was asked.

    Raises:
        Refusal: It is not.
    """
    for result in results:
        layers.refuse_changed(image, result.layer, result.before)
    now = set(layers.leaves(image.get_layers() if whole else roots))
    if now != {result.layer for result in results}:
        raise Refusal("Layers were added or removed while the server worked: nothing was written. Try again.")
    refuse_unfit(image, roots, whole)
    for result in results:
        if survey(result.layer, result.before) != result.survey:
            raise Refusal(layers.PAINTED)


def write(image: Any, roots: "list[Any] | None", results: "list[Enlarged]", factor: int) -> None:
    """Let GIMP scale everything, then put the colours of the results into the layers.

    Args:
        image: The image.
        roots: The layers to enlarge; None: the whole image.
        results: What the server made.
        factor: Of the enlargement.

    Raises:
        Refusal: GIMP cannot rasterize, or refuses to scale.
    """
    for result in results:
        layers.rasterize(result.layer)
    Gimp.context_push()
    try:
        Gimp.context_set_interpolation(Gimp.InterpolationType.CUBIC)  # of alpha, masks, channels and the selection
        if roots is None:
            fine = image.scale(image.get_width() * factor, image.get_height() * factor)
            _, x, y = image.get_resolution()
            image.set_resolution(x * factor, y * factor)  # the same size in print
        else:
            fine = all(root.scale(root.get_width() * factor, root.get_height() * factor, True) for root in roots)
    finally:
        Gimp.context_pop()
    if not fine:
        raise Refusal("GIMP refused to scale: undo to get the image back, and see whether a layer or group is locked.")
    for result in results:
        if result.raster is not None:
            pixels.replace_colours(result.layer, result.raster, result.before.format)


def tell(results: "list[Enlarged]", rasterized: "list[str]", events: wire.Events) -> None:
    """Say what is not as one may expect."""
    notes = []
    if rasterized:
        notes.append(f"Now pixels, not to be edited as before: {quoted(rasterized)}.")
    if filtered := [result.layer.get_name() for result in results if result.layer.get_filters()]:
        notes.append(f"Layer effects keep their settings, so that sizes in pixels act ×4 smaller: {quoted(filtered)}.")
    if notes:
        events.notice("\n".join([f"{NAME} is done.", *notes]))


def quoted(names: "list[str]") -> str:
    """Names in a sentence."""
    return ", ".join(f"“{name}”" for name in names)
