"""Makes the pure-Python packages beside the plug-in importable, whatever else GIMP's Python would find."""

import os
import sys
import types
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def use_vendored(folder: Path = FOLDER / "vendor") -> None:
    """Put the vendored packages first.

    Args:
        folder: Holds `pconv_api`, `grpclib`, `google/protobuf` and what they need.
    """
    if str(folder) in sys.path:
        return
    sys.path.insert(0, str(folder))
    # Without this, protobuf loads the compiled core of whichever protobuf the system has.
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    os.environ["MULTIDICT_NO_EXTENSIONS"] = "1"
    # `google` has many owners: a regular package or a preloaded one elsewhere would hide ours.
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.")]:
        del sys.modules[name]
    google = types.ModuleType("google")
    google.__path__ = [str(folder / "google")]
    sys.modules["google"] = google
