"""The gRPC client: pictures out, pictures in, in pure Python. Errors become sentences here."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from connection import START, Connection, endpoint
from failures import NoServerError, ServerError
from grpclib.client import Channel, StreamStreamMethod
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from pconv_api import PROTOCOL_VERSION, Box
from pconv_api.v1 import pconv_pb2 as pb

BAND_BYTES = 1 << 20
WINDOW_BYTES = 16 << 20  # HTTP/2's default of 64 KiB would wait for every band's acknowledgement
SILENCE_SECONDS = 300.0  # of the server; a large tile on a slow CPU may take a minute
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
    """A box of the picture with its packed rows."""

    box: Box
    image: bytes
    hole: bytes  # empty: none (Upscale)


class Events(NamedTuple):
    """Who is told what while the server works."""

    progress: Callable[[float], None] = lambda fraction: None
    queued: Callable[[int], None] = lambda ahead: None
    notice: Callable[[str], None] = lambda text: None


def inpaint(connection: Connection, picture: Picture, parts: Sequence[Part], model: str, events: Events) -> list[bytes]:
    """Fill boxes of a picture.

    Args:
        connection: Which server.
        picture: The whole picture; only the parts travel.
        parts: What the network sees, with its holes.
        model: Name; empty: the server's default.
        events: Told about queue, progress and notices.

    Returns:
        The packed rows of each part, as sent but for the hole.

    Raises:
        NoServerError: None answers.
        ServerError: It refused or failed.
    """
    results = [bytearray() for _ in parts]

    def take(index: int, data: bytes) -> None:
        results[index] += data

    _run(connection, "Inpaint", picture, parts, model, events, take)
    for index, (part, result) in enumerate(zip(parts, results, strict=True)):
        if len(result) != len(part.image):
            raise ServerError("INTERNAL", f"The server sent {len(result)} bytes of part {index}: not {len(part.image)}")
    return [bytes(result) for result in results]


def _run(
    connection: Connection,
    method: str,
    picture: Picture,
    parts: Sequence[Part],
    model: str,
    events: Events,
    take: Callable[[int, bytes], None],
) -> Any:
    """One request; returns the header of the result."""
    try:
        return asyncio.run(_call(connection, method, picture, parts, model, events, take))
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
    except OSError as error:
        reason = (
            os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        )  # asyncio says it at length
        raise NoServerError(f"No pconv server answers at {connection.address} ({reason}). {START}") from error


async def _call(
    connection: Connection,
    method: str,
    picture: Picture,
    parts: Sequence[Part],
    model: str,
    events: Events,
    take: Callable[[int, bytes], None],
) -> Any:
    config = Configuration(http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES)
    trusted = ssl.create_default_context(cafile=connection.tls_ca) if connection.tls_ca else None
    channel = Channel(**endpoint(connection), ssl=trusted, config=config)
    call = StreamStreamMethod(channel, f"/pconv_api.v1.PConv/{method}", pb.JobRequest, pb.JobReply)
    result = None
    try:
        async with call.open(metadata={"authorization": f"Bearer {connection.token}"}) as stream:
            await stream.send_message(pb.JobRequest(header=_header(picture, parts, model)))
            for message in _bands(parts):
                await stream.send_message(message)
            await stream.end()
            async for reply in _replies(stream):
                kind = reply.WhichOneof("event")
                if kind == "progress":
                    events.progress(reply.progress.fraction)
                elif kind == "queued":
                    events.queued(reply.queued.ahead)
                elif kind == "notice":
                    events.notice(reply.notice.text)
                elif kind == "result":
                    result = reply.result
                elif kind == "band":
                    take(reply.band.box, reply.band.image)
        return result
    finally:
        channel.close()


async def _replies(stream: Any) -> AsyncIterator[Any]:
    while (reply := await asyncio.wait_for(stream.recv_message(), SILENCE_SECONDS)) is not None:
        yield reply


def _header(picture: Picture, parts: Sequence[Part], model: str) -> Any:
    kind = pb.Picture(
        width=picture.width, height=picture.height, channels=picture.channels, format=PIXEL_FORMATS[picture.sample]
    )
    boxes = [pb.Box(x=box.x, y=box.y, width=box.width, height=box.height) for box, _, _ in parts]
    return pb.Header(protocol_version=PROTOCOL_VERSION, model=model, picture=kind, boxes=boxes)


def _bands(parts: Sequence[Part]) -> Any:
    """The messages after the header, at most `BAND_BYTES` each."""
    for index, part in enumerate(parts):
        for name, raster in (("image", part.image), ("hole", part.hole)):
            for start in range(0, len(raster), BAND_BYTES):
                yield pb.JobRequest(band=pb.Band(box=index, **{name: raster[start : start + BAND_BYTES]}))
