"""Packed rasters of the contract ↔ arrays ↔ the network's tensors: the one place that knows about samples."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pconv_api.geometry import Box
from pconv_api.v1 import pconv_pb2 as pb

from pconv_server.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.generic]

BAND_BYTES = 1 << 20
DTYPES: dict[int, np.dtype[np.generic]] = {
    pb.PIXEL_FORMAT_U8: np.dtype("u1"),
    pb.PIXEL_FORMAT_U16: np.dtype("<u2"),
    pb.PIXEL_FORMAT_F32: np.dtype("<f4"),
}
_FORMATS = {dtype: number for number, dtype in DTYPES.items()}
_WHITE = {"u1": 255.0, "u2": 65535.0, "f4": 1.0}


def pixel_format(image: Array) -> int:
    """Name the wire's format of an array.

    Raises:
        RequestError: Its dtype has none.
    """
    number = _FORMATS.get(image.dtype.newbyteorder("<"))
    if number is None:
        raise RequestError(f"samples must be uint8, uint16 or float32, got {image.dtype}")
    return number


def decode_image(raster: bytes | bytearray, width: int, height: int, channels: int, number: int) -> Array:
    """View packed rows as an array.

    Args:
        raster: `height` · `width` · `channels` samples.
        width: px.
        height: px.
        channels: 1 or 3.
        number: `PixelFormat` of the samples.

    Returns:
        `(height, width, channels)`, a view.
    """
    return np.frombuffer(raster, DTYPES[number]).reshape(height, width, channels)


def encode_image(image: Array) -> memoryview:
    """Pack an array `(height, width, channels)` as rows; the inverse of `decode_image`, without a copy if it can."""
    packed = np.ascontiguousarray(image.astype(image.dtype.newbyteorder("<"), copy=False))
    return packed.reshape(-1).view(np.uint8).data


def decode_hole(raster: bytes | bytearray, width: int, height: int) -> NDArray[np.bool_]:
    """Read a packed hole (0 = keep, any other value = fill) as `(height, width)`, True = fill."""
    hole: NDArray[np.bool_] = np.frombuffer(raster, np.uint8).reshape(height, width) != 0
    return hole


def encode_hole(hole: NDArray[np.bool_]) -> bytes:
    """Pack a hole `(height, width)`, True = fill, as 255 and 0; the inverse of `decode_hole`."""
    return (hole.astype(np.uint8) * np.uint8(255)).tobytes()


def split(raster: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """Cut a raster into bands of at most `BAND_BYTES`."""
    view = memoryview(raster)
    for start in range(0, len(view), BAND_BYTES):
        yield bytes(view[start : start + BAND_BYTES])


def to_tensor(image: Array) -> "Tensor":
    """Turn samples into what the network takes.

    Args:
        image: `(H, W, 1 or 3)`, uint8, uint16 or float32.

    Returns:
        `(1, 3, H, W)` float32, channels last in memory; white is 1, float samples keep their values.
    """
    import torch  # takes seconds, and clients do without

    scaled = image.astype(np.float32) / np.float32(_WHITE[image.dtype.str[1:]])
    tensor = torch.from_numpy(scaled).permute(2, 0, 1)[None]
    return tensor.expand(1, 3, *image.shape[:2])


def to_samples(tensor: "Tensor", channels: int, dtype: np.dtype[np.generic]) -> Array:
    """Turn a result of the network into samples; the inverse of `to_tensor`.

    Args:
        tensor: `(1, 3, H, W)`, in [0, 1] for integers.
        channels: 1 (the mean of the three) or 3.
        dtype: uint8, uint16 or float32.

    Returns:
        `(H, W, channels)`, integers rounded to the nearest.
    """
    rows = tensor[0].float().cpu().permute(1, 2, 0)
    if channels == 1:
        rows = rows.double().mean(dim=-1, keepdim=True).float()
    if dtype.kind == "f":
        return np.ascontiguousarray(rows.numpy(), dtype)
    scaled: Array = (rows * _WHITE[dtype.str[1:]]).round().numpy().astype(dtype)
    return scaled


def check_finite(image: Array, known: NDArray[np.bool_] | None, box: Box) -> None:
    """Refuse NaN and Inf in known pixels.

    Args:
        image: `(H, W, C)`, any format.
        known: `(H, W)`, False = a hole, where any value may be; None: all is known.
        box: Where the array lies in the picture.

    Raises:
        RequestError: With the first position, in coordinates of the picture.
    """
    if image.dtype.kind != "f":
        return
    bad = ~np.isfinite(image).all(axis=-1)
    if known is not None:
        bad &= known
    if bad.any():
        y, x = divmod(int(bad.argmax()), bad.shape[1])
        value = image[y, x][~np.isfinite(image[y, x])][0]
        raise RequestError(
            f"pixel ({x + box.x}, {y + box.y}) outside the hole is {value}: known pixels must be finite numbers"
        )


assert sys.byteorder == "little", "numpy converts, torch does not: nobody has tried pconv on a big-endian machine"
