#!/usr/bin/env python3
"""Filters → Partial Conv Inpaint…: GIMP runs this file. Only what registers the procedures is imported at once."""

import sys
import traceback
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, GLib, GObject  # noqa: E402

FOLDER = Path(__file__).resolve().parent
INPAINT = "plug-in-pconv-inpaint"
WRITABLE = GObject.ParamFlags.READWRITE


class PConv(Gimp.PlugIn):
    """The plug-in, as GIMP knows it."""

    def do_set_i18n(self, name: str) -> bool:
        """All texts are English."""
        return False

    def do_query_procedures(self) -> "list[str]":
        """Names of what there is."""
        return [INPAINT]

    def do_create_procedure(self, name: str) -> Any:
        """Describe a procedure; GIMP makes its dialog of it."""
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, self.inpaint, None)
        procedure.set_image_types("RGB*, GRAY*")
        procedure.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.DRAWABLE)
        procedure.set_menu_label("Partial Conv _Inpaint...")
        procedure.add_menu_path("<Image>/Filters")
        procedure.set_documentation(
            "Fill the selection by a partial-convolution network",
            "Fills what is selected from its surroundings, through a pconv-server on this machine. Without a "
            "selection, transparent pixels are filled. Pixels outside the selection never change.",
            name,
        )
        procedure.set_attribution("The pconv authors", "Apache License 2.0", "2026")
        add_arguments(procedure)
        return procedure

    def inpaint(self, procedure: Any, run_mode: Any, image: Any, drawables: Any, config: Any, data: Any) -> Any:
        """Run, and turn whatever goes wrong into a sentence: GIMP would show nothing of an exception."""
        try:
            if run_mode == Gimp.RunMode.INTERACTIVE and not ask(procedure, config):
                return procedure.new_return_values(Gimp.PDBStatusType.CANCEL, None)
            work(image, list(drawables), config)
        except Exception as error:
            text = str(error)
            if type(error).__name__ not in ("Refusal", "NoServerError", "ServerError"):
                traceback.print_exc()
                text = f"A bug in the plug-in: {type(error).__name__}: {error}"
            return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, GLib.Error(text))
        return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, None)


def add_arguments(procedure: Any) -> None:
    """Declare what can be chosen, in the dialog's order."""
    output = Gimp.Choice.new()
    output.add("layer", 0, "This layer", "Fill the layer itself; one step of undo")
    output.add("new", 1, "New layer", "Leave the layer as it is, and put the fill on a new one above it")
    output.add(
        "new-mask", 2, "New layer with mask", "The same, with the selection as layer mask, for edges to be refined"
    )
    procedure.add_choice_argument("output", "O_utput", "Where the fill goes", output, "layer", WRITABLE)
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
    procedure.add_string_argument(
        "model", "_Model", "Name of a model (pconv-server models); empty: the server's default", "", WRITABLE
    )
    procedure.add_string_argument(
        "server", "Ser_ver", "Address, as in 127.0.0.1:50451; empty: the server of this machine", "", WRITABLE
    )


def ask(procedure: Any, config: Any) -> bool:
    """Show the dialog; False: the user wants nothing."""
    gi.require_version("GimpUi", "3.0")
    from gi.repository import GimpUi

    GimpUi.init(INPAINT)
    dialog = GimpUi.ProcedureDialog.new(procedure, config, "Partial Conv Inpaint")
    dialog.fill(None)
    try:
        return bool(dialog.run())
    finally:
        dialog.destroy()


def work(image: Any, drawables: "list[Any]", config: Any) -> None:
    """Import what computes, and let it."""
    import loader

    loader.use_vendored()
    import inpainting
    import wire

    Gimp.progress_init("Partial Conv Inpaint")
    names = ("output", "grow", "feather", "context", "model", "server")
    chosen = {name: config.get_property(name) for name in names}
    # From its second start on, GIMP makes an empty text None.
    settings = inpainting.Settings(**{name: "" if value is None else value for name, value in chosen.items()})
    events = wire.Events(
        progress=Gimp.progress_update,
        queued=lambda ahead: Gimp.progress_set_text(f"Waiting for {ahead} other jobs" if ahead else "Filling"),
        notice=Gimp.message,
    )
    inpainting.inpaint(image, drawables, settings, FOLDER, events)


Gimp.main(PConv.__gtype__, sys.argv)
