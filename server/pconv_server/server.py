"""Making, starting and stopping the server: port or socket, token, TLS, health, reflection."""

import asyncio
import hmac
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pconv_api import DEFAULT_PORT
from pconv_api.v1 import pconv_pb2 as pb
from pconv_api.v1 import pconv_pb2_grpc

from pconv_server.connection import is_listening, is_loopback
from pconv_server.engine import Engine
from pconv_server.errors import SetupError
from pconv_server.jobs import JobQueue
from pconv_server.requests import Limits
from pconv_server.service import Service

SERVICE = pb.DESCRIPTOR.services_by_name["PConv"].full_name
GRPC_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server shares the port and steals half of the requests
    ("grpc.keepalive_time_ms", 30_000),  # notices clients whose machine vanished
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class ServerSettings:
    """How a server listens and what it accepts."""

    token: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0: any free one
    unix: Path | None = None  # a socket instead of host and port
    tls_cert: Path | None = None  # PEM, needed for other hosts
    tls_key: Path | None = None
    limits: Limits = field(default_factory=Limits)
    release_minutes: float = 10.0  # without a job, then a GPU's memory is given back

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SetupError("TLS needs both --tls-cert and --tls-key")
        if self.unix is None and not is_loopback(self.host) and not (self.tls_cert and self.token):
            raise SetupError(
                f"--host {self.host} can be reached from other machines: this needs a token and TLS "
                "(--tls-cert FILE --tls-key FILE). Without them use 127.0.0.1"
            )
        if not self.token:
            raise SetupError("a server needs a token: the owner of connection.json is who may use it")


class ModelServer:
    """A gRPC server with its workers; made by `create_server`."""

    def __init__(
        self, server: grpc.aio.Server, queue: JobQueue, status: health.aio.HealthServicer, address: str
    ) -> None:
        self._server, self._queue, self._health = server, queue, status
        self.address = address  # what clients dial: "127.0.0.1:50451" or "unix:/path"

    async def start(self) -> None:
        """Start to answer."""
        self._queue.start()
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace: float = 5.0) -> None:
        """Stop: waiting jobs get UNAVAILABLE at once, running ones after `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await asyncio.to_thread(self._queue.close, grace)
        await self._server.stop(1.0)
        if self.address.startswith("unix:"):
            Path(self.address.removeprefix("unix:")).unlink(missing_ok=True)

    async def wait(self) -> None:
        """Wait until it is stopped."""
        await self._server.wait_for_termination()


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """Lets in only who knows the token; health alone is for everybody."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Pass the call on, or put a refusal in its place."""
        if details.method.startswith("/grpc.health.v1."):
            return await continuation(details)
        found = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
        if found is not None and hmac.compare_digest(str(found).encode(), self._wanted):
            return await continuation(details)
        problem = "no token came with the request" if found is None else "the token is not this server's"

        async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
            text = f"{problem}: expected that of its connection.json (in GIMP: run pconv-server install-plugin again)"
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

        return grpc.stream_stream_rpc_method_handler(refuse)


async def create_server(engines: Sequence[Engine], settings: ServerSettings) -> tuple[ModelServer, int]:
    """Make a server that listens but does not answer yet.

    Args:
        engines: One for each device, each with a worker of its own.
        settings: Where it listens and what it accepts.

    Returns:
        The server, to be started in the same event loop, and its port (0 for a unix socket).

    Raises:
        SetupError: The port or socket is taken, or TLS files cannot be read.
    """
    server = grpc.aio.server(interceptors=[TokenInterceptor(settings.token)], options=GRPC_OPTIONS)
    queue = JobQueue(engines, settings.limits.queue, settings.release_minutes * 60)
    pconv_pb2_grpc.add_PConvServicer_to_server(Service(engines, queue, settings.limits), server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if settings.unix is not None:
        address, port = _listen_unix(server, settings.unix), 0
    else:
        address, port = _listen_port(server, settings)
    return ModelServer(server, queue, status, address), port


def _listen_unix(server: grpc.aio.Server, path: Path) -> str:
    address = f"unix:{path.absolute()}"
    if path.exists():
        if not path.is_socket():
            raise SetupError(f"{path} exists and is no socket: give --unix another path")
        if is_listening(address):
            raise SetupError(f"a server listens at {path} already (see: pconv-server status)")
    old = os.umask(0o177)  # the socket is the owner's from its first moment
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise SetupError(f"cannot listen at {path}: {error}") from error
    finally:
        os.umask(old)
    return address


def _listen_port(server: grpc.aio.Server, settings: ServerSettings) -> tuple[str, int]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
            port = server.add_secure_port(f"{host}:{settings.port}", grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(f"{host}:{settings.port}")
    except OSError as error:
        raise SetupError(f"cannot read the TLS files: {error}") from error
    except RuntimeError as error:
        raise SetupError(
            f"cannot listen at {host}:{settings.port}: the port is taken, by a server that runs already "
            "(see: pconv-server status) or by another program; stop it, or give --port"
        ) from error
    reachable = socket.getfqdn() if settings.host in ("0.0.0.0", "::") else host
    return f"{reachable}:{port}", port
