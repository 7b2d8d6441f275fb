"""Decode picture files to samples as they are stored, and what else they say of the photograph.

Pillow reads what has 8 bits; it cuts 16-bit colour to 8, so there OpenCV reads.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pconv_server.errors import PictureError
from pconv_server.rasters import Array

Decoded = tuple[Array, Image.Exif, bytes | None, tuple[float, float] | None]

ORIENTATION = 0x0112
_TIFF, _BIG_TIFF = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")  # how they begin
_READ = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF")  # Pillow's names; of others it might drop bits, unsaid
Image.MAX_IMAGE_PIXELS = 200_000_000  # beyond twice as many Pillow refuses: the server's limit, too


def decode(path: Path, data: bytes) -> Decoded:
    """Decode a picture file.

    Args:
        path: For the messages.
        data: The file.

    Returns:
        Samples `(H, W, 1…4)`, uint8, uint16 or float32, 2 and 4 channels with alpha, and the EXIF orientation that they
        are still to be turned by; ICC profile; resolution, dpi.

    Raises:
        PictureError: Of a kind that pconv does not take. Of a damaged file decoders raise anything.
    """
    return _decode_tiff(path, data) if data[:4] in _TIFF + _BIG_TIFF else _decode_other(path, data)


def _decode_tiff(path: Path, data: bytes) -> Decoded:
    """Read a TIFF. Its directory is read as EXIF is, because Pillow refuses files of float colours."""
    _refuse_pages(path, _count_pages(data))
    exif = Image.Exif()
    if data[:4] in _TIFF:
        exif.load(data)
    else:  # which that cannot
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif()
    bits, channels = exif.get(258, 1), exif.get(277, 1)
    depth = max(bits) if isinstance(bits, tuple) else bits
    if depth > 8 and channels == 2:
        raise PictureError(f"{path} is gray with transparency and {depth} bits: save it as RGB")
    if depth > 8:
        _refuse_layout(path, exif, channels)
        samples = _decode_deep(path, data)
        if exif.get(262) == 0:  # white is zero, which OpenCV leaves so; what is written has black at zero
            samples = np.subtract(1, samples) if samples.dtype.kind == "f" else np.invert(samples)
    else:
        with Image.open(io.BytesIO(data)) as image:
            samples = _decode_plain(path, image)
        exif[ORIENTATION] = 1  # Pillow has turned it, as it does with TIFF alone
    return samples, exif, exif.get(34675), _dpi(exif)


def _dpi(exif: Image.Exif) -> tuple[float, float] | None:
    scale = 2.54 if exif.get(296, 2) == 3 else 1.0  # per centimetre, or per inch
    try:
        return (float(exif[282]) * scale, float(exif[283]) * scale) if {282, 283} <= set(exif) else None
    except ZeroDivisionError:  # 0/0, before Pillow 13
        return None


def _count_pages(data: bytes) -> int:
    """Count the pictures of a TIFF; reduced ones, as a thumbnail, do not count (TIFF 6.0, NewSubfileType)."""
    header = data[:8] if data[:4] in _TIFF else data[:16]
    file, directory, found = io.BytesIO(data), ImageFileDirectory_v2(header), dict[int, bool]()
    while (start := directory.next) and start not in found:
        file.seek(start)
        directory.load(file)
        found[start] = not directory.get(254, 0) & 1
    return sum(found.values())


def _refuse_pages(path: Path, count: int) -> None:
    if count > 1:
        raise PictureError(f"{path} has {count} pages or frames: save the one you mean by itself")


def _refuse_layout(path: Path, exif: Image.Exif, channels: int) -> None:
    """Refuse what OpenCV reads wrongly, without a word, in a TIFF of more than 8 bits."""
    extra = exif.get(338, 0)
    if exif.get(262, 2) not in (0, 1, 2):
        raise PictureError(f"{path} is neither RGB nor gray, and deep: save it as RGB")
    if channels > 1 and exif.get(284, 1) != 1:
        raise PictureError(f"{path} has its colours in planes: save it with interleaved channels")
    if 1 in (extra if isinstance(extra, tuple) else (extra,)):
        raise PictureError(f"{path} has colours multiplied by alpha: save it with unassociated alpha")


def _decode_other(path: Path, data: bytes) -> Decoded:
    with Image.open(io.BytesIO(data)) as image:
        if image.format not in _READ:
            raise PictureError(f"{path} is {image.format}: save it as PNG or TIFF")
        if image.format != "MPO":  # a camera's JPEG: the photograph is the first, then come previews
            _refuse_pages(path, getattr(image, "n_frames", 1))
        depth, colour = (data[24], data[25]) if image.format == "PNG" else (8, None)
        if depth == 16:
            samples = _decode_deep(path, data)
            if colour == 4:  # gray with alpha: OpenCV makes colour of it
                samples = samples[..., [0, 3]]
        else:
            samples = _decode_plain(path, image)
        return samples, image.getexif(), image.info.get("icc_profile"), image.info.get("dpi")


def _decode_deep(path: Path, data: bytes) -> Array:
    import cv2

    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise PictureError(f"cannot read {path}: damaged, or an unknown kind of samples")
    if samples.dtype not in (np.uint8, np.uint16, np.float32):
        raise PictureError(f"{path} has {samples.dtype} samples: save it with 8 or 16 bits, or 32-bit float")
    samples = samples.reshape(*samples.shape[:2], -1)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(samples.shape[2])  # OpenCV has blue first
    found: Array = samples if order is None else samples[..., order]
    return found


def _decode_plain(path: Path, image: Image.Image) -> Array:
    if image.mode == "P" or (image.mode in ("1", "L", "RGB") and "transparency" in image.info):
        gray = image.mode in ("1", "L")
        wanted = ("LA" if gray else "RGBA") if image.has_transparency_data else "RGB"
        image = image.convert(wanted)
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise PictureError(f"{path} has the colours {image.mode}: expected gray or RGB; convert it first")
    samples = np.asarray(image)
    return samples.reshape(*samples.shape[:2], -1)
