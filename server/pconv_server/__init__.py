"""The model server: networks of `pconv` on a device, behind gRPC, and the programs around it."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pconv_server.engine import Engine
    from pconv_server.server import create_server

# gRPC's C core writes notes of its own to stderr, beside the sentences of ours that say the same.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__all__ = ["Engine", "create_server"]


def __getattr__(name: str) -> Any:  # torch takes seconds to import, `pconv --help` must not
    if name == "Engine":
        from pconv_server.engine import Engine

        return Engine
    if name == "create_server":
        from pconv_server.server import create_server

        return create_server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
