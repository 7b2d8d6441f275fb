"""The plug-in's button: starts the installed server once, apart from GIMP, and waits until it answers."""

import json
import os
import signal
import stat
import sys

import pytest
from pconv_server import plugin
from pconv_server.connection import Connection, read_connection, write_connection
from serving import TOKEN

APART = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # so it shall be


@pytest.fixture
def starting(wire, monkeypatch, tmp_path):
    """The module, with a config folder of its own."""
    monkeypatch.setenv("PCONV_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("SNAP_NAME", raising=False)
    import starting

    return starting


def program(path, text):
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def known(folder, *command):
    folder.mkdir(exist_ok=True)
    (folder / "server.json").write_text(json.dumps({"command": list(map(str, command))}))
    return folder


@pytest.mark.slow
@APART
def test_a_server_starts_apart_and_only_once(starting, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/of/gimp")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/gimp")
    python_path = os.pathsep.join(sys.path)  # the scrubbed environment has none
    note = tmp_path / "environment"
    start = program(
        tmp_path / "serve",
        "import json, os, sys\n"
        f"open({str(note)!r}, 'a').write(json.dumps([os.getpid(), os.getsid(0), dict(os.environ)]))\n"
        f"os.environ['PYTHONPATH'] = {python_path!r}\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'pconv_server', 'serve', '--cpu', '--port', '0'])\n",
    )
    folder, waited = known(tmp_path / "plug-in", start), []
    try:
        starting.start(folder, lambda: waited.append(1))
        pid, session, environment = json.loads(note.read_text())
        assert waited
        assert starting.answers(folder)
        assert session == pid
        assert session != os.getsid(0)
        assert not [name for name in environment if name.startswith(("PYTHON", "LD_", "PROTOCOL", "MULTIDICT"))]
        assert environment["PCONV_CONFIG_DIR"] == str(tmp_path / "config")
        starting.start(folder, lambda: waited.append(1))
        assert len(note.read_text().split("}")) == 2  # it was not called again
    finally:
        if note.exists():
            os.kill(json.loads(note.read_text())[0], signal.SIGTERM)


def test_the_server_s_reason_is_said(starting, wire, tmp_path):
    start = program(tmp_path / "serve", "import sys\nsys.exit('pconv-server: the port is taken')")
    with pytest.raises(wire.NoServerError, match="did not start: pconv-server: the port is taken"):
        starting.start(known(tmp_path / "plug-in", start), lambda: None)
    start = program(tmp_path / "serve", "raise SystemExit(7)")
    with pytest.raises(wire.NoServerError, match="exit code 7"):
        starting.start(known(tmp_path / "plug-in", start), lambda: None)


@APART
def test_who_is_slow_is_given_up(starting, wire, tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "PATIENCE_SECONDS", 0.5)
    start = program(tmp_path / "serve", "import time\ntime.sleep(3)")
    with pytest.raises(wire.NoServerError, match="doctor"):
        starting.start(known(tmp_path / "plug-in", start), lambda: None)


def test_a_server_that_runs_is_left_alone(starting, server, tmp_path):
    write_connection(Connection(server["address"], TOKEN))
    start = program(tmp_path / "serve", f"open({str(tmp_path / 'called')!r}, 'w')")
    starting.start(known(tmp_path / "plug-in", start), lambda: None)
    assert not (tmp_path / "called").exists()


def test_what_starts_it(starting, wire, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = known(tmp_path / "plug-in", "/gone/python", "-m", "pconv_server", "serve")
    assert starting.find_command(folder) == []
    assert starting.spoken([]) == "pconv-server serve"
    with pytest.raises(wire.NoServerError, match="cannot be started from here"):
        starting.start(folder, lambda: None)
    installed = program(tmp_path / "pconv-server", "")
    assert starting.find_command(folder) == [str(installed), "serve"]
    own = known(folder, sys.executable, "-m", "pconv_server", "serve")
    assert starting.find_command(own) == [sys.executable, "-m", "pconv_server", "serve"]
    assert starting.spoken(["/a b/python", "serve"]) == "'/a b/python' serve"
    (folder / "server.json").write_text("{")
    assert starting.find_command(folder) == [str(installed), "serve"]
    monkeypatch.setenv("SNAP_NAME", "gimp")
    assert starting.find_command(folder) == []
    monkeypatch.setenv("SNAP_NAME", "code")  # GIMP started from another snap's terminal
    assert starting.find_command(folder)
    (tmp_path / "flatpak").touch()
    monkeypatch.setattr(starting, "FLATPAK", tmp_path / "flatpak")
    assert starting.find_command(folder) == []


def test_what_gimp_s_package_sets_is_not_passed_on(starting):
    found = starting.clean(
        {"PATH": "/app/bin:/usr/bin", "APPDIR": "/app", "HOME": "/h", "GI_TYPELIB_PATH": "/app", "CUDA_HOME": "/c"}
    )
    assert found == {"PATH": "/usr/bin", "HOME": "/h", "CUDA_HOME": "/c"}


def test_install_plugin_leaves_its_own_command(starting, tmp_path):
    target = plugin.install(tmp_path)
    assert starting.find_command(target) == [sys.executable, "-P", "-m", "pconv_server", "serve"]
    assert stat.S_IMODE((target / "connection.json").stat().st_mode) == 0o600
    assert read_connection() is not None
