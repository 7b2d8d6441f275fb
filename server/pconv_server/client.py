"""A client of the contract for `pconv`, the demo and the tests: blocking, arrays in, arrays out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from pconv_api import PROTOCOL_VERSION, Box, Texture
from pconv_api.v1 import pconv_pb2 as pb
from pconv_api.v1 import pconv_pb2_grpc

from pconv_server.connection import Connection
from pconv_server.errors import SetupError
from pconv_server.rasters import Array, decode_image, encode_hole, encode_image, pixel_format, split

CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)  # grpc would dial 127.0.0.1 through http_proxy, and hang

Part = tuple[Box, Array, "NDArray[np.bool_] | None"]


class Client:
    """A connection to a server.

    Args:
        connection: Address and token.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._metadata = (("authorization", f"Bearer {connection.token}"),)
        self.channel = _channel(connection)
        self._stub = pconv_pb2_grpc.PConvStub(self.channel)
        self.last: pb.Result | None = None  # header of the latest result
        self.finished: pb.Finished | None = None  # its times
        self.notice: Callable[[str], None] = lambda text: None  # told what the server did instead, as smaller tiles

    def close(self) -> None:
        """Hang up."""
        self.channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_serving(self, timeout: float = 2.0) -> bool:
        """Whether the server answers."""
        try:
            request = health_pb2.HealthCheckRequest()
            reply = health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=timeout)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def info(self, timeout: float = 5.0) -> pb.GetServerInfoReply:
        """Ask what the server is."""
        request = pb.GetServerInfoRequest(protocol_version=PROTOCOL_VERSION)
        reply: pb.GetServerInfoReply = self._stub.GetServerInfo(request, timeout=timeout, metadata=self._metadata)
        return reply

    def models(self, timeout: float = 30.0) -> list[pb.Model]:
        """Ask which models there are."""
        reply = self._stub.ListModels(pb.ListModelsRequest(), timeout=timeout, metadata=self._metadata)
        return list(reply.models)

    def inpaint(
        self,
        size: tuple[int, int],
        parts: Sequence[Part],
        model: str = "",
        progress: Callable[[float], None] = lambda _: None,
        timeout: float | None = None,
        texture: Texture = Texture.PHOTO,
    ) -> list[Array]:
        """Fill boxes of a picture.

        Args:
            size: Width and height of the whole picture, px.
            parts: For each box its place, its pixels `(H, W, C)` and its hole `(H, W)`.
            model: Name; empty: the default.
            progress: Called with the fraction done.
            timeout: Seconds for all of it; None: no limit.
            texture: Where it comes from.

        Returns:
            The filled pixels of each box.

        Raises:
            grpc.RpcError: With the status and message of the contract.
        """
        requests = job_requests(size, parts, model, {"texture": texture.value})
        call = self._stub.Inpaint(requests, timeout=timeout, metadata=self._metadata)
        rasters = [bytearray() for _ in parts]
        for band in self._bands(call, progress):
            rasters[band.box] += band.image
        channels, number = parts[0][1].shape[2], pixel_format(parts[0][1])
        return [
            decode_image(raster, box.width, box.height, channels, number)
            for raster, (box, _, _) in zip(rasters, parts, strict=True)
        ]

    def upscale(
        self,
        image: Array,
        hole: "NDArray[np.bool_] | None" = None,
        model: str = "",
        progress: Callable[[float], None] = lambda _: None,
        timeout: float | None = None,
    ) -> Iterator[Array]:
        """Enlarge a picture `(H, W, C)`; yields rows of the result from the top, as many as have come."""
        height, width, channels = image.shape
        parts = [(Box(0, 0, width, height), image, hole)]
        call = self._stub.Upscale(job_requests((width, height), parts, model), timeout=timeout, metadata=self._metadata)
        left = bytearray()
        for band in self._bands(call, progress):
            assert self.last is not None  # the contract: the result's header comes first
            left += band.image
            large = self.last.picture.width
            row = large * channels * image.itemsize
            rows = len(left) // row
            if rows:
                yield decode_image(bytes(left[: rows * row]), large, rows, channels, pixel_format(image))
                del left[: rows * row]

    def _bands(self, call: Any, progress: Callable[[float], None]) -> Iterator[pb.Band]:
        self.last = self.finished = None
        try:
            for reply in call:
                kind = reply.WhichOneof("event")
                if kind == "progress":
                    progress(reply.progress.fraction)
                elif kind == "notice":
                    self.notice(reply.notice.text)
                elif kind == "result":
                    self.last = reply.result
                elif kind == "band":
                    yield reply.band
                elif kind == "finished":
                    self.finished = reply.finished
        finally:
            call.cancel()  # does nothing after the end; before it, frees the worker


def job_requests(
    size: tuple[int, int], parts: Sequence[Part], model: str, options: Mapping[str, str] | None = None
) -> Iterator[pb.JobRequest]:
    """The messages of a request; arguments as for `Client.inpaint`, `options` as in the contract."""
    image = parts[0][1]
    picture = pb.Picture(width=size[0], height=size[1], channels=image.shape[2], format=pixel_format(image))  # type: ignore[arg-type] # the enum's stub
    boxes = [pb.Box(x=box.x, y=box.y, width=box.width, height=box.height) for box, _, _ in parts]
    header = pb.Header(protocol_version=PROTOCOL_VERSION, model=model, picture=picture, boxes=boxes, options=options)
    yield pb.JobRequest(header=header)
    for index, (_, pixels, hole) in enumerate(parts):
        for piece in split(encode_image(pixels)):
            yield pb.JobRequest(band=pb.Band(box=index, image=piece))
        if hole is not None:
            for piece in split(encode_hole(hole)):
                yield pb.JobRequest(band=pb.Band(box=index, hole=piece))


@contextmanager
def explained() -> Iterator[None]:
    """Turn a status into a `RuntimeError` with the server's own sentence; if it has gone, with one that says so."""
    try:
        yield
    except grpc.RpcError as error:
        text = str(error.details())
        own = any(key == "pconv-request-id" for key, _ in error.trailing_metadata() or ())
        if error.code() == grpc.StatusCode.UNAVAILABLE and not own:
            text = f"the server broke off ({text}); see: pconv-server status"
        raise RuntimeError(text) from error


def _channel(connection: Connection) -> grpc.Channel:
    if not connection.tls_ca:
        return grpc.insecure_channel(connection.address, options=CHANNEL_OPTIONS)
    try:
        trusted = Path(connection.tls_ca).read_bytes()
    except OSError as error:
        raise SetupError(f"cannot read the certificate {connection.tls_ca}: {error.strerror}") from error
    credentials = grpc.ssl_channel_credentials(trusted)
    return grpc.secure_channel(connection.address, credentials, options=CHANNEL_OPTIONS)
