"""A real server on a free port, with tiny networks, in a thread of its own."""

import asyncio
import contextlib
import threading
import time

import numpy as np
import torch
from pconv import PConvUNet, PConvUNetConfig, save_checkpoint
from pconv_server.devices import Device
from pconv_server.server import ServerSettings, create_server

CPU = Device("cpu", "fp32")
TOKEN = "a token for tests only"


def save_weights(folder):
    """Tiny networks with fixed weights."""
    torch.manual_seed(0)
    config = PConvUNetConfig((8, 16), (5, 3))
    save_checkpoint(folder / "inpaint.safetensors", PConvUNet(config), "inpaint", {"data": "none"}, torch.float16)
    save_checkpoint(folder / "upscale.safetensors", PConvUNet(config), "upscale", {"factor": 4})
    save_checkpoint(folder / "twice.safetensors", PConvUNet(config), "upscale", {"factor": 2})
    return folder


@contextlib.contextmanager
def running(engines, **settings):
    """Run a server in a thread; yields its address."""
    started, box = threading.Event(), {}

    async def main():
        box["stop"], box["loop"] = asyncio.Event(), asyncio.get_running_loop()
        server, box["port"] = await create_server(engines, ServerSettings(**{"token": TOKEN, "port": 0} | settings))
        await server.start()
        box["server"], box["address"] = server, server.address
        started.set()
        await box["stop"].wait()
        await server.stop(grace=0.2)

    def run():
        try:
            asyncio.run(main())
        except BaseException as error:
            box["error"] = error
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(30)
    if "error" in box:
        raise box["error"]
    try:
        yield box
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(60)
        assert not thread.is_alive()


def picture(height=40, width=56, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random((height, width, channels), dtype=np.float32) * 3 - 1  # leaves [0, 1]
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def blob(height=40, width=56):
    hole = np.zeros((height, width), bool)
    hole[10:25, 12:30] = hole[0:3, 50:] = True
    return hole


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
