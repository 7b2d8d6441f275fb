"""The model server: networks of `pconv` on a device, behind gRPC, and the programs around it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pconv_server.engine import Engine
    from pconv_server.server import create_server

__all__ = ["Engine", "create_server"]


def __getattr__(name: str) -> Any:  # torch takes seconds to import, `pconv --help` must not
    if name == "Engine":
        from pconv_server.engine import Engine

        return Engine
    if name == "create_server":
        from pconv_server.server import create_server

        return create_server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
