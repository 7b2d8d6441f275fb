"""`pconv-server`: serve, status, stop, models, install-plugin, doctor."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from pconv_api.v1 import pconv_pb2 as pb

    from pconv_server.client import Client

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

NO_SERVER = 3  # exit code of `status` and `stop` when none runs
ModelsFolder = Annotated[
    Path | None, typer.Option("--models", help="Folder of further models; by default `models` in the config folder.")
]


@app.command()
def serve(
    gpu: Annotated[list[int] | None, typer.Option(min=0, help="Number of a GPU; repeat for several.")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Serve on the CPU.")] = False,
    precision: Annotated[str, typer.Option(help="auto (what the hardware computes with), fp32, bf16, fp16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default one a core.")] = None,
    memory: Annotated[int | None, typer.Option(min=64, help="MiB for features; default: half a GPU, else 512.")] = None,
    models: ModelsFolder = None,
    host: Annotated[str, typer.Option(help="Address to listen at; another than loopback needs TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 = any free one.")] = 50451,
    unix: Annotated[Path | None, typer.Option(help="Listen at a unix socket instead.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File (mode 0600) with the token of clients.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    idle: Annotated[float, typer.Option(min=0.01, help="Minutes without a job, then GPU memory is freed.")] = 10.0,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 16,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Of a request.")] = 400.0,
    silence: Annotated[float, typer.Option(min=0.1, help="Seconds that a client may say nothing.")] = 60.0,
) -> None:
    """Serve the networks until stopped (Ctrl+C, SIGTERM, or `pconv-server stop`)."""
    from pconv_server.errors import SetupError
    from pconv_server.serving import Choice, run_server

    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise typer.BadParameter(f"{precision!r} is not one of auto, fp32, bf16, fp16", param_hint="--precision")
    choice = Choice(
        gpus=tuple(gpu or ()),
        cpu=cpu,
        precision=precision,  # type: ignore[arg-type] # checked above
        threads=threads,
        memory=None if memory is None else memory << 20,
        models=models,
        host=host,
        port=port,
        unix=unix,
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        idle_minutes=idle,
        queue=queue,
        max_pixels=round(max_megapixels * 1e6),
        silence_seconds=silence,
    )
    try:
        run_server(choice)
    except SetupError as error:
        _fail(str(error), 2)


@app.command()
def status() -> None:
    """Tell where the server is, on what it runs, and what it does. Exit code 3: none runs."""
    client = _reach()
    info = _ask(client)
    typer.echo(f"running   {client.connection.address}, process {info.pid}, pconv {info.version}")
    for device in info.devices:
        memory = f"{device.memory_used_bytes / 1e9:.1f} of {device.memory_bytes / 1e9:.1f} GB"
        typer.echo(f"device    {device.name} ({device.description}), {device.precision}, memory {memory}")
    limits = info.limits
    typer.echo(f"jobs      {info.jobs} now; limits: {limits.queue} waiting, {limits.pixels / 1e6:g} megapixels each")
    typer.echo(f"log       {info.log_file}")


@app.command()
def stop() -> None:
    """Stop the server; a running job has five seconds to finish. Exit code 3: none runs."""
    import os
    import signal
    import time

    from pconv_server.connection import is_listening, runs_here

    client = _reach()
    address, pid = client.connection.address, _ask(client).pid
    client.close()
    if not runs_here(address, pid):
        why = f"is reached through a network or a container, so process {pid} here may be another program"
        _fail(f"the server at {address} {why}; end it where it runs: kill {pid}", 1)
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError) as error:
        _fail(f"the server at {address} is process {pid}, which cannot be stopped from here: {error.strerror}", 1)
    deadline = time.monotonic() + 45
    while is_listening(address):
        if time.monotonic() > deadline:
            _fail(f"process {pid} does not end; end it with: kill -9 {pid}", 1)
        time.sleep(0.05)
    typer.echo(f"stopped the server at {address}")


@app.command()
def models(folder: ModelsFolder = None) -> None:
    """List the models that a server here would have: name, task, preset, size, sha256, provenance."""
    from pconv_server.connection import config_folder
    from pconv_server.models import ModelFolder

    known = ModelFolder(folder or config_folder() / "models")
    entries = known.entries()
    for entry in entries:
        if entry.info is None:
            typer.echo(f"{entry.name}  problem: {entry.problem}")
            continue
        origin = "default" if entry.is_default else str(entry.path.parent)
        size = f"{entry.size / 1e6:.1f} MB, {entry.info.parameters / 1e6:.1f} M parameters"
        typer.echo(f"{entry.name}  {entry.info.task}  {entry.preset}  {size}  {origin}")
        typer.echo(f"    sha256 {entry.info.sha256}")
        typer.echo(f"    {entry.provenance}")
    if not entries:
        _fail(
            f"there are no models, neither in {known.default} nor in {known.user}; make one with: pconv-train export", 1
        )


@app.command()
def install_plugin(
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Remove it instead.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    target: Annotated[
        Path | None, typer.Option(help="Folder of a GIMP profile (…/GIMP/3.0); by default all that there are.")
    ] = None,
) -> None:
    """Put the plug-in into every GIMP 3 of this user."""
    from pconv_server import plugin
    from pconv_server.errors import SetupError

    try:
        for profile in [target] if target else plugin.profiles():
            where = plugin.plugin_folder(profile)
            if uninstall:
                there = where.is_dir() if dry_run else plugin.uninstall(profile)
                typer.echo(f"{'would remove' if dry_run else 'removed'} {where}" if there else f"not in {profile}")
            elif dry_run:
                plugin.source_folder()
                typer.echo(f"would install {where}")
            else:
                typer.echo(f"installed {plugin.install(profile)}")
    except SetupError as error:
        _fail(str(error), 2)
    if not uninstall and not dry_run:
        typer.echo("start GIMP anew: Filters → Partial Conv Inpaint…, Image → Upscale x4…")


@app.command()
def doctor() -> None:
    """Check everything that serving needs: each line ok, or a problem with its remedy. Exit code 1: a problem."""
    from pconv_server.doctor import checks

    bad = 0
    for check in checks():
        typer.echo(f"{'problem' if check.remedy else 'ok':8}{check.text}")
        if check.remedy:
            bad += 1
            typer.echo(f"{'':8}remedy: {check.remedy}")
    typer.echo("all is well" if not bad else f"{bad} problem{'s' if bad > 1 else ''}")
    raise typer.Exit(1 if bad else 0)


def _reach() -> "Client":
    """A client of the running server."""
    from pconv_server.client import Client
    from pconv_server.connection import is_listening, read_connection
    from pconv_server.errors import SetupError

    try:
        known = read_connection()
        if known is None or not is_listening(known.address):
            where = f" at {known.address}" if known else ""
            _fail(f"no server runs{where}; start one with: pconv-server serve", NO_SERVER)
        return Client(known)
    except SetupError as error:
        _fail(str(error), 2)


def _ask(client: "Client") -> "pb.GetServerInfoReply":
    from pconv_server.client import explained

    try:
        with explained():
            return client.info()
    except RuntimeError as error:
        _fail(f"{client.connection.address} does not answer as a pconv server: {error}", 1)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"pconv-server: {sentence}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
