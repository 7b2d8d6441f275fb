"""Where the server is, and the token that it asks for: connection.json in the config folder, for its owner only."""

import json
import os
import re
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from pconv_api import DEFAULT_PORT

from pconv_server.errors import SetupError
from pconv_server.files import replace_file


@dataclass(frozen=True)
class Connection:
    """How to reach a server. Missing fields of older files have their defaults."""

    address: str  # "127.0.0.1:50451" or "unix:/path"
    token: str
    tls_ca: str = ""  # path of the certificate to trust; empty: no TLS


def config_folder() -> Path:
    """The user's folder for pconv: connection.json, models, server.log; PCONV_CONFIG_DIR names another."""
    return Path(os.environ.get("PCONV_CONFIG_DIR") or typer.get_app_dir("pconv"))


def connection_file() -> Path:
    """Where `serve` writes how to reach it."""
    return config_folder() / "connection.json"


def read_connection(path: Path | None = None) -> Connection | None:
    """Read connection.json; None if there is none.

    Raises:
        SetupError: The file is damaged.
    """
    path = path or connection_file()
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        address = str(fields["address"])
        if not address.startswith("unix:") and not address.rpartition(":")[2].isdigit():
            raise ValueError(f"{address!r} is no address: expected HOST:PORT or unix:PATH")
        return Connection(address, str(fields["token"]), str(fields.get("tls_ca", "")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(
            f"{path} cannot be read ({error}); delete it, and `pconv-server serve` writes it anew"
        ) from error


def write_connection(connection: Connection, path: Path | None = None) -> Path:
    """Write connection.json, readable by its owner only from its first byte on."""
    path = path or connection_file()
    replace_file(path, (json.dumps(asdict(connection), indent=2) + "\n").encode(), mode=0o600)
    return path


def choose_token(token_file: Path | None) -> str:
    """Take the token of a file, or that of connection.json, or make one.

    Raises:
        SetupError: The file is missing, empty, or others can read it.
    """
    if token_file is None:
        known = read_connection()
        return known.token if known and known.token else secrets.token_urlsafe(32)
    try:
        token = token_file.read_text(encoding="utf-8").strip()
        mode = token_file.stat().st_mode & 0o077
    except OSError as error:
        raise SetupError(f"cannot read the token file {token_file}: {error.strerror}") from error
    if not token:
        raise SetupError(f"the token file {token_file} is empty: write one line of at least 16 characters into it")
    if mode and os.name == "posix":
        raise SetupError(f"others can read the token file {token_file}: chmod 600 {token_file}")
    return token


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach the host's address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def is_listening(address: str) -> bool:
    """Whether something answers at "host:port" or "unix:/path"."""
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def runs_here(address: str, pid: int) -> bool:
    """Whether the server at an address can be this machine's process of that number, and not some other program."""
    host = address.rpartition(":")[0].strip("[]")
    if not address.startswith("unix:") and not _is_own(host):
        return False
    if not Path("/proc/self/cmdline").exists():
        return True
    try:  # at this machine's address a container or a tunnel may answer
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return re.search(rb"pconv[-_]server(/\w+\.py)?\0serve\0", command) is not None


def _is_own(host: str) -> bool:
    """Whether a host is this machine, of whose addresses alone a socket can be bound."""
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as own:
                own.bind(place)
    except OSError:
        return False
    return True


def default_address() -> str:
    """Where a server listens when nothing else is said."""
    return f"127.0.0.1:{DEFAULT_PORT}"
