"""Starting the installed server, as a program of its own that outlives GIMP, and waiting until it answers."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import connection
import wire
from failures import NoServerError

FLATPAK = Path("/.flatpak-info")  # inside of every flatpak
PATIENCE_SECONDS = 120.0  # PyTorch takes long from a cold disk
# What GIMP and its packages set for their own libraries and Pythons; and what our loader sets.
FOREIGN = ("APPDIR", "BABL", "DYLD_", "GDK_", "GEGL", "GIMP", "GIO_", "GI_", "GTK", "LD_", "PYTHON", "XDG_DATA_DIRS")
OURS = ("MULTIDICT_NO_EXTENSIONS", "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION")


def find_command(folder: Path) -> "list[str]":
    """What starts the server; empty: nothing that can be started from here.

    Args:
        folder: Of the plug-in; `pconv-server install-plugin` has left its own command there.
    """
    if FLATPAK.exists() or os.environ.get("SNAP_NAME") == "gimp":
        return []  # programs of the host cannot be started from inside
    try:
        words = [str(word) for word in json.loads((folder / "server.json").read_text(encoding="utf-8"))["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        words = []
    if words and shutil.which(words[0]):
        return words
    found = shutil.which("pconv-server")
    return [found, "serve"] if found else []


def spoken(command: "list[str]") -> str:
    """The command as one types it."""
    if not command:
        return "pconv-server serve"
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def clean(environment: "Mapping[str, str]") -> "dict[str, str]":
    """The environment without what GIMP has set for itself."""
    bundle = environment.get("APPDIR")
    kept = {name: value for name, value in environment.items() if not name.upper().startswith(FOREIGN + OURS)}
    if bundle and "PATH" in kept:
        kept["PATH"] = os.pathsep.join(path for path in kept["PATH"].split(os.pathsep) if not path.startswith(bundle))
    return kept


def start(folder: Path, wait: "Callable[[], None]") -> None:
    """Start the server, unless one answers, and return when it does.

    Args:
        folder: Of the plug-in.
        wait: Called a few times a second.

    Raises:
        NoServerError: It did not start.
    """
    if answers(folder):
        return
    command = find_command(folder)
    if not command:
        raise NoServerError(f"The server cannot be started from here. {connection.START}")
    with tempfile.TemporaryFile() as output:
        try:
            process = launch(command, output.fileno())
        except OSError as error:
            raise NoServerError(f"{spoken(command)} did not start: {error.strerror}") from error
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            wait()
            if answers(folder):
                return
            if process.poll() is not None and not answers(folder):  # else another one was faster
                output.seek(0)
                words = output.read().decode(errors="replace").strip().splitlines()[-1:]
                reason = words[0] if words else f"exit code {process.returncode}"
                raise NoServerError(f"The server did not start: {reason}")
            time.sleep(0.2)
    raise NoServerError(f"The server has not answered for {PATIENCE_SECONDS:g} s; see: pconv-server doctor")


def answers(folder: Path) -> bool:
    """Whether a server is there; its address may be new."""
    try:
        return wire.is_serving(connection.find_connection(folder))
    except NoServerError:
        return False


def launch(command: "list[str]", output: int) -> "subprocess.Popen[bytes]":
    """Start a program that lives on when GIMP, or this plug-in, ends."""
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    # Not in the folder of a picture: on Windows programs are looked for there first.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=clean(os.environ),
        cwd=Path.home(),
        **apart,
    )
