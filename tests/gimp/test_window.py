"""In GIMP's window: menu, dialog, fill, one step of undo and redo, and the dialog when there is no server."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases import photo
from PIL import Image

GIMPRC = """(config-version "{version}")
(show-welcome-dialog no)
(check-updates no)
(undo-levels 50)
(color-profile-policy keep)
"""
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def window(make_gimp, server, version):
    """Folder with what window.sh left."""
    gimp = make_gimp(server["address"])
    asked = subprocess.run(
        gimp.command("gimp-console-3", "--version"),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PCONV_ROOT": str(Path(__file__).parents[2])},
    )
    number = asked.stdout.strip().rsplit(" ", 1)[-1]
    (gimp.profile / "gimprc").write_text(GIMPRC.format(version=number))
    Image.fromarray((photo(WIDTH, HEIGHT)[..., :3] * 255).astype(np.uint8)).save(gimp.folder / "photo.png")
    script = Path(__file__).with_name("window.sh")
    command = gimp.command("xvfb-run", "-a", "-s", "-screen 0 1400x900x24", script, gimp.folder)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | {"PCONV_ROOT": str(Path(__file__).parents[2])},
    )
    shots = Path(__file__).parents[2] / "build" / "screenshots" / version
    shots.mkdir(parents=True, exist_ok=True)
    for path in gimp.folder.glob("*.png"):
        shutil.copy(path, shots)
    assert (gimp.folder / "finished").exists(), done.stderr[-3000:]
    return gimp.folder


def layer(folder, when):
    return np.frombuffer((folder / f"{when}.raw").read_bytes(), np.uint8).reshape(HEIGHT, WIDTH, 3)


def test_the_dialog_fills_the_selection_alone(window):
    changed = (layer(window, "before") != layer(window, "after")).any(-1)
    assert changed[110, 165]
    changed[80:140, 120:210] = False
    assert not changed.any()
    assert json.loads((window / "after.json").read_text()) == [1, True]


def test_it_is_one_step_of_undo(window):
    assert (layer(window, "undone") == layer(window, "before")).all()
    assert (layer(window, "redone") == layer(window, "after")).all()
    assert json.loads((window / "undone.json").read_text()) == [1, True]


def test_without_a_server_nothing_changes(window):
    assert (layer(window, "failed") == layer(window, "before")).all()
