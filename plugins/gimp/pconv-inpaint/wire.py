"""The gRPC client: pictures out, pictures in, in pure Python. Errors become sentences here."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from connection import START, Connection, endpoint
from failures import NoServerError, ServerError
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from pconv_api import PROTOCOL_VERSION, Box
from pconv_api.v1 import pconv_pb2 as pb

SERVICE = "/pconv_api.v1.PConv"
BAND_BYTES = 1 << 20
WINDOW_BYTES = 16 << 20  # HTTP/2's default of 64 KiB would wait for every band's acknowledgement
SILENCE_SECONDS = 300.0  # of the server; a large tile on a slow CPU may take a minute
INFO_SECONDS = 5.0  # for a server that should answer at once
SAMPLE_BYTES = {"u8": 1, "u16": 2, "float": 4}
PIXEL_FORMATS = {"u8": pb.PIXEL_FORMAT_U8, "u16": pb.PIXEL_FORMAT_U16, "float": pb.PIXEL_FORMAT_F32}


class Picture(NamedTuple):
    """What kind of picture travels."""

    width: int
    height: int
    channels: int  # 1 = gray, 3 = RGB
    sample: str  # of `SAMPLE_BYTES`

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel."""
        return self.channels * SAMPLE_BYTES[self.sample]


class Part(NamedTuple):
    """A box of the picture with its packed rows, in one piece or, to save memory, in several."""

    box: Box
    image: "bytes | Iterable[bytes]"
    hole: "bytes | Iterable[bytes]" = b""  # empty: none (Upscale)


class Events(NamedTuple):
    """Who is told what while the server works: the fraction done, what is done, what else the server says."""

    progress: Callable[[float], None] = lambda fraction: None
    doing: Callable[[str], None] = lambda text: None
    notice: Callable[[str], None] = lambda text: None


class Request(NamedTuple):
    """What is asked of a server."""

    method: str  # "Inpaint" or "Upscale"
    picture: Picture  # the whole; only the parts travel
    parts: "Sequence[Part]"
    model: str = ""  # empty: the server's default
    options: "Mapping[str, str]" = MappingProxyType({})  # named settings of the contract
    doing: str = ""  # in words, for when it is its turn


def inpaint(connection: Connection, request: Request, events: Events) -> list[bytes]:
    """Fill boxes of a picture.

    Args:
        connection: Which server.
        request: The picture's surroundings of the holes, with the holes.
        events: Told about queue, progress and notices.

    Returns:
        The packed rows of each part, as sent but for the hole.

    Raises:
        NoServerError: None answers.
        ServerError: It refused or failed.
    """
    results = [bytearray() for _ in request.parts]

    def take(band: Any, _: Any) -> None:
        results[band.box] += band.image

    _run(connection, _call(connection, request, events, take))
    for index, (part, result) in enumerate(zip(request.parts, results, strict=True)):
        expected = part.box.area * request.picture.pixel_bytes
        if len(result) != expected:
            raise ServerError("INTERNAL", f"The server sent {len(result)} bytes of part {index}: not {expected}")
    return [bytes(result) for result in results]


def upscale(connection: Connection, request: Request, events: Events, take: Callable[[int, int, bytes], None]) -> int:
    """Enlarge a picture.

    Args:
        connection: Which server.
        request: One part, the whole picture.
        events: Told about queue, progress and notices.
        take: Called with the enlarged width, the number of the first row, and packed rows, from the top.

    Returns:
        The factor.

    Raises:
        NoServerError: None answers.
        ServerError: It refused or failed.
    """
    left, above = bytearray(), 0
    picture = request.picture

    def take_band(band: Any, result: Any) -> None:
        nonlocal above
        left.extend(band.image)
        row = result.picture.width * picture.pixel_bytes
        rows = len(left) // row
        if rows:
            take(result.picture.width, above, bytes(left[: rows * row]))
            del left[: rows * row]
            above += rows

    result = _run(connection, _call(connection, request, events, take_band))
    size = (result.picture.width, result.picture.height) if result is not None else (0, 0)
    factor = size[0] // picture.width
    if factor < 1 or size != (factor * picture.width, factor * picture.height) or left or above != size[1]:
        found = f"{above} rows of {size[0]} × {size[1]} px"
        raise ServerError("INTERNAL", f"The server sent {found} for {picture.width} × {picture.height} px")
    return factor


def is_serving(connection: Connection) -> bool:
    """Whether a server answers, and knows the token."""
    try:
        return bool(_run(connection, _info(connection)).protocol_version)
    except (NoServerError, ServerError):
        return False


def _run(connection: Connection, call: "Coroutine[Any, Any, Any]") -> Any:
    """Wait for a call; whatever goes wrong becomes a sentence."""
    try:
        return asyncio.run(call)
    except GRPCError as error:
        raise ServerError(error.status.name, error.message or f"The server refused: {error.status.name}") from error
    except (StreamTerminatedError, ProtocolError) as error:
        text = f"The server at {connection.address} broke off ({error}); see: pconv-server status"
        raise ServerError("UNAVAILABLE", text) from error
    except asyncio.TimeoutError as error:  # noqa: UP041 - Python 3.10 tells it from TimeoutError
        text = (
            f"The server at {connection.address} has said nothing for {SILENCE_SECONDS:g} s; see: pconv-server status"
        )
        raise ServerError("DEADLINE_EXCEEDED", text) from error
    except ssl.SSLError as error:
        text = f"The server at {connection.address} is not the one whose certificate is known ({reason(error)})"
        raise ServerError("UNAVAILABLE", text) from error
    except OSError as error:
        raise NoServerError(f"No pconv server answers at {connection.address} ({reason(error)}). {START}") from error


async def _call(connection: Connection, request: Request, events: Events, take: Callable[[Any, Any], None]) -> Any:
    """One request; returns the header of the result."""
    result = None
    with _channel(connection) as channel:
        call = StreamStreamMethod(channel, f"{SERVICE}/{request.method}", pb.JobRequest, pb.JobReply)
        async with call.open(metadata=_credentials(connection)) as stream:
            await asyncio.wait_for(_send(stream, request), SILENCE_SECONDS)  # a server may hang, and not read
            async for reply in _replies(stream):
                kind = reply.WhichOneof("event")
                if kind == "progress":
                    events.progress(reply.progress.fraction)
                elif kind == "queued":
                    events.doing(_waiting(reply.queued.ahead) or request.doing)
                elif kind == "notice":
                    events.notice(reply.notice.text)
                elif kind == "result":
                    result = reply.result
                elif kind == "band":
                    take(reply.band, result)
    return result


async def _send(stream: Any, request: Request) -> None:
    await stream.send_message(pb.JobRequest(header=_header(request)))
    for message in _bands(request.parts):
        await stream.send_message(message)
    await stream.end()


async def _info(connection: Connection) -> Any:
    with _channel(connection) as channel:
        call = UnaryUnaryMethod(channel, f"{SERVICE}/GetServerInfo", pb.GetServerInfoRequest, pb.GetServerInfoReply)
        question = pb.GetServerInfoRequest(protocol_version=PROTOCOL_VERSION)
        return await call(question, metadata=_credentials(connection), timeout=INFO_SECONDS)


@contextmanager
def _channel(connection: Connection) -> Iterator[Channel]:
    config = Configuration(http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES)
    channel = Channel(**endpoint(connection), ssl=_trusted(connection), config=config)
    try:
        yield channel
    finally:
        channel.close()


def _trusted(connection: Connection) -> "ssl.SSLContext | None":
    if not connection.tls_ca:
        return None
    try:
        trusted = ssl.create_default_context(cafile=connection.tls_ca)
    except OSError as error:
        text = f"The server's certificate {connection.tls_ca} cannot be read ({reason(error)})"
        raise ServerError("UNAVAILABLE", text) from error
    trusted.set_alpn_protocols(["h2"])  # a gRPC server talks to no other
    return trusted


def reason(error: OSError) -> str:
    """What went wrong, in short: asyncio says it at length, and the numbers of TLS are not the system's."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or error)
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _waiting(ahead: int) -> str:
    return f"Waiting for {ahead} other job{'s' if ahead > 1 else ''}" if ahead else ""


def _credentials(connection: Connection) -> "dict[str, str]":
    return {"authorization": f"Bearer {connection.token}"}


async def _replies(stream: Any) -> AsyncIterator[Any]:
    while (reply := await asyncio.wait_for(stream.recv_message(), SILENCE_SECONDS)) is not None:
        yield reply


def _header(request: Request) -> Any:
    picture = request.picture
    kind = pb.Picture(
        width=picture.width, height=picture.height, channels=picture.channels, format=PIXEL_FORMATS[picture.sample]
    )
    boxes = [pb.Box(x=box.x, y=box.y, width=box.width, height=box.height) for box, _, _ in request.parts]
    return pb.Header(
        protocol_version=PROTOCOL_VERSION, model=request.model, picture=kind, boxes=boxes, options=request.options
    )


def _bands(parts: Sequence[Part]) -> Any:
    """The messages after the header, at most `BAND_BYTES` each."""
    for index, part in enumerate(parts):
        for name, raster in (("image", part.image), ("hole", part.hole)):
            for piece in (raster,) if isinstance(raster, bytes) else raster:
                for start in range(0, len(piece), BAND_BYTES):
                    yield pb.JobRequest(band=pb.Band(box=index, **{name: piece[start : start + BAND_BYTES]}))
