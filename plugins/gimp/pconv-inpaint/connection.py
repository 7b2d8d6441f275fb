"""Where the server is, and the token that it asks for: as `pconv-server` has written it."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from failures import NoServerError

START = "Start one in a terminal: pconv-server serve"


class Connection(NamedTuple):
    """How to reach a server."""

    address: str  # "127.0.0.1:50451" or "unix:/path"
    token: str
    tls_ca: str = ""  # path of the certificate to trust; empty: no TLS


def config_folder() -> Path:
    """The user's folder for pconv, as `pconv-server` finds it."""
    if os.environ.get("PCONV_CONFIG_DIR"):
        return Path(os.environ["PCONV_CONFIG_DIR"])
    if os.name == "nt":
        return Path(os.environ.get("APPDATA") or Path.home()) / "pconv"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pconv"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pconv"


def find_connection(beside: Path, address: str = "") -> Connection:
    """Read how to reach the server.

    Args:
        beside: Folder of the plug-in, which has a copy for GIMPs that do not see the user's folders.
        address: Another server than the known one; it gets the known token.

    Raises:
        NoServerError: No server has ever run here.
    """
    for path in (config_folder() / "connection.json", beside / "connection.json"):
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            known = Connection(str(fields["address"]), str(fields["token"]), str(fields.get("tls_ca", "")))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the other one may be whole
        return known._replace(address=address.strip()) if address.strip() else known
    if address.strip():
        return Connection(address.strip(), "")
    raise NoServerError(f"No pconv server has run here yet. {START}")


def endpoint(connection: Connection) -> "dict[str, Any]":
    """Take an address apart: `path`, or `host` and `port`.

    Raises:
        NoServerError: It is no address.
    """
    if connection.address.startswith("unix:"):
        return {"path": connection.address[len("unix:") :]}
    host, _, port = connection.address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise NoServerError(
            f"{connection.address!r} is no address of a server: expected HOST:PORT, as in 127.0.0.1:50451, or unix:PATH"
        )
    return {"host": host.strip("[]"), "port": int(port)}
