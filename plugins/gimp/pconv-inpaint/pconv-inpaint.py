#!/usr/bin/env python3
"""Filters → Partial Conv Inpaint… and Upscale ×4…: GIMP runs this file. It imports at once only what registers them."""

import sys
import traceback
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
from failures import NoServerError, Refusal  # noqa: E402
from gi.repository import Gimp, GLib, GObject  # noqa: E402

FOLDER = Path(__file__).resolve().parent
INPAINT, UPSCALE = "plug-in-pconv-inpaint", "plug-in-pconv-upscale"
WRITABLE = GObject.ParamFlags.READWRITE


class PConv(Gimp.PlugIn):
    """The plug-in, as GIMP knows it."""

    def do_set_i18n(self, name: str) -> bool:
        """All texts are English."""
        return False

    def do_query_procedures(self) -> "list[str]":
        """Names of what there is."""
        return [INPAINT, UPSCALE]

    def do_create_procedure(self, name: str) -> Any:
        """Describe a procedure; GIMP makes its dialog of it."""
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, self.run, None)
        procedure.set_image_types("RGB*, GRAY*")
        procedure.set_attribution("The pconv authors", "Apache License 2.0", "2026")
        describe_inpaint(procedure) if name == INPAINT else describe_upscale(procedure)
        add_server_arguments(procedure)
        return procedure

    def run(self, procedure: Any, run_mode: Any, image: Any, drawables: Any, config: Any, data: Any) -> Any:
        """Run, and turn whatever goes wrong into a sentence: GIMP would show nothing of an exception."""
        status, problem = Gimp.PDBStatusType.SUCCESS, None
        is_asked = run_mode == Gimp.RunMode.INTERACTIVE
        try:
            if (is_asked and not ask(procedure, config, image)) or not work(
                procedure, image, list(drawables or []), config, is_asked
            ):
                status = Gimp.PDBStatusType.CANCEL
        except Refusal as refusal:
            status, problem = Gimp.PDBStatusType.EXECUTION_ERROR, GLib.Error(str(refusal))
        except Exception as error:
            traceback.print_exc()
            text = f"A bug in the plug-in: {type(error).__name__}: {error}"
            status, problem = Gimp.PDBStatusType.EXECUTION_ERROR, GLib.Error(text)
        return procedure.new_return_values(status, problem)


def describe_inpaint(procedure: Any) -> None:
    """Declare Inpaint, its arguments in the dialog's order: each is a field of `inpainting.Settings`."""
    procedure.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.DRAWABLE)
    procedure.set_menu_label("Partial Conv _Inpaint...")
    procedure.add_menu_path("<Image>/Filters")
    procedure.set_documentation(
        "Fill the selection by a partial-convolution network",
        "Fills what is selected from its surroundings, through a pconv-server on this machine. Without a "
        "selection, transparent pixels are filled. Pixels outside the selection never change.",
        INPAINT,
    )
    add_choice(
        procedure,
        "output",
        "O_utput",
        "Where the fill goes",
        ("layer", "This layer", "Fill the layer itself; one step of undo"),
        ("new", "New layer", "Leave the layer as it is, and put the fill on a new one above it"),
        ("new-mask", "New layer with mask", "The same, with the selection as layer mask, for edges to be refined"),
    )
    add_choice(
        procedure,
        "texture",
        "_Texture",
        "Where the texture of the fill comes from",
        ("photo", "From the photo", "Copied from the surroundings, guided by the network"),
        ("network", "Network only", "The network's own: softer, nothing is copied"),
    )
    procedure.add_int_argument(
        "grow", "_Grow selection", "Pixels by which the selection is grown before it is filled", 0, 500, 0, WRITABLE
    )
    procedure.add_double_argument(
        "feather", "_Feather edges", "Pixels over which the fill and the original blend", 0.0, 500.0, 0.0, WRITABLE
    )
    procedure.add_int_argument(
        "context",
        "Conte_xt",
        "Pixels around the selection that the network sees; 0: half the longer side of what is filled, at least 64",
        0,
        4096,
        0,
        WRITABLE,
    )


def describe_upscale(procedure: Any) -> None:
    """Declare Upscale, its arguments in the dialog's order: each is a field of `upscaling.Settings`."""
    mask = Gimp.ProcedureSensitivityMask
    procedure.set_sensitivity_mask(mask.DRAWABLE | mask.DRAWABLES | mask.NO_DRAWABLES)
    procedure.set_menu_label("Upscale x_4...")  # by "×4" nobody would search
    procedure.add_menu_path("<Image>/Filters")
    procedure.add_menu_path("<Image>/Image/[Scale]")
    procedure.set_documentation(
        "Enlarge ×4 (superresolution) by a neural network",
        "Enlarges the image with its layers, masks, channels, selection, guides and paths, or the selected layers, "
        "through a pconv-server on this machine. The image keeps its size in print.",
        UPSCALE,
    )
    add_choice(
        procedure,
        "scope",
        "_What",
        "What is enlarged",
        ("image", "Whole image", "The canvas and all that is in the image; text becomes pixels"),
        ("layer", "Selected layers", "Only they; the canvas stays as it is"),
    )


def add_server_arguments(procedure: Any) -> None:
    """Declare what both procedures have."""
    procedure.add_string_argument(
        "model", "_Model", "Name of a model (pconv-server models); empty: the server's default", "", WRITABLE
    )
    procedure.add_string_argument(
        "server", "Ser_ver", "Address, as in 127.0.0.1:50451; empty: the server of this machine", "", WRITABLE
    )


def add_choice(procedure: Any, name: str, label: str, blurb: str, *options: "tuple[str, str, str]") -> None:
    """Declare an argument with fixed values, each with its label and help; the first is the default."""
    choice = Gimp.Choice.new()
    for number, (value, shown, explained) in enumerate(options):
        choice.add(value, number, shown, explained)
    procedure.add_choice_argument(name, label, blurb, choice, options[0][0], WRITABLE)


def ask(procedure: Any, config: Any, image: Any) -> bool:
    """Show the dialog; False: the user wants nothing."""
    use_vendored()
    import dialogs

    if procedure.get_name() == INPAINT:
        return dialogs.ask(procedure, config, "Partial Conv Inpaint", "")
    width, height = image.get_width(), image.get_height()
    hint = f"The whole image becomes {4 * width} × {4 * height} px, at the same size in print."
    return dialogs.ask(procedure, config, "Upscale ×4", hint)


def use_vendored() -> None:
    """Make importable what the client needs."""
    import loader

    loader.use_vendored()


def work(procedure: Any, image: Any, drawables: "list[Any]", config: Any, is_asked: bool) -> bool:
    """Import what computes, and let it; False: without a server, the user gave up."""
    use_vendored()
    import wire

    if procedure.get_name() == INPAINT:
        import inpainting as operation

        do = operation.inpaint
    else:
        import upscaling as operation

        do = operation.upscale
    chosen = {name: config.get_property(name) for name in operation.Settings._fields}
    # From its second start on, GIMP makes an empty text None.
    settings = operation.Settings(**{name: "" if value is None else value for name, value in chosen.items()})
    events = wire.Events(Gimp.progress_update, Gimp.progress_set_text, Gimp.message)
    while True:
        try:
            Gimp.progress_init(operation.NAME)
            do(image, drawables, settings, FOLDER, events)
            return True
        except NoServerError as error:
            if not is_asked or settings.server:
                raise
            import dialogs

            if not dialogs.start_server(FOLDER, str(error)):
                return False


Gimp.main(PConv.__gtype__, sys.argv)
