"""Filling the selection: plan, ask the server, look whether all is as it was, write in one undo step."""

from pathlib import Path
from typing import Any, NamedTuple

import pixels
import wire
from connection import find_connection
from failures import Refusal
from gi.repository import Gimp
from pconv_api import Box, Job, plan_jobs
from pconv_api.geometry import crop

NAME = "Partial Conv Inpaint"


class Settings(NamedTuple):
    """What the user can choose."""

    output: str = "layer"  # "layer", "new" or "new-mask"
    grow: int = 0  # px
    feather: float = 0.0  # px
    context: int = 0  # px around the hole; 0: by the size of the hole
    model: str = ""  # empty: the server's default
    server: str = ""  # empty: the known one


class Plan(NamedTuple):
    """What is to be filled."""

    part: "tuple[Box, bytes]"  # soft selection, in coordinates of the layer
    is_selection: bool  # it is the image's selection as it stands
    jobs: "list[Job]"
    hole: bytes  # of the whole layer, any value but 0 = fill


class State(NamedTuple):
    """What must be the same when the result is written as when it was asked for."""

    size: "tuple[int, int]"
    offsets: "tuple[int, int]"
    format: pixels.Format
    selection: "tuple[Box, bytes] | None"


def inpaint(image: Any, drawables: "list[Any]", settings: Settings, folder: Path, events: wire.Events) -> None:
    """Fill the selected part of a layer.

    Args:
        image: The image.
        drawables: What is selected in the Layers dialog.
        settings: What the user chose.
        folder: Of the plug-in.
        events: Told about queue, progress and notices.

    Raises:
        Refusal: It cannot be done; the image is untouched.
    """
    layer = pixels.refuse_unfit(drawables)
    if settings.output == "layer":
        refuse_locked(layer)
    connection = find_connection(folder, settings.server)
    before = state_of(image, layer)
    plan = make_plan(image, layer, before, settings)
    picture = wire.Picture(*before.size, before.format.channels, before.format.sample)
    parts = [
        wire.Part(
            job.context,
            pixels.read_pixels(layer, job.context, before.format),
            crop(plan.hole, picture.width, job.context),
        )
        for job in plan.jobs
    ]
    results = wire.inpaint(connection, picture, parts, settings.model, events)
    targets = [cut_target(job, result, picture) for job, result in zip(plan.jobs, results, strict=True)]
    refuse_changed(image, layer, before)
    if settings.output == "layer":
        refuse_locked(layer)
    image.undo_group_start()
    try:
        with pixels.selected(image, layer, None if plan.is_selection else plan.part):
            if settings.output == "layer":
                write_into(layer, plan, targets, before.format)
            else:
                write_above(image, layer, plan, targets, before.format, keep_mask=settings.output == "new-mask")
    finally:
        image.undo_group_end()
    Gimp.displays_flush()


def make_plan(image: Any, layer: Any, state: State, settings: Settings) -> Plan:
    """Find out what to fill, and which surroundings the network needs.

    Raises:
        Refusal: Nothing is to be filled, or everything.
    """
    part = state.selection
    if part is None and not Gimp.Selection.is_empty(image):
        raise Refusal("The selection does not touch the layer: select what to fill on it, or choose another layer.")
    is_selection = part is not None and not settings.grow and not settings.feather
    if part is None and (clear := pixels.transparent_part(layer)) is not None:
        part = pixels.on_canvas(image, layer, clear)
    if part is None:
        raise Refusal("Nothing is selected: select what to fill (without a selection, transparent pixels are filled).")
    if settings.grow or settings.feather:
        reshaped = pixels.reshaped(layer, part, settings.grow, settings.feather)
        part = pixels.on_canvas(image, layer, reshaped) or part  # growing does not leave it altogether
    width, height = state.size
    hole = spread(part, width, height)
    if not hole.count(0):
        raise Refusal("Everything is selected: leave something of the layer around what is to be filled.")
    return Plan(part, is_selection, plan_jobs(hole, width, height, settings.context or None), hole)


def spread(part: "tuple[Box, bytes]", width: int, height: int) -> bytes:
    """Lay the values of a box into a picture of zeros."""
    box, values = part
    left, right = bytes(box.x), bytes(width - box.right)
    rows = [values[start : start + box.width] for start in range(0, len(values), box.width)]
    middle = (right + left).join(rows)
    return b"".join([bytes(box.y * width), left, middle, right, bytes((height - box.bottom) * width)])


def cut_target(job: Job, result: bytes, picture: wire.Picture) -> "tuple[Box, bytes]":
    """The pixels of a job's result that are to be written, and where."""
    target, context = job.target, job.context
    inner = Box(target.x - context.x, target.y - context.y, target.width, target.height)
    return target, crop(result, context.width, inner, picture.pixel_bytes)


def state_of(image: Any, layer: Any) -> State:
    """Remember what must not change while the server works."""
    _, left, top = layer.get_offsets()
    size = (layer.get_width(), layer.get_height())
    return State(size, (left, top), pixels.format_of(layer), pixels.selection_on(image, layer))


def refuse_changed(image: Any, layer: Any, before: State) -> None:
    """Look whether the result still fits.

    Raises:
        Refusal: It does not.
    """
    if not image.is_valid() or not layer.is_valid() or layer.get_image() != image:
        raise Refusal("The layer was deleted while the server worked: nothing was written.")
    now = state_of(image, layer)
    for what, old, new in (
        ("resized", before.size, now.size),
        ("moved", before.offsets, now.offsets),
        ("converted to another precision or mode", before.format, now.format),
    ):
        if old != new:
            raise Refusal(f"The layer was {what} while the server worked: nothing was written. Try again.")
    if before.selection != now.selection:
        raise Refusal("The selection was changed while the server worked: nothing was written. Try again.")


def refuse_locked(layer: Any) -> None:
    """Look whether the layer's pixels may be changed.

    Raises:
        Refusal: They are locked.
    """
    lock = pixels.locked(layer)
    if lock is not None:
        raise Refusal(
            f"The pixels of “{lock.get_name()}” are locked: unlock them in the Layers dialog, "
            "or choose a new layer as output."
        )


def write_into(layer: Any, plan: Plan, targets: "list[tuple[Box, bytes]]", kind: pixels.Format) -> None:
    """Merge the fill into the layer; GIMP blends soft edges, and leaves all outside the selection as it is."""
    rasterizable = getattr(Gimp, "Rasterizable", None)  # GIMP 3.2
    is_live = rasterizable is not None and isinstance(layer, rasterizable) and not layer.is_rasterized()
    # Merging would rasterize too, but then redo loses the fill, and a link layer is never the same again.
    if is_live and not layer.rasterize():
        raise Refusal(f"GIMP cannot rasterize the layer “{layer.get_name()}”: choose a new layer as output.")
    if not pixels.merge(layer, plan.part, targets, kind):
        raise Refusal(f"GIMP refused to write into the layer “{layer.get_name()}”: choose a new layer as output.")


def write_above(
    image: Any,
    layer: Any,
    plan: Plan,
    targets: "list[tuple[Box, bytes]]",
    kind: pixels.Format,
    keep_mask: bool,
) -> None:
    """Put the fill on a layer of its own, with the selection as its mask, or as its alpha."""
    box, _ = plan.part
    name = f"{layer.get_name()} {NAME}"
    new = Gimp.Layer.new(
        image, name, box.width, box.height, layer.type_with_alpha(), 100.0, image.get_default_new_layer_mode()
    )
    new.fill(Gimp.FillType.TRANSPARENT)
    _, left, top = layer.get_offsets()
    new.set_offsets(left + box.x, top + box.y)
    parent = layer.get_parent()
    if not image.insert_layer(new, parent, image.get_item_position(layer)):
        raise Refusal(f"GIMP refused a new layer above “{layer.get_name()}”: see whether its group is locked.")
    buffer = new.get_buffer()
    own = pixels.format_of(new)
    for target, data in targets:
        place = Box(target.x - box.x, target.y - box.y, target.width, target.height)
        pixels.write_pixels(buffer, place, data, own)
    buffer.flush()
    new.add_mask(new.create_mask(Gimp.AddMaskType.SELECTION))
    if not keep_mask:
        new.remove_mask(Gimp.MaskApplyMode.APPLY)
    new.update(0, 0, box.width, box.height)
