"""The plug-in's client without GIMP: pure Python, the same bytes as `pconv`, and sentences for what goes wrong."""

import ast
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from pconv_api import Box
from pconv_server import plugin
from pconv_server.client import Client
from pconv_server.connection import Connection
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from serving import CPU, TOKEN, blob, picture, running, save_weights

WHOLE = Box(0, 0, 56, 40)
SCRIPT = """
import json, os, pathlib, sys
folder, address, token, out = sys.argv[1:]
sys.path.insert(0, folder)
import loader
loader.use_vendored()
import connection, starting, wire
for path in pathlib.Path(folder).glob("*.py"):
    compile(path.read_text(encoding="utf-8"), path, "exec", dont_inherit=True)
from pconv_api import Box
from google.protobuf.internal import api_implementation
parts = [wire.Part(Box(0, 0, 56, 40), pathlib.Path(out, "image").read_bytes(), pathlib.Path(out, "hole").read_bytes())]
known = connection.Connection(address, token)
[filled] = wire.inpaint(known, wire.Request("Inpaint", wire.Picture(56, 40, 3, "u8"), parts), wire.Events())
pathlib.Path(out, "filled").write_bytes(filled)
compiled = [m.__file__ for m in sys.modules.values() if (getattr(m, "__file__", None) or "").endswith((".so", ".pyd"))]
print(json.dumps([api_implementation.Type(), [path for path in compiled if "lib-dynload" not in path]]))
"""


def parts(wire, dtype=np.uint8, channels=3):
    image = picture(channels=channels, dtype=dtype)
    return image, [wire.Part(WHOLE, image.tobytes(), (blob() * np.uint8(255)).tobytes())]


def ask(wire, address, token="", size=(56, 40), sent=None, model=""):
    request = wire.Request("Inpaint", wire.Picture(*size, 3, "u8"), sent or parts(wire)[1], model)
    return wire.inpaint(wire.Connection(address, token), request, wire.Events())


def interpreter(minor):
    """A Python 3.`minor` of this machine, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for path in (sys.executable, shutil.which(f"python3.{minor}"), *pyenv.glob(f"3.{minor}.*/bin/python")):
        if path is None:
            continue
        asked = [path, "-c", "import sys, zlib; print(*sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split() == ["3", str(minor)]:
            return str(path)
    return None


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])  # of macOS's GIMP to Debian forky's
def test_it_needs_nothing_that_is_compiled(folder, server, tmp_path, minor):
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} (tests/gimp has 3.13 and 3.14)")
    (tmp_path / "image").write_bytes(picture().tobytes())
    (tmp_path / "hole").write_bytes((blob() * np.uint8(255)).tobytes())
    # -S: no site-packages at all, as in a GIMP whose Python has nothing.
    command = [python, "-I", "-S", "-W", "error", "-c", SCRIPT, folder, server["address"], TOKEN, tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["python", []]
    with Client(Connection(server["address"], TOKEN)) as client:
        [expected] = client.inpaint((56, 40), [(WHOLE, picture(), blob())])
    assert (tmp_path / "filled").read_bytes() == expected.tobytes()


def test_nothing_compiled_is_installed(folder):
    assert [path for path in folder.rglob("*") if path.suffix in (".so", ".pyd", ".dylib")] == []
    assert (folder / plugin.ENTRY).stat().st_mode & 0o111


def test_its_own_files_are_python_3_10(folder):
    for path in folder.glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


@pytest.mark.parametrize(("dtype", "sample"), [(np.uint8, "u8"), (np.uint16, "u16"), (np.float32, "float")])
@pytest.mark.parametrize("channels", [1, 3])
def test_same_bytes_as_the_other_door(wire, server, dtype, sample, channels):
    image, sent = parts(wire, dtype, channels)
    known, seen = Connection(server["address"], TOKEN), []
    picture = wire.Picture(56, 40, channels, sample)
    request = wire.Request("Inpaint", picture, sent)
    [filled] = wire.inpaint(wire.Connection(*vars(known).values()), request, wire.Events(seen.append))
    with Client(known) as client:
        [expected] = client.inpaint((56, 40), [(WHOLE, image, blob())])
    assert filled == expected.tobytes()
    assert seen[-1] == 1
    assert seen == sorted(seen)


@pytest.mark.parametrize("with_hole", [False, True])
def test_upscale_sends_strips_and_takes_whole_rows(wire, server, with_hole):
    image, _ = parts(wire)
    hole, rows, seen = (blob() * np.uint8(255)), [], []
    strips = wire.Part(
        WHOLE,
        (image[y : y + 7].tobytes() for y in range(0, 40, 7)),
        (hole[y : y + 9].tobytes() for y in range(0, 40, 9)) if with_hole else b"",
    )

    def take(width, first, data):
        assert (width, first) == (4 * 56, sum(rows_of.shape[0] for rows_of in rows))
        rows.append(np.frombuffer(data, np.uint8).reshape(-1, width, 3))

    request = wire.Request("Upscale", wire.Picture(56, 40, 3, "u8"), [strips])
    assert wire.upscale(wire.Connection(server["address"], TOKEN), request, wire.Events(seen.append), take) == 4
    with Client(Connection(server["address"], TOKEN)) as client:
        expected = np.concatenate(list(client.upscale(image, blob() if with_hole else None)))
    assert np.array_equal(np.concatenate(rows), expected)
    assert seen[-1] == 1


def test_an_option_that_the_server_does_not_know_is_refused(wire, server):
    request = wire.Request("Inpaint", wire.Picture(56, 40, 3, "u8"), parts(wire)[1], "", {"colour": "more"})
    with pytest.raises(wire.ServerError, match="colour"):
        wire.inpaint(wire.Connection(server["address"], TOKEN), request, wire.Events())


def test_whether_a_server_answers(wire, server):
    assert wire.is_serving(wire.Connection(server["address"], TOKEN))
    assert not wire.is_serving(wire.Connection(server["address"], "other"))
    assert not wire.is_serving(wire.Connection("127.0.0.1:9", TOKEN))


@pytest.mark.parametrize(
    ("token", "model", "status", "words"),
    [("other", "", "UNAUTHENTICATED", "install-plugin"), (TOKEN, "nobody", "NOT_FOUND", "nobody")],
)
def test_the_server_s_sentence_arrives(wire, server, token, model, status, words):
    large = [wire.Part(Box(0, 0, 2000, 2000), bytes(12_000_000), bytes(4_000_000))]  # refused while it is sent
    for sent, size in ((parts(wire)[1], (56, 40)), (large, (2000, 2000))):
        with pytest.raises(wire.ServerError, match=words) as caught:
            ask(wire, server["address"], token, size, sent, model)
        assert caught.value.status == status


def test_too_large_is_said(wire, server):
    with pytest.raises(wire.ServerError, match="megapixels") as caught:
        ask(wire, server["address"], TOKEN, (30_000, 30_000), [wire.Part(Box(0, 0, 30_000, 30_000), b"", b"")])
    assert caught.value.status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("address", ["127.0.0.1:9", "unix:/nowhere", "nowhere", "127.0.0.1:0", "a host:x"])
def test_no_server(wire, address):
    with pytest.raises(wire.NoServerError, match="server"):
        ask(wire, address)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_who_breaks_off(wire, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            peer, _ = listener.accept()
            peer.recv(100)
            peer.sendall(answer)
            peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises((wire.ServerError, wire.NoServerError), match="pconv-server"):
            ask(wire, address)
        thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a refused handshake's socket, as below
def test_tls(wire, make_certificate, tmp_path):
    cert, key = make_certificate("server")
    other, _ = make_certificate("other")
    models = ModelFolder(save_weights(tmp_path), default=tmp_path / "none")
    request = wire.Request("Inpaint", wire.Picture(56, 40, 3, "u8"), parts(wire)[1])
    with running([Engine(CPU, models)], host="0.0.0.0", tls_cert=cert, tls_key=key) as box:
        address = f"127.0.0.1:{box['port']}"
        assert wire.is_serving(wire.Connection(address, TOKEN, str(cert)))
        with pytest.raises(wire.ServerError, match=r"is not the one whose certificate is known .*certificate"):
            wire.inpaint(wire.Connection(address, TOKEN, str(other)), request, wire.Events())
        with pytest.raises(wire.ServerError, match=r"cannot be read .*No such file"):
            wire.inpaint(wire.Connection(address, TOKEN, "/nowhere.pem"), request, wire.Events())
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the socket: GIMP ends the process
def test_a_server_that_does_not_read_is_given_up(wire, monkeypatch):
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sent = [wire.Part(Box(0, 0, 1000, 1000), bytes(3_000_000), bytes(1_000_000))]
        with pytest.raises(wire.ServerError, match=r"has said nothing for 0\.5 s"):
            ask(wire, f"127.0.0.1:{listener.getsockname()[1]}", size=(1000, 1000), sent=sent)
    gc.collect()


def test_what_is_done_is_told_when_the_turn_comes(wire, server):
    told, known = [], wire.Connection(server["address"], TOKEN)
    request = wire.Request("Inpaint", wire.Picture(56, 40, 3, "u8"), parts(wire)[1], doing="Filling the sky")
    wire.inpaint(known, request, wire.Events(doing=told.append))
    assert set(told) == {"Filling the sky"}
    assert [wire._waiting(ahead) for ahead in (1, 2)] == ["Waiting for 1 other job", "Waiting for 2 other jobs"]


def test_unix_socket(wire, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    engine = Engine(CPU, ModelFolder(models, default=models))
    with running([engine], unix=Path(tmp_path / "s")) as box, pytest.raises(wire.ServerError) as caught:
        ask(wire, box["address"], TOKEN)
    assert caught.value.status == "NOT_FOUND"


def test_the_connection_of_the_user_comes_first(wire, tmp_path, monkeypatch):
    import connection

    beside, config = tmp_path / "plug-in", tmp_path / "config"
    monkeypatch.setenv("PCONV_CONFIG_DIR", str(config))
    with pytest.raises(wire.NoServerError, match="pconv-server serve"):
        connection.find_connection(beside)
    for folder, address in ((beside, "127.0.0.1:2"), (config, "127.0.0.1:1")):
        folder.mkdir()
        (folder / "connection.json").write_text(json.dumps({"address": address, "token": "t"}))
        assert connection.find_connection(beside) == (address, "t", "")
    (config / "connection.json").write_text("{")
    assert connection.find_connection(beside).address == "127.0.0.1:2"
    assert connection.find_connection(beside, " 127.0.0.1:3 ") == ("127.0.0.1:3", "t", "")
