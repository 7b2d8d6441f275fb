"""Layers: which can be worked on, and whether they are still as they were."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from failures import Refusal
from gi.repository import Gimp
from pixels import Format, format_of

DELETED = "The layer was deleted while the server worked: nothing was written."
PAINTED = "The layer was painted on while the server worked: nothing was written. Try again."


class State(NamedTuple):
    """What must be the same when a result is written as when it was asked for."""

    size: "tuple[int, int]"
    offsets: "tuple[int, int]"
    format: Format


def state_of(layer: Any) -> State:
    """Remember what must not change while the server works."""
    _, left, top = layer.get_offsets()
    return State((layer.get_width(), layer.get_height()), (left, top), format_of(layer))


def refuse_changed(image: Any, layer: Any, before: State) -> None:
    """Look whether a result still fits.

    Raises:
        Refusal: It does not.
    """
    if not image.is_valid() or not layer.is_valid() or layer.get_image() != image:
        raise Refusal(DELETED)
    now = state_of(layer)
    for what, old, new in (
        ("resized", before.size, now.size),
        ("moved", before.offsets, now.offsets),
        ("converted to another precision or mode", before.format, now.format),
    ):
        if old != new:
            raise Refusal(f"The layer was {what} while the server worked: nothing was written. Try again.")


def refuse_mode(image: Any) -> None:
    """Look whether the image is one that can be worked on.

    Raises:
        Refusal: It is not.
    """
    if image.get_base_type() == Gimp.ImageBaseType.INDEXED:
        raise Refusal("The image has indexed colours: convert it first (Image → Mode → RGB).")
    if image.get_floating_sel() is not None:
        raise Refusal("There is a floating selection: anchor it first (Layer → Anchor Floating Layer).")


def refuse_no_layer(drawable: Any) -> None:
    """Look whether something is a layer.

    Raises:
        Refusal: It is none.
    """
    if isinstance(drawable, Gimp.LayerMask):
        raise Refusal("The layer mask is selected: click on the layer's own picture in the Layers dialog.")
    if not isinstance(drawable, Gimp.Layer):
        raise Refusal("A channel is selected: click on a layer in the Layers dialog.")


def refuse_locked(layer: Any, otherwise: str = "") -> None:
    """Look whether a layer's pixels may be changed.

    Raises:
        Refusal: They, or a group around them, are locked. `otherwise` is said, too.
    """
    while layer is not None:
        if layer.get_lock_content():
            raise Refusal(
                f"The pixels of “{layer.get_name()}” are locked: unlock them in the Layers dialog{otherwise}."
            )
        layer = layer.get_parent()


def leaves(items: "Iterable[Any]") -> "Iterator[Any]":
    """The layers that have pixels of their own, through all groups."""
    for item in items:
        if item.is_group():
            yield from leaves(item.get_children())
        else:
            yield item


def is_live(layer: Any) -> bool:
    """Whether GIMP draws the layer from a text, paths or a file, and would draw it again."""
    rasterizable = getattr(Gimp, "Rasterizable", None)  # GIMP 3.2
    if rasterizable is None:
        return bool(layer.is_text_layer())
    return isinstance(layer, rasterizable) and not layer.is_rasterized()


def rasterize(layer: Any, otherwise: str = "") -> None:
    """Make pixels of a text, vector or link layer; merging or scaling would, too, but then redo loses the result.

    Raises:
        Refusal: GIMP cannot. `otherwise` is said, too.
    """
    if is_live(layer) and hasattr(layer, "rasterize") and not layer.rasterize():
        raise Refusal(f"GIMP cannot rasterize the layer “{layer.get_name()}”{otherwise}.")
