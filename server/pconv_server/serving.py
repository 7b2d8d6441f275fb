"""From the options of `pconv-server serve` to a server that runs until it is told to stop."""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from pconv_api import DEFAULT_PORT

from pconv_server.connection import Connection, choose_token, config_folder, write_connection
from pconv_server.devices import Precision, choose_devices, describe
from pconv_server.engine import Engine
from pconv_server.info import log_file, log_to_file, memory_bytes, version
from pconv_server.models import ModelFolder
from pconv_server.requests import Limits
from pconv_server.server import ServerSettings, create_server

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The options of `pconv-server serve`."""

    gpus: tuple[int, ...] = ()
    cpu: bool = False
    precision: Precision = "auto"
    threads: int | None = None
    memory: int | None = None  # for the features of a network, bytes
    models: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    unix: Path | None = None
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    idle_minutes: float = 10.0
    queue: int = 16
    max_pixels: int = 400_000_000
    silence_seconds: float = 60.0


def run_server(choice: Choice) -> None:
    """Serve until SIGTERM, SIGINT, or Ctrl+C.

    Raises:
        SetupError: It cannot serve as asked; nothing was started.
    """
    settings = ServerSettings(
        token=choose_token(choice.token_file),
        host=choice.host,
        port=choice.port,
        unix=choice.unix,
        tls_cert=choice.tls_cert,
        tls_key=choice.tls_key,
        limits=Limits(choice.max_pixels, choice.queue, choice.silence_seconds),
        release_minutes=choice.idle_minutes,
    )
    if choice.threads is not None:
        torch.set_num_threads(choice.threads)
    devices = choose_devices(choice.gpus, choice.cpu, choice.precision)
    models = ModelFolder(choice.models or config_folder() / "models")
    log_to_file(log_file())
    asyncio.run(_serve([Engine(device, models, choice.memory) for device in devices], settings, choice))


async def _serve(engines: list[Engine], settings: ServerSettings, choice: Choice) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    server, _ = await create_server(engines, settings)
    await server.start()
    ca = str(settings.tls_cert.absolute()) if settings.tls_cert else ""
    write_connection(Connection(server.address, settings.token, ca))
    line = start_line(server.address, engines, not choice.cpu and not choice.gpus)
    log.info("started", extra={"line": line, "pid": os.getpid()})
    typer.echo(line)
    await stop.wait()
    await server.stop()
    log.info("stopped")


def start_line(address: str, engines: list[Engine], chosen_by_us: bool) -> str:
    """Address, devices, precision, memory and models, in one line."""
    parts = [f"pconv-server {version()} at {address}"]
    for engine in engines:
        device, (total, used) = engine.device, memory_bytes(engine.device.name)
        why = ", no GPU found" if chosen_by_us and not device.is_cuda else ""
        memory = f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"
        parts.append(f"{device.name} ({describe(device.name)}{why}) {device.precision}, memory {memory}")
    usable = {entry.name: f"{entry.name} ({entry.preset})" for entry in engines[0].models.entries() if entry.info}
    missing = [task for task in ("inpaint", "upscale") if task not in usable]
    parts.append("models " + (", ".join(usable.values()) or "none"))
    if missing:
        parts.append(f"no weights to {' and '.join(missing)} (see: pconv-server doctor)")
    return " · ".join(parts)
