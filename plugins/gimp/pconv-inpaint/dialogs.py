"""What is asked in a window: the settings, in GIMP's own dialog, and whether a server is to be started."""

from pathlib import Path
from typing import Any

import gi
import starting

gi.require_version("Gtk", "3.0")
gi.require_version("GimpUi", "3.0")
from gi.repository import Gimp, GimpUi, Gtk  # noqa: E402


def ask(procedure: Any, config: Any, title: str, hint: str) -> bool:
    """Show the arguments of a procedure; False: the user wants nothing."""
    GimpUi.init(procedure.get_name())
    dialog = GimpUi.ProcedureDialog.new(procedure, config, title)
    if hint:
        label = dialog.get_label("hint", hint, False, False)
        label.set_xalign(0)
        dialog.fill(["hint"])
    dialog.fill(None)
    try:
        return bool(dialog.run())
    finally:
        dialog.destroy()


def start_server(folder: Path, problem: str) -> bool:
    """Say that no server answers, and start one if the user wants.

    Args:
        folder: Of the plug-in.
        problem: What was tried, and found.

    Returns:
        Whether a server answers now.

    Raises:
        NoServerError: It did not start.
    """
    command = starting.find_command(folder)
    dialog = Gtk.MessageDialog(
        message_type=Gtk.MessageType.WARNING, title="Partial Conv", text="The model server is not running"
    )
    dialog.format_secondary_text(problem)
    typed = Gtk.Entry(text=starting.spoken(command), editable=False, tooltip_text="To be typed in a terminal")
    dialog.get_message_area().pack_start(typed, False, False, 0)
    typed.show()
    dialog.add_button("_Close", Gtk.ResponseType.CANCEL)
    if command:
        dialog.add_button("_Start server", Gtk.ResponseType.OK)
        dialog.set_default_response(Gtk.ResponseType.OK)
        dialog.get_widget_for_response(Gtk.ResponseType.OK).grab_focus()
    GimpUi.window_set_transient(dialog)
    wanted = bool(dialog.run() == Gtk.ResponseType.OK)
    dialog.destroy()
    show_now()
    if wanted:
        Gimp.progress_init("Starting the model server")
        starting.start(folder, wait)
    return wanted


def wait() -> None:
    """Let the progress bar move."""
    Gimp.progress_pulse()
    show_now()


def show_now() -> None:
    """Let GTK draw what has changed: nothing else does while the plug-in works."""
    while Gtk.events_pending():
        Gtk.main_iteration()
