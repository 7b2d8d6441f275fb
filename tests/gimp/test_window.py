"""In GIMP's window: menus, search, dialogs, undo, Cancel, and what happens without a server."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from PIL import Image
from serving import CPU, TOKEN, running

ROOT = Path(__file__).parents[2]
GIMPRC = """(config-version "{version}")
(show-welcome-dialog no)
(check-updates no)
(undo-levels 50)
(color-profile-policy keep)
"""
WIDTH, HEIGHT = 640, 427
# Stands for `pconv-server serve`, for whose PyTorch GIMP's small system has no room: the true one runs outside of it.
START = """#!/bin/sh
python3 -c 'import json, os; print(json.dumps([os.getpid(), os.getsid(0), dict(os.environ)]))' >"{0}/starting.json"
sleep 2
cp "{0}/running.json" "$PCONV_CONFIG_DIR/connection.json"
mv "{0}/starting.json" "{0}/started.json"
sleep 60
"""


class WindowEngine(Engine):
    """The true one; works without end while there is a file `slow`."""

    folder = Path()

    def inpaint(self, image, hole, model="", progress=lambda _: None, *rest):
        if (self.folder / "slow").exists():
            (self.folder / "busy").touch()
            try:
                while True:
                    progress(0.4)
                    time.sleep(0.02)
            finally:
                (self.folder / "busy").unlink()
        return super().inpaint(image, hole, model, progress, *rest)


@pytest.fixture(scope="module")
def window(make_gimp, version, tmp_path_factory):
    """Folder with what window.sh left."""
    data = pytest.importorskip("skimage.data")
    engine = WindowEngine(CPU, ModelFolder(tmp_path_factory.mktemp("models")))  # the weights that ship
    with running([engine]) as server:
        gimp = make_gimp(server["address"], TOKEN)
        engine.folder = gimp.folder
        environment = os.environ | {"PCONV_ROOT": str(ROOT)}
        command = gimp.command("gimp-console-3", "--version")
        asked = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        number = asked.stdout.strip().rsplit(" ", 1)[-1]
        (gimp.profile / "gimprc").write_text(GIMPRC.format(version=number))
        start = gimp.folder / "start.sh"
        start.write_text(START.format(gimp.folder))
        start.chmod(0o755)
        command = json.dumps({"command": [str(start)]})
        (gimp.profile / "plug-ins" / "pconv-inpaint" / "server.json").write_text(command)
        Image.fromarray(data.rocket()).save(gimp.folder / "photo.png", dpi=(100, 100))  # SpaceX, public domain
        script = Path(__file__).with_name("window.sh")
        command = gimp.command("xvfb-run", "-a", "-s", "-screen 0 1400x900x24", script, gimp.folder)
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    shots = ROOT / "build" / "screenshots" / version
    shots.mkdir(parents=True, exist_ok=True)
    for path in gimp.folder.glob("*.png"):
        shutil.copy(path, shots)
    assert (gimp.folder / "finished").exists(), done.stderr[-3000:]
    return gimp.folder


def layer(folder, when, factor=1):
    return np.frombuffer((folder / f"{when}.raw").read_bytes(), np.uint8).reshape(factor * HEIGHT, factor * WIDTH, 3)


def numbers(folder, when):
    return json.loads((folder / f"{when}.json").read_text())


def test_the_dialog_fills_the_selection_alone(window):
    changed = (layer(window, "before") != layer(window, "after")).any(-1)
    assert changed[150, 201]
    assert changed[150, 448]
    changed[115:375, 160:218] = changed[115:375, 431:484] = False
    assert not changed.any()
    assert numbers(window, "after") == numbers(window, "before")


def test_filling_is_one_step_of_undo(window):
    assert (layer(window, "undone") == layer(window, "before")).all()
    assert (layer(window, "redone") == layer(window, "after")).all()
    assert numbers(window, "undone") == numbers(window, "before")


def test_search_and_dialog_enlarge_everything(window):
    old, new = numbers(window, "before"), numbers(window, "enlarged")
    assert new["layers"] == old["layers"]
    for name in ("image", "layer", "resolution"):
        assert np.allclose(new[name], 4 * np.array(old[name]))
    assert np.allclose(new["selection"][1:], 4 * np.array(old["selection"][1:]), atol=4)
    means = layer(window, "enlarged", 4).reshape(HEIGHT, 4, WIDTH, 4, 3).mean((1, 3))
    assert abs(means - layer(window, "before")).mean() < 4


def test_enlarging_is_one_step_of_undo(window):
    assert numbers(window, "shrunk") == numbers(window, "before")
    assert (layer(window, "shrunk") == layer(window, "before")).all()
    assert numbers(window, "enlarged again") == numbers(window, "enlarged")
    assert (layer(window, "enlarged again", 4) == layer(window, "enlarged", 4)).all()


def test_cancel_changes_nothing_and_ends_the_job(window):
    assert (layer(window, "cancelled") == layer(window, "before")).all()
    assert not (window / "busy").exists()


def test_after_failed_runs_undo_takes_the_edit_before_them(window):
    assert (layer(window, "failed") != layer(window, "before")).any()
    assert (layer(window, "unedited") == layer(window, "before")).all()


def test_the_button_starts_a_server_and_the_job_goes_on(window):
    pid, session, environment = json.loads((window / "started.json").read_text())
    assert session != pid  # of the shell around it, which is no child of GIMP's session
    assert not [name for name in environment if name.startswith(("PYTHON", "GIMP", "LD_", "PROTOCOL"))]
    assert (layer(window, "filled again") == layer(window, "after")).all()
