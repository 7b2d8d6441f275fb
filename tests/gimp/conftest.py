"""Real GIMPs with the plug-in and a real server. inside.py runs in GIMP, which does many cases in one start."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pconv_server.connection import Connection, write_connection
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from serving import CPU, TOKEN, running, save_weights

ROOT = Path(__file__).parents[2]
PREPARED = {"3.0": ROOT / "build" / "gimp-3.0", "3.2": ROOT / "build" / "gimp-3.2"}
# Mounts in a namespace of its own: they are gone when GIMP is. $0: the folder of the system.
ENTER = """
mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; mount --bind /tmp "$0/tmp"
mkdir -p "$0$PCONV_ROOT"; mount --bind "$PCONV_ROOT" "$0$PCONV_ROOT"; exec chroot "$0" "$@"
"""


class Gimp:
    """An installed GIMP with a profile of its own, which has the plug-in.

    Args:
        system: Folder of the Debian system that has it; None: this machine's own GIMP.
        folder: For profile and files.
        connection: How the plug-in finds the server.
    """

    def __init__(self, system, folder, connection):
        self.system, self.folder = system, folder
        self.profile, self.config = folder / "profile", folder / "config"
        self.config.mkdir(parents=True)
        write_connection(connection, self.config / "connection.json")
        subprocess.run(
            [sys.executable, "-m", "pconv_server", "install-plugin", "--target", str(self.profile)],
            env=os.environ | {"PCONV_CONFIG_DIR": str(self.config)},
            check=True,
        )

    def command(self, *words, **environment):
        """What starts a program beside this GIMP."""
        inside = {
            "HOME": str(self.folder),
            "PATH": "/usr/bin:/bin",  # GIMP takes the first python3: it must be the system's
            "LANG": "C.UTF-8",
            "GIMP3_DIRECTORY": str(self.profile),
            "PCONV_CONFIG_DIR": str(self.config),
            **environment,
        }
        command = ["env", "-i", *(f"{name}={value}" for name, value in inside.items()), *map(str, words)]
        if self.system is not None:
            command = ["unshare", "--mount", "bash", "-c", ENTER, str(self.system), *command]
        return command

    def start(self, cases, **environment):
        """Start GIMP on cases for inside.py."""
        (self.folder / "cases.json").write_text(json.dumps(cases))
        here = str(Path(__file__).parent)
        code = f"FOLDER={str(self.folder)!r};HERE={here!r};exec(open(HERE+'/inside.py').read())"
        words = ["gimp-console-3", "-i", "-d", "--quit", "--batch-interpreter", "python-fu-eval", "-b", code]
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                self.command(*words, **environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PCONV_ROOT": str(ROOT)},
            )

    def run(self, cases, **environment):
        """Run cases and return the results by name."""
        process = self.start(cases, **environment)
        code = process.wait(500)
        assert code == 0, (self.folder / "log").read_text()[-4000:]
        return json.loads((self.folder / "results.json").read_text())


def installed_gimps():
    """Name → folder of the system, or None for this machine's own."""
    prepared = {name: path for name, path in PREPARED.items() if (path / ".ready").exists()}
    if prepared:
        return prepared
    console = shutil.which("gimp-console-3") or shutil.which("gimp-console")
    if console is None:
        return {}
    text = subprocess.run([console, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\b(3\.\d+)\.\d+", text)
    return {found[1]: None} if found else {}


@pytest.fixture(scope="session", params=list(PREPARED))
def version(request, lacking):
    """Of GIMP."""
    if request.param not in installed_gimps():
        lacking("gimp", f"there is no GIMP {request.param} (make test-gimp installs it, as root on Debian)")
    return request.param


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def models(weights):
    return ModelFolder(weights, default=weights / "none")


@pytest.fixture(scope="session")
def server(models):
    with running([Engine(CPU, models)]) as box:
        yield box


@pytest.fixture(scope="session")
def make_gimp(version, tmp_path_factory):
    """Makes a GIMP that knows a server."""

    def make(address, token=TOKEN):
        return Gimp(installed_gimps()[version], tmp_path_factory.mktemp(f"gimp-{version}-"), Connection(address, token))

    return make


@pytest.fixture(scope="session")
def gimp(make_gimp, server):
    return make_gimp(server["address"])
