"""What the way through gRPC costs: the round trip of a 2048² picture of 8 bits, less the server's own compute."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from pconv import PConvUNet, PConvUNetConfig, save_checkpoint
from pconv_api import Box
from pconv_server.client import Client
from pconv_server.connection import read_connection

from bench.measure import Row, milliseconds

SIZE = 2048
GOAL_SECONDS = 0.060


def rows(rounds: int) -> Iterator[Row]:
    """Measure loopback and a unix socket; the picture has no hole, so there is nothing but transport."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_checkpoint(folder / "models" / "inpaint.safetensors", PConvUNet(PConvUNetConfig((4,), (3,))))
        ways = {"loopback": ["--port", "0"], "unix socket": ["--unix", str(folder / "socket")]}
        for way, options in ways.items():
            with running_server(folder, options) as client:
                overheads = [overhead(client) for _ in range(rounds + 1)][1:]
            row = milliseconds(f"transport of {SIZE}² u8, {way}", overheads)
            met = sorted(overheads)[len(overheads) // 2] <= GOAL_SECONDS
            yield Row(row.what, row.found, f"≤ {GOAL_SECONDS * 1000:.0f} ms", met)


def overhead(client: Client) -> float:
    """Seconds of one round trip that the server did not compute."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    hole = np.zeros((SIZE, SIZE), bool)
    start = time.perf_counter()
    [same] = client.inpaint((SIZE, SIZE), [(Box(0, 0, SIZE, SIZE), image, hole)])
    seconds = time.perf_counter() - start
    if client.finished is None or not np.array_equal(same, image):
        raise RuntimeError("the picture without a hole came back changed")
    return seconds - client.finished.compute_seconds


@contextmanager
def running_server(folder: Path, options: list[str]) -> Iterator[Client]:
    """Start `pconv-server serve` as a process of its own, with its files in `folder`."""
    before = os.environ.get("PCONV_CONFIG_DIR")
    os.environ["PCONV_CONFIG_DIR"] = str(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "pconv_server", "serve", "--cpu", *options], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the server did not start")
        connection = read_connection(folder / "connection.json")
        assert connection is not None  # written before the line
        with Client(connection) as client:
            yield client
    finally:
        process.terminate()
        process.communicate()
        os.environ.pop("PCONV_CONFIG_DIR")
        if before is not None:
            os.environ["PCONV_CONFIG_DIR"] = before
