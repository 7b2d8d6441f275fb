import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from pconv.precision import prefers_bf16
from pconv_api import Box
from pconv_api.v1 import pconv_pb2 as pb
from pconv_server import cli, doctor
from pconv_server.client import Client, explained, job_requests
from pconv_server.connection import Connection, choose_token, read_connection, runs_here, write_connection
from pconv_server.devices import Device
from pconv_server.engine import Engine
from pconv_server.errors import SetupError
from serving import CPU, TOKEN, blob, picture, running, wait_for
from typer.testing import CliRunner

WHOLE = Box(0, 0, 56, 40)


@pytest.fixture
def serve(weights, config_home):
    """Start `pconv-server serve` on a free port; returns the process and its line."""
    started = []

    def serve(*arguments):
        command = [sys.executable, "-m", "pconv_server", "serve", "--cpu", "--threads", "1", "--models", str(weights)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process, process.stdout.readline()

    yield serve
    for process in started:
        process.kill()
        process.communicate()


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_serve_status_and_stop(serve, config_home):
    assert run("status").exit_code == cli.NO_SERVER
    process, line = serve("--port", "0")
    known = read_connection()
    assert known.address in line
    assert ("bf16" if prefers_bf16("cpu") else "fp32") in line
    for word in ("cpu", "inpaint (custom)", "GB", "pconv-server"):
        assert word in line
    assert stat.S_IMODE((config_home / "connection.json").stat().st_mode) == 0o600
    status = run("status")
    assert status.exit_code == 0, status.output
    assert f"process {process.pid}" in status.output
    assert str(config_home / "server.log") in status.output

    with Client(known) as client:
        client.inpaint((56, 40), [(WHOLE, picture(), blob())])
    events = [json.loads(text) for text in (config_home / "server.log").read_text().splitlines()]
    assert any(event["event"] == "inpaint" and event["status"] == "OK" and event["request"] for event in events)

    second, sentence = serve("--port", known.address.rpartition(":")[2])
    assert second.wait(30) == 2
    assert "the port is taken" in sentence
    assert read_connection() == known  # the one that failed to start changed nothing

    assert run("stop").exit_code == 0
    assert process.wait(10) == 0
    assert process.stdout.read() == ""  # one line, no more
    assert run("stop").exit_code == cli.NO_SERVER

    _, line = serve("--port", "0")
    assert read_connection().token == known.token  # a copy beside the plug-in stays good


@pytest.mark.parametrize("address", ["gpu.example:50451", "127.0.0.1:50451", "[::1]:50451", "unix:/run/pconv"])
def test_stop_ends_no_other_program(monkeypatch, address):
    if not address.startswith("gpu") and not Path("/proc/self/cmdline").exists():
        pytest.skip("without /proc the number of a process is believed")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    monkeypatch.setattr(cli, "_reach", lambda: Client(Connection(address, TOKEN)))
    monkeypatch.setattr(cli, "_ask", lambda client: pb.GetServerInfoReply(pid=os.getpid()))  # ours, and no server
    result = run("stop")
    assert result.exit_code == 1
    assert f"the server at {address} is reached through a network or a container" in result.output
    assert f"end it where it runs: kill {os.getpid()}" in result.output


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), (socket.gethostname(), True), ("192.0.2.1", False)])
def test_a_server_for_other_machines_is_stopped_on_its_own(monkeypatch, host, own):
    monkeypatch.setattr(Path, "exists", lambda _: False)  # no /proc
    assert runs_here(f"{host}:50451", os.getpid()) == own


def test_sigterm_gives_a_running_job_a_status(serve):
    process, _ = serve("--port", "0")
    with Client(read_connection()) as client:
        image = picture(1200, 1200)
        call = client._stub.Upscale(
            job_requests((1200, 1200), [(Box(0, 0, 1200, 1200), image, None)], ""), metadata=client._metadata
        )
        next(reply for reply in call if reply.WhichOneof("event") == "progress")
        process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert process.wait(30) == 0


def test_bad_options_get_a_sentence_and_start_nothing(config_home, tmp_path):
    (tmp_path / "open").write_text("token")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "empty").touch(0o600)
    for arguments, sentence in [
        (["--host", "0.0.0.0"], "needs a token and TLS"),
        (["--gpu", "99"], "--gpu 99"),
        (["--precision", "int8"], "not one of auto, fp32, bf16, fp16"),
        (["--cpu", "--precision", "fp16"], "for GPUs"),
        (["--token-file", tmp_path / "none"], "cannot read the token file"),
        (["--token-file", tmp_path / "open"], "others can read the token file"),
        (["--token-file", tmp_path / "empty"], "is empty"),
        (["--tls-cert", tmp_path / "open"], "both --tls-cert and --tls-key"),
    ]:
        result = run("serve", *arguments)
        assert result.exit_code == 2, result.output
        assert sentence in result.output
    assert not (config_home / "connection.json").exists()


def test_the_token_file_counts(tmp_path, config_home):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text("secret\n")
    assert choose_token(path) == "secret"
    assert len(choose_token(None)) > 30
    write_connection(Connection("127.0.0.1:1", "kept"))
    assert choose_token(None) == "kept"


def test_a_damaged_connection_file_gets_a_sentence(config_home):
    config_home.mkdir(parents=True)
    (config_home / "connection.json").write_text("{")
    with pytest.raises(SetupError, match="delete it"):
        read_connection()
    assert run("status").exit_code == 2


def test_models_are_listed(weights, config_home):
    result = run("models", "--models", weights)
    assert result.exit_code == 0
    for word in ("inpaint  inpaint  custom", "sha256 ", '{"factor": 2}', "MB"):
        assert word in result.output


def test_a_model_that_links_to_nothing_is_a_problem_of_its_own(weights, config_home):
    shutil.copytree(weights, config_home / "models")
    (config_home / "models" / "gone.safetensors").symlink_to(config_home / "nowhere")
    listed = run("models")
    assert listed.exit_code == 0, listed.output
    assert "gone  problem: cannot read" in listed.output
    assert "twice  upscale" in listed.output
    checked = run("doctor")
    assert checked.exit_code == 1
    assert "model gone: cannot read" in checked.output


def test_a_server_that_dies_is_told_of(serve, config_home):
    process, _ = serve("--port", "0")
    with Client(read_connection()) as client:
        assert client.info().version
        process.kill()
        process.wait()
        with pytest.raises(RuntimeError, match=r"the server broke off \(.+\); see: pconv-server status"), explained():
            client.info()


def test_the_doctor_finds_what_is_wrong(config_home, weights):
    config_home.mkdir(parents=True)
    (config_home / "models").symlink_to(weights)
    well = run("doctor")
    assert well.exit_code == 0, well.output
    assert "all is well" in well.output
    write_connection(Connection("127.0.0.1:1", "x"))
    (config_home / "connection.json").chmod(0o644)
    ill = run("doctor")
    assert ill.exit_code == 1
    assert "others can read the token" in ill.output
    assert "remedy: chmod 600" in ill.output


def test_the_doctor_knows_old_python_and_foreign_gpus():
    assert doctor.check_python((3, 9)).remedy
    assert not doctor.check_python((3, 12)).remedy
    assert doctor.check_gpu("New", (12, 0), ["sm_80", "sm_90"]).remedy
    assert not doctor.check_gpu("Good", (8, 6), ["sm_80", "sm_90"]).remedy


def test_the_doctor_knows_a_wrong_token_and_another_program(server, config_home):
    import socket

    write_connection(Connection(server["address"], "wrong"))
    assert "another token" in doctor.check_server().text
    write_connection(Connection(server["address"], TOKEN))
    assert "a server runs" in doctor.check_server().text
    with socket.create_server(("127.0.0.1", 0)) as other:
        write_connection(Connection(f"127.0.0.1:{other.getsockname()[1]}", TOKEN))
        assert doctor.check_server().remedy


def test_tls(models, config_home, make_certificate):
    cert, key = make_certificate("server")
    with running([Engine(CPU, models)], host="0.0.0.0", tls_cert=cert, tls_key=key) as box:
        address = f"127.0.0.1:{box['port']}"
        with Client(Connection(address, TOKEN, str(cert))) as client:
            [filled] = client.inpaint((56, 40), [(WHOLE, picture(), blob())])
            assert np.array_equal(filled[~blob()], picture()[~blob()])
        with Client(Connection(address, TOKEN)) as plain:
            assert not plain.is_serving()


def test_a_gpu_that_cannot_be_released_does_not_end_its_worker(models, config_home):
    class PretendedGpu(Device):
        is_cuda = True

    def failing():
        tries.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine, tries = Engine(PretendedGpu("cpu", "fp32"), models, memory=1 << 29), []
    engine.release = failing
    with running([engine], release_minutes=0.2 / 60) as box, Client(Connection(box["address"], TOKEN)) as client:
        client.inpaint((56, 40), [(WHOLE, picture(), blob())])
        wait_for(lambda: tries)
        client.inpaint((56, 40), [(WHOLE, picture(), blob())])


def test_an_address_that_is_none_is_said(config_home):
    config_home.mkdir(parents=True, exist_ok=True)
    (config_home / "connection.json").write_text('{"address": "localhost", "token": "x"}')
    for command in ("status", "doctor"):
        assert "expected HOST:PORT or unix:PATH" in run(command).output


def test_a_gpus_memory_is_given_back_when_idle(models, config_home):
    class PretendedGpu(Device):
        is_cuda = True

    engine = Engine(PretendedGpu("cpu", "fp32"), models, memory=1 << 29)
    engine.release = lambda: engine._networks.clear()  # the real one asks CUDA
    with running([engine], release_minutes=0.2 / 60) as box, Client(Connection(box["address"], TOKEN)) as client:
        client.inpaint((56, 40), [(WHOLE, picture(), blob())])
        wait_for(lambda: not engine.loaded)
        client.inpaint((56, 40), [(WHOLE, picture(), blob())])  # loads it again
