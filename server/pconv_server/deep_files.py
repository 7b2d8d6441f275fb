"""PNG of 16 bits, and TIFF of any samples, with profile and EXIF: what Pillow cannot write."""

import struct
import zlib

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pconv_server.rasters import Array

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # colour type by channels
_LONGEST_CHUNK = 2**30  # bytes; PNG allows up to 2³¹ − 1
_LONGEST_STRIP = 2**32 - 2**20  # bytes; beyond, offsets of TIFF 6.0 would not do, which leaves room for all else


def encode_png(
    samples: Array, icc: bytes | None = None, exif: bytes = b"", dpi: tuple[float, float] | None = None
) -> bytes:
    """Encode a PNG (https://www.w3.org/TR/png-3/).

    Args:
        samples: `(H, W, 1…4)`, uint16; 2 and 4 channels end with alpha.
        icc: Profile.
        exif: A TIFF structure, without the prefix that JPEG has.
        dpi: Resolution, x and y.

    Returns:
        The file.
    """
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # "up": differences of rows
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0)),
    ]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi:
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    if exif:
        parts.append(_chunk(b"eXIf", exif))
    packed = memoryview(zlib.compress(filtered.tobytes(), 4))
    parts += [_chunk(b"IDAT", packed[at : at + _LONGEST_CHUNK]) for at in range(0, len(packed), _LONGEST_CHUNK)]
    return b"".join([*parts, _chunk(b"IEND", b"")])


def encode_tiff(
    samples: Array, icc: bytes | None = None, exif: Image.Exif | None = None, dpi: tuple[float, float] | None = None
) -> bytes:
    """Encode a TIFF 6.0, or BigTIFF beyond 4 GiB (http://bigtiff.org), of one deflated strip.

    Args:
        samples: `(H, W, 1…4)`, uint8, uint16 or float32; 2 and 4 channels end with alpha.
        icc: Profile.
        exif: Tags to keep, its Exif and GPS directories included; nothing about the layout of pixels.
        dpi: Resolution, x and y.

    Returns:
        The file.
    """
    height, width, channels = samples.shape
    little = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
    strip = zlib.compress(little.tobytes(), 4)
    is_big = len(strip) > _LONGEST_STRIP
    header = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" if is_big else b"II*\0\x08\0\0\0"
    directory = ImageFileDirectory_v2(header)
    if exif is not None:
        for tag, value in exif.items():
            directory[tag] = value
        for tag in (_EXIF_IFD, _GPS_IFD):
            if fields := exif.get_ifd(tag):
                directory[tag] = dict(fields)
    layout: dict[int, object] = {
        256: width,
        257: height,
        258: (samples.dtype.itemsize * 8,) * channels,
        259: 8,  # deflate
        262: 2 if channels >= 3 else 1,  # RGB, or gray from black to white
        273: 0,  # the strip lies behind the directory, which Pillow adds
        277: channels,
        278: height,
        279: len(strip),
        339: (3 if samples.dtype.kind == "f" else 1,) * channels,
    }
    if channels in (2, 4):
        layout[338] = 2  # alpha that colours were not multiplied by
    if dpi:
        layout |= {282: dpi[0], 283: dpi[1], 296: 2}
    if is_big:
        directory.tagtype[279] = 16  # 8 bytes
    for tag, value in layout.items():
        directory[tag] = value
    if icc:
        directory.tagtype[34675] = 7  # bytes
        directory[34675] = icc
    return b"".join([header, directory.tobytes(len(header)), strip])


def _chunk(kind: bytes, data: bytes | memoryview) -> bytes:
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))])
