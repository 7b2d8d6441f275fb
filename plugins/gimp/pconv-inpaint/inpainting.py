"""Filling the selection: plan, ask the server, look whether all is as it was, write in one undo step."""

from pathlib import Path
from typing import Any, NamedTuple

import layers
import pixels
import selections
import wire
from connection import find_connection
from failures import Refusal
from gi.repository import Gimp
from pconv_api import Box, Job, plan_jobs
from pconv_api.geometry import crop

NAME = "Partial Conv Inpaint"
NEW_LAYER = ", or choose a new layer as output"


class Settings(NamedTuple):
    """What the user can choose."""

    output: str = "layer"  # "layer", "new" or "new-mask"
    texture: str = "photo"  # or "network"
    grow: int = 0  # px
    feather: float = 0.0  # px
    context: int = 0  # px around the hole; 0: by the size of the hole
    model: str = ""  # empty: the server's default
    server: str = ""  # empty: the known one

    @property
    def options(self) -> "dict[str, str]":
        """What goes to the server by name; a server that does not know a name refuses."""
        return {"texture": self.texture}


class Plan(NamedTuple):
    """What is to be filled."""

    part: "tuple[Box, bytes]"  # soft selection, in coordinates of the layer
    is_selection: bool  # it is the image's selection as it stands
    jobs: "list[Job]"
    hole: bytes  # of the whole layer, any value but 0 = fill


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
    layer = refuse_unfit(image, drawables)
    if settings.output == "layer":
        layers.refuse_locked(layer, NEW_LAYER)
    connection = find_connection(folder, settings.server)
    state, part = layers.state_of(layer), selections.selection_on(image, layer)
    plan = make_plan(image, layer, part, settings)
    picture = wire.Picture(*state.size, state.format.channels, state.format.sample)
    surroundings = [pixels.read_pixels(layer, job.context, state.format) for job in plan.jobs]
    parts = [
        wire.Part(job.context, data, unknown(layer, plan, job.context))
        for job, data in zip(plan.jobs, surroundings, strict=True)
    ]
    request = wire.Request("Inpaint", picture, parts, settings.model, settings.options, "Filling")
    results = wire.inpaint(connection, request, events)
    targets = [cut_target(job, result, picture) for job, result in zip(plan.jobs, results, strict=True)]
    layers.refuse_changed(image, layer, state)
    if part != selections.selection_on(image, layer):
        raise Refusal("The selection was changed while the server worked: nothing was written. Try again.")
    if surroundings != [pixels.read_pixels(layer, job.context, state.format) for job in plan.jobs]:
        raise Refusal(layers.PAINTED)
    if settings.output == "layer":
        layers.refuse_locked(layer, NEW_LAYER)
    image.undo_group_start()
    try:
        with selections.selected(image, layer, None if plan.is_selection else plan.part):
            if settings.output == "layer":
                write_into(layer, plan, targets, state.format)
            else:
                write_above(image, layer, plan, targets, state.format, keep_mask=settings.output == "new-mask")
    finally:
        image.undo_group_end()
    Gimp.displays_flush()


def refuse_unfit(image: Any, drawables: "list[Any]") -> Any:
    """Return the one layer to work on.

    Raises:
        Refusal: It is not one layer, or one that cannot be worked on.
    """
    if len(drawables) != 1:
        raise Refusal(f"Select one layer: {len(drawables)} are selected in the Layers dialog.")
    layers.refuse_mode(image)
    layers.refuse_no_layer(drawables[0])
    if drawables[0].is_group():
        raise Refusal(
            "The layer is a group: select a layer inside of it, or merge the group (Layer → Merge Layer Group)."
        )
    return drawables[0]


def make_plan(image: Any, layer: Any, part: "tuple[Box, bytes] | None", settings: Settings) -> Plan:
    """Find out what to fill, and which surroundings the network needs.

    Raises:
        Refusal: Nothing is to be filled, or everything.
    """
    if part is None and not Gimp.Selection.is_empty(image):
        raise Refusal("The selection does not touch the layer: select what to fill on it, or choose another layer.")
    is_selection = part is not None and not settings.grow and not settings.feather
    if part is None and (clear := selections.transparent_part(layer)) is not None:
        part = selections.on_canvas(image, layer, clear)
    if part is None:
        raise Refusal("Nothing is selected: select what to fill (without a selection, transparent pixels are filled).")
    if settings.grow or settings.feather:
        reshaped = selections.reshaped(layer, part, settings.grow, settings.feather)
        part = selections.on_canvas(image, layer, reshaped) or part  # growing does not leave it altogether
    width, height = layer.get_width(), layer.get_height()
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


def unknown(layer: Any, plan: Plan, box: Box) -> bytes:
    """What the server gets as hole of a box: what is to be filled, and where the layer is clear, its colours hidden.

    Raises:
        Refusal: Nothing visible is left.
    """
    hole, clear = crop(plan.hole, layer.get_width(), box), pixels.clear_pixels(layer, box)
    both = (int.from_bytes(hole, "little") | int.from_bytes(clear, "little")).to_bytes(box.area, "little")
    if not both.count(0):
        raise Refusal("All around the selection is transparent: give more surroundings, or choose another layer.")
    return both


def cut_target(job: Job, result: bytes, picture: wire.Picture) -> "tuple[Box, bytes]":
    """The pixels of a job's result that are to be written, and where."""
    target, context = job.target, job.context
    inner = Box(target.x - context.x, target.y - context.y, target.width, target.height)
    return target, crop(result, context.width, inner, picture.pixel_bytes)


def write_into(layer: Any, plan: Plan, targets: "list[tuple[Box, bytes]]", kind: pixels.Format) -> None:
    """Merge the fill into the layer; GIMP blends soft edges, and leaves all outside the selection as it is."""
    layers.rasterize(layer, NEW_LAYER)
    if not pixels.merge(layer, plan.part, targets, kind):
        raise Refusal(f"GIMP refused to write into the layer “{layer.get_name()}”{NEW_LAYER}.")


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
