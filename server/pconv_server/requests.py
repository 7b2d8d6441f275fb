"""A request as it comes in: what a header may say, and rasters that fill up band by band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pconv_api import PROTOCOL_VERSION, Box, Texture
from pconv_api.v1 import pconv_pb2 as pb

from pconv_server.errors import LimitError, ProtocolError, RequestError
from pconv_server.rasters import BAND_BYTES, DTYPES, Array, decode_hole, decode_image

MAX_BOXES = 4096
OPTIONS = {"texture": tuple(Texture)}  # names that Header.options may have, of Inpaint, and their values


@dataclass(frozen=True)
class Limits:
    """What a server accepts."""

    pixels: int = 400_000_000  # of all boxes of a request
    queue: int = 16  # requests that wait
    idle_seconds: float = 60.0  # silence of a client

    def as_message(self) -> pb.Limits:
        """For GetServerInfo."""
        return pb.Limits(
            pixels=self.pixels,
            queue=self.queue,
            boxes=MAX_BOXES,
            band_bytes=BAND_BYTES,
            idle_seconds=self.idle_seconds,
        )


class Upload:
    """The rasters of a request.

    Args:
        header: The first message of the request.
        limits: What the server accepts.
        with_hole: Whether every box must have a hole (Inpaint), or may (Upscale).

    Raises:
        RequestError: The header does not make sense.
        LimitError: It asks for too much.
        ProtocolError: The client speaks another version.
    """

    def __init__(self, header: pb.Header, limits: Limits, with_hole: bool) -> None:
        check_version(header.protocol_version)
        check_options(dict(header.options), OPTIONS if with_hole else {})
        picture = header.picture
        if picture.format not in DTYPES:
            known = ", ".join(pb.PixelFormat.Name(number) for number in DTYPES)
            raise RequestError(f"unknown pixel format {picture.format}: expected one of {known}")
        if picture.channels not in (1, 3):
            raise RequestError(f"a picture has 1 or 3 channels, got {picture.channels}")
        if picture.width < 1 or picture.height < 1:
            raise RequestError(f"a picture has at least 1 × 1 px, got {picture.width} × {picture.height}")
        self.header, self.picture, self.with_hole = header, picture, with_hole
        self.boxes = [Box(b.x, b.y, b.width, b.height) for b in header.boxes] or [
            Box(0, 0, picture.width, picture.height)
        ]
        check_boxes(self.boxes, picture, limits)
        pixel_bytes = picture.channels * DTYPES[picture.format].itemsize
        self._sizes = [(box.area * pixel_bytes, box.area) for box in self.boxes]
        self._images = [bytearray(image) for image, _ in self._sizes]
        self._holes = [bytearray(hole) for _, hole in self._sizes]
        self._got = [[0, 0] for _ in self.boxes]
        self._bands_left = 1024 + sum(image + hole for image, hole in self._sizes) // 4096

    @property
    def pixels(self) -> int:
        """Of all boxes."""
        return sum(box.area for box in self.boxes)

    def add(self, message: pb.JobRequest) -> None:
        """Take the next message of the request.

        Raises:
            RequestError: It is no band, or one that does not fit.
        """
        kind = message.WhichOneof("body")
        if kind != "band":
            found = "a second header" if kind == "header" else "an empty message"
            raise RequestError(f"expected a band, found {found}")
        band = message.band
        size = len(band.image) + len(band.hole)
        if not 1 <= size <= BAND_BYTES:
            raise RequestError(f"a band has {size} bytes: expected 1 to {BAND_BYTES}")
        if band.box >= len(self.boxes):
            raise RequestError(f"a band for box {band.box}: the header has {len(self.boxes)} boxes, counted from 0")
        self._bands_left -= 1
        if self._bands_left < 0:
            raise LimitError("too many small bands: send at least 4 KiB a band on average")
        for which, (name, data) in enumerate((("image", band.image), ("hole", band.hole))):
            got, wanted = self._got[band.box][which], self._sizes[band.box][which]
            if got + len(data) > wanted:
                raise RequestError(f"the {name} of box {band.box} has {got + len(data)} bytes: expected {wanted}")
            raster = (self._images, self._holes)[which][band.box]
            raster[got : got + len(data)] = data
            self._got[band.box][which] = got + len(data)

    def finish(self) -> None:
        """Check that every raster is complete.

        Raises:
            RequestError: A raster is short.
        """
        for index, (got, wanted) in enumerate(zip(self._got, self._sizes, strict=True)):
            if got[0] != wanted[0]:
                raise RequestError(f"the image of box {index} ended after {got[0]} bytes: expected {wanted[0]}")
            if got[1] != wanted[1] and (self.with_hole or got[1]):
                raise RequestError(f"the hole of box {index} ended after {got[1]} bytes: expected {wanted[1]}")

    @property
    def texture(self) -> Texture:
        """Where the texture of the fill comes from."""
        return Texture(self.header.options.get("texture", Texture.PHOTO))

    def image(self, index: int) -> Array:
        """The picture of a box, `(height, width, channels)`."""
        box = self.boxes[index]
        return decode_image(self._images[index], box.width, box.height, self.picture.channels, self.picture.format)

    def hole(self, index: int) -> NDArray[np.bool_] | None:
        """The hole of a box, `(height, width)`, True = fill; None: none was sent."""
        box = self.boxes[index]
        return decode_hole(self._holes[index], box.width, box.height) if self._got[index][1] else None


def check_version(version: int) -> None:
    """Refuse another protocol version, with the side to update."""
    if version != PROTOCOL_VERSION:
        older = "the client (in GIMP: pconv-server install-plugin)" if version < PROTOCOL_VERSION else "pconv-server"
        raise ProtocolError(
            f"the client speaks protocol version {version}, this server {PROTOCOL_VERSION}: update {older}"
        )


def check_options(options: dict[str, str], known: Mapping[str, Sequence[str]]) -> None:
    """Refuse options that this server does not know: it would not do what the caller expects."""
    if unknown := sorted(options.keys() - known.keys()):
        names = ", ".join(sorted(known)) or "none"
        raise RequestError(f"unknown option {', '.join(unknown)}: this server knows {names} here")
    for name, value in options.items():
        if value not in known[name]:
            raise RequestError(f"option {name} is {value!r}: expected one of {', '.join(known[name])}")


def check_boxes(boxes: list[Box], picture: pb.Picture, limits: Limits) -> None:
    """Refuse boxes that leave the picture, are empty, or too many."""
    if len(boxes) > MAX_BOXES:
        raise LimitError(f"{len(boxes)} boxes: the limit is {MAX_BOXES}")
    for index, box in enumerate(boxes):
        if box.width < 1 or box.height < 1 or box.right > picture.width or box.bottom > picture.height:
            raise RequestError(
                f"box {index} is {box.width} × {box.height} px at ({box.x}, {box.y}): expected at least 1 × 1 px "
                f"within the picture of {picture.width} × {picture.height} px"
            )
    pixels = sum(box.area for box in boxes)
    if pixels > limits.pixels:
        raise LimitError(
            f"{pixels / 1e6:.1f} megapixels: the limit is {limits.pixels / 1e6:g} (serve --max-megapixels)"
        )
