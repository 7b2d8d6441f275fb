"""What serving needs, looked at one by one; each problem with its remedy."""

import os
import platform
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pconv_server.connection import (
    Connection,
    config_folder,
    connection_file,
    default_address,
    is_listening,
    read_connection,
)
from pconv_server.errors import SetupError
from pconv_server.info import log_file, version
from pconv_server.plugin import find_profiles, installed_version


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    text: str
    remedy: str = ""  # empty: all is well


def checks() -> Iterator[Check]:
    """Look at everything; nothing is changed."""
    yield check_python(sys.version_info[:2])
    yield from check_torch()
    yield from check_models()
    yield check_connection_file()
    yield check_server()
    yield check_log()
    yield from check_plugins(find_profiles(Path.home(), os.environ, sys.platform))


def check_plugins(profiles: list[Path]) -> Iterator[Check]:
    """Whether the newest GIMP 3 of this user has the plug-in, and every plug-in is of this version."""
    if not profiles:
        yield Check("no profile of GIMP 3: without GIMP, `pconv` fills holes of files")
    newest = max((profile.name for profile in profiles), default="")
    for profile in profiles:
        found = installed_version(profile)
        if found is None:
            yield Check(f"no plug-in in {profile}", "pconv-server install-plugin" if profile.name == newest else "")
        elif found != version():
            yield Check(
                f"the plug-in in {profile} is of pconv {found}, this is {version()}", "pconv-server install-plugin"
            )
        else:
            yield Check(f"plug-in of pconv {found} in {profile}")


def check_python(found: tuple[int, int]) -> Check:
    """Python's version."""
    text = f"Python {platform.python_version()}, pconv {version()}"
    return Check(text, "" if found >= (3, 11) else "install Python 3.11 or newer, and pconv into it")


def check_torch() -> Iterator[Check]:
    """PyTorch, its GPUs, and whether it has code for them."""
    try:
        import torch
        from pconv.precision import prefers_bf16

        from pconv_server.devices import describe
    except (ImportError, OSError) as error:
        yield Check(f"PyTorch does not load: {error}", "install it again: https://pytorch.org/get-started/locally/")
        return
    yield Check(f"PyTorch {torch.__version__}, CPU {describe('cpu')}, {'bf16' if prefers_bf16('cpu') else 'fp32'}")
    if torch.version.cuda is None:
        yield Check("no CUDA in this PyTorch: serving on the CPU")
    elif not torch.cuda.is_available():
        yield Check(f"CUDA {torch.version.cuda}: no GPU or driver found: serving on the CPU")
    else:
        built_for = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            yield check_gpu(describe(f"cuda:{index}"), torch.cuda.get_device_capability(index), built_for)


def check_gpu(name: str, capability: tuple[int, int], built_for: list[str]) -> Check:
    """Whether PyTorch has code for a GPU: of its generation, or an older one's that runs on it."""
    major, minor = capability
    same = any(arch == f"sm_{major}{other}" for arch in built_for for other in range(minor + 1))
    text = f"GPU {name}, compute capability {major}.{minor}"
    if same or any(arch.startswith("compute_") for arch in built_for):
        return Check(text)
    return Check(
        f"{text}: this PyTorch is built for {', '.join(built_for)}",
        "install a PyTorch for this GPU (https://pytorch.org/get-started/locally/), or serve with --cpu",
    )


def check_models() -> Iterator[Check]:
    """The default weights, and the user's models."""
    from pconv_server.models import ModelFolder

    folder = ModelFolder(config_folder() / "models")
    entries = {entry.name: entry for entry in folder.entries()}
    for task in ("inpaint", "upscale"):
        if task not in entries:
            remedy = f"pconv-train export RUN -o {config_folder() / 'models' / f'{task}.safetensors'}"
            yield Check(f"no weights to {task}", f"{remedy}, or install a release of pconv, which carries them")
    for entry in entries.values():
        if entry.info is None:
            yield Check(f"model {entry.name}: {entry.problem}", f"export it again, or delete {entry.path}")
        else:
            yield Check(f"model {entry.name}: {entry.info.task}, {entry.preset}, sha256 {entry.info.sha256}")


def check_connection_file() -> Check:
    """Token and address, for the owner's eyes only."""
    path = connection_file()
    try:
        known = read_connection(path)
    except SetupError as error:
        return Check(f"{path} is damaged", f"delete it: {error}")
    if known is None:
        return Check(f"no {path} yet: `pconv-server serve` writes it")
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Check(f"others can read the token in {path} (mode {mode:04o})", f"chmod 600 {path}")
    return Check(f"token in {path}, for its owner only")


def check_server() -> Check:
    """Who listens where the server should."""
    known = read_or_none()
    address = known.address if known else default_address()
    if not is_listening(address):
        return Check(f"no server runs; {address} is free")
    if known is not None:
        import grpc

        from pconv_server.client import Client

        with Client(known) as client:
            try:
                return Check(f"a server runs at {address}, pconv {client.info(timeout=2).version}")
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    return Check(f"the server at {address} has another token", "stop it, and start pconv-server again")
    return Check(f"another program listens at {address}", "end it, or: pconv-server serve --port 0")


def read_or_none() -> Connection | None:
    """connection.json, if it can be read."""
    try:
        return read_connection()
    except SetupError:
        return None


def check_log() -> Check:
    """Whether the log can be written."""
    folder = log_file().parent
    while not folder.exists():
        folder = folder.parent
    if os.access(folder, os.W_OK):
        return Check(f"log in {log_file()}")
    return Check(f"cannot write {log_file()}", f"make {folder} writable")
