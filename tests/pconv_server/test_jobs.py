"""Waiting, taking turns, being cancelled: the worker is free again between tiles."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from pconv_api import Box
from pconv_server import service
from pconv_server.client import Client, job_requests
from pconv_server.connection import Connection
from pconv_server.devices import Device, choose_devices
from pconv_server.engine import Engine
from pconv_server.errors import SetupError
from pconv_server.requests import Limits
from pconv_server.server import ServerSettings
from serving import CPU, TOKEN, blob, picture, running, wait_for

WHOLE = Box(0, 0, 56, 40)
PART = (WHOLE, picture(), blob())


class StepEngine(Engine):
    """Computes in small steps until it is let go, as a network does in tiles."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.go, self.order, self.busy = threading.Event(), [], 0

    def inpaint(self, image, hole, model="", progress=lambda _: None, *more):
        self.order.append(int(image[0, 0, 0]))
        self.busy += 1
        try:
            while not self.go.is_set():
                progress(0.5)
                time.sleep(0.01)
            return super().inpaint(image, hole, model, progress, *more)
        finally:
            self.busy -= 1


@pytest.fixture
def engine(models):
    return StepEngine(CPU, models)


def start(client, name=0, **options):
    image = picture()
    image[0, 0, 0] = name
    requests = job_requests((56, 40), [(WHOLE, image, blob())], "")
    return client._stub.Inpaint(requests, metadata=client._metadata, **options)


def kinds(call):
    return [reply.WhichOneof("event") for reply in call]


def test_health_and_info_answer_during_inference(client, engine):
    call = start(client)
    wait_for(lambda: engine.busy)
    assert client.is_serving()  # the job goes on until it is let go
    assert client.info().jobs == 1
    engine.go.set()
    assert kinds(call)[-1] == "finished"


def test_cancel_frees_the_worker(client, engine):
    first = start(client, 1)
    wait_for(lambda: engine.busy)
    second = start(client, 2)
    wait_for(lambda: client.info().jobs == 2)
    first.cancel()
    wait_for(lambda: engine.order == [1, 2])  # the first, left alone, would never end
    engine.go.set()
    assert kinds(second)[-1] == "finished"


def test_a_waiting_job_can_be_cancelled(client, engine):
    first = start(client, 1)
    wait_for(lambda: engine.busy)
    second = start(client, 2)
    wait_for(lambda: client.info().jobs == 2)
    second.cancel()
    wait_for(lambda: client.info().jobs == 1)
    engine.go.set()
    assert kinds(first)[-1] == "finished"
    assert engine.order == [1]


def test_a_deadline_frees_the_worker(client, engine):
    with pytest.raises(grpc.RpcError) as caught:
        kinds(start(client, timeout=0.3))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: not engine.busy)


KILLED = """
import sys
from serving import TOKEN, blob, picture
from pconv_api import Box
from pconv_server.client import Client
from pconv_server.connection import Connection
Client(Connection(sys.argv[1], TOKEN)).inpaint((56, 40), [(Box(0, 0, 56, 40), picture(), blob())])
"""


def test_kill_9_of_the_client_frees_the_worker(client, server, engine):
    process = subprocess.Popen([sys.executable, "-c", KILLED, server["address"]], env={**os.environ, **python_path()})
    wait_for(lambda: engine.busy, 60)
    waiting = start(client, 2)
    wait_for(lambda: client.info().jobs == 2)
    process.send_signal(signal.SIGKILL)
    wait_for(lambda: len(engine.order) == 2)
    process.wait()
    engine.go.set()
    assert kinds(waiting)[-1] == "finished"


def python_path():
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


class RecordingEngine(Engine):
    """Remembers the heights of the pictures that it filled to the end."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.filled = []

    def inpaint(self, image, *arguments):
        result = super().inpaint(image, *arguments)
        self.filled.append(image.shape[0])
        return result


def test_a_real_network_stops_between_its_stages(models, config_home):
    engine = RecordingEngine(CPU, models)
    image, hole = picture(1500, 1500), blob(1500, 1500)
    with running([engine]) as box, Client(Connection(box["address"], TOKEN)) as client:
        requests = job_requests((1500, 1500), [(Box(0, 0, 1500, 1500), image, hole)], "")
        call = client._stub.Inpaint(requests, metadata=client._metadata)
        next(reply for reply in call if reply.WhichOneof("event") == "progress")
        call.cancel()
        client.inpaint((56, 40), [PART])
    assert engine.filled == [40]


def test_clients_take_turns(server, engine):
    """Six jobs of a busy client do not keep another client waiting for all six."""
    with Client(Connection(server["address"], TOKEN)) as busy:
        calls = [start(busy, 1)]
        wait_for(lambda: engine.busy)
        for n in range(5):
            calls.append(start(busy, 2 + n))
            wait_for(lambda n=n: busy.info().jobs == 2 + n)
        with own_channel(server["address"]) as other:
            calls.append(start(other, 99))
            wait_for(lambda: busy.info().jobs == 7)
            queued = next(reply.queued.ahead for reply in calls[-1] if reply.WhichOneof("event") == "queued")
            assert queued == 2  # the running one and one of the busy client
            engine.go.set()
            for call in calls:
                kinds(call)
    assert engine.order.index(99) == 2


def test_who_waits_is_told_again_and_when_the_turn_comes(client, engine, monkeypatch):
    monkeypatch.setattr(service, "QUEUE_NEWS_SECONDS", 0.05)
    first = start(client, 1)
    wait_for(lambda: engine.busy)
    replies = []
    for reply in start(client, 2):
        replies.append(reply)
        if [reply.queued.ahead for reply in replies] == [1, 1, 1]:
            engine.go.set()
    ahead = [reply.queued.ahead for reply in replies if reply.WhichOneof("event") == "queued"]
    assert ahead[:3] == [1, 1, 1]
    assert ahead[-1] == 0
    assert kinds(first)[-1] == replies[-1].WhichOneof("event") == "finished"


def own_channel(address):
    """A client that shares no connection with others of this process."""
    client = Client(Connection(address, TOKEN))
    client.channel.close()
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    client.channel = grpc.insecure_channel(address, options=options)
    client._stub = type(client._stub)(client.channel)
    return client


def test_two_devices_work_at_once(models, config_home):
    engines = [StepEngine(Device("cpu", "fp32"), models) for _ in range(2)]
    with running(engines) as box, Client(Connection(box["address"], TOKEN)) as client:
        calls = [start(client, n) for n in range(2)]
        wait_for(lambda: all(engine.busy for engine in engines))
        for engine in engines:
            engine.go.set()
        assert [kinds(call)[-1] for call in calls] == ["finished", "finished"]


def test_four_clients_each_get_their_own_picture(server, engine):
    engine.go.set()

    def work(seed):
        with own_channel(server["address"]) as client:
            image = picture(seed=seed)
            return [client.inpaint((56, 40), [(WHOLE, image, blob())])[0] for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    for seed, filled in enumerate(results):
        assert all(np.array_equal(x, Engine.inpaint(engine, picture(seed=seed), blob())) for x in filled)


def test_stopping_gives_waiting_and_running_jobs_a_status(models, config_home):
    engine = StepEngine(CPU, models)
    with running([engine]) as box:
        client = Client(Connection(box["address"], TOKEN))
        calls = [start(client, 1), start(client, 2)]
        wait_for(lambda: engine.busy and client.info().jobs == 2)
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            kinds(call)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "the server stops" in caught.value.details()


def test_a_client_that_reads_nothing_holds_no_worker(models, config_home):
    engine, image = Engine(CPU, models), picture(800, 800)
    with (
        running([engine], limits=Limits(idle_seconds=1)) as box,
        own_channel(box["address"]) as lazy,
        own_channel(box["address"]) as client,
    ):
        requests = job_requests((800, 800), [(Box(0, 0, 800, 800), image, None)], "")
        call = lazy._stub.Upscale(requests, metadata=lazy._metadata)
        next(call)
        client.inpaint((56, 40), [PART], timeout=30)
        wait_for(lambda: client.info().jobs == 0)
        call.cancel()


def test_a_second_server_does_not_share_the_port(server, models):
    port = int(server["address"].rpartition(":")[2])
    with (
        pytest.raises(SetupError, match=f"127.0.0.1:{port}: the port is taken"),
        running([Engine(CPU, models)], port=port),
    ):
        pass


def test_a_unix_socket_is_its_owners_and_goes_away(models, config_home, tmp_path):
    path = tmp_path / "socket"
    with running([Engine(CPU, models)], unix=path) as box, Client(Connection(box["address"], TOKEN)) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert np.array_equal(client.inpaint((56, 40), [PART])[0][~blob()], picture()[~blob()])
        with pytest.raises(SetupError, match=r"listens at .* already"), running([Engine(CPU, models)], unix=path):
            pass
    assert not path.exists()


def test_a_socket_that_a_crash_left_behind_is_replaced(models, config_home, tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "socket"))
    with (
        running([Engine(CPU, models)], unix=tmp_path / "socket") as box,
        Client(Connection(box["address"], TOKEN)) as c,
    ):
        assert c.is_serving()


def test_other_hosts_need_tls_and_token():
    with pytest.raises(SetupError, match=r"--host 0\.0\.0\.0 .* TLS"):
        ServerSettings(token=TOKEN, host="0.0.0.0")
    with pytest.raises(SetupError, match="needs a token"):
        ServerSettings(token="")


def test_devices_are_chosen_by_what_is_there():
    def names(*arguments, **options):
        return [device.name for device in choose_devices(*arguments, precision="fp32", **options)]

    assert names(gpu_count=0) == ["cpu"]
    assert names(gpu_count=2) == ["cuda:0"]
    assert names([1, 0], gpu_count=2) == ["cuda:1", "cuda:0"]
    assert names(cpu=True, gpu_count=2) == ["cpu"]
    for gpus, cpu, sentence in [([2], False, "0…1"), ([0, 0], False, "given once"), ([0], True, "exclude each other")]:
        with pytest.raises(SetupError, match=sentence):
            choose_devices(gpus, cpu, gpu_count=2)
    with pytest.raises(SetupError, match="torch finds no GPU"):
        choose_devices([0], gpu_count=0)
    with pytest.raises(SetupError, match="fp16 is for GPUs"):
        choose_devices(cpu=True, precision="fp16")
