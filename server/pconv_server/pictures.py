"""Picture files ↔ arrays, with all that belongs to a photograph: alpha, ICC profile, EXIF, orientation, resolution."""

import io
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pconv_server.decoding import ORIENTATION, decode
from pconv_server.deep_files import encode_png, encode_tiff
from pconv_server.errors import PictureError
from pconv_server.files import replace_file
from pconv_server.rasters import Array

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp")
_LONGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # px; libjpeg, WebP
# Tags of a TIFF's first directory that say how its pixels are stored; the rest describes the photograph.
_LAYOUT_TAGS = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 296, 297, 317, 318}
_LAYOUT_TAGS |= {319, 320, 321, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532}
_LAYOUT_TAGS |= {700, 33723, 34377, 34675}  # XMP, IPTC, Photoshop blocks, and the ICC profile, which is kept apart


@dataclass(frozen=True)
class Photo:
    """A picture as it is looked at: upright, whatever its EXIF orientation was."""

    pixels: Array  # (H, W, 1 or 3), uint8, uint16 or float32
    alpha: Array | None = None  # (H, W), same dtype, full = opaque
    icc: bytes | None = None
    exif: Image.Exif | None = None  # orientation removed
    dpi: tuple[float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def opaque(self) -> float:
        """The alpha of an opaque pixel."""
        return 1.0 if self.pixels.dtype.kind == "f" else float(np.iinfo(self.pixels.dtype).max)  # type: ignore[type-var] # not float

    @property
    def half(self) -> float:
        """From here on a sample is white, or opaque: 128 of 255, 0.5 of 1."""
        return self.opaque / 2 if self.pixels.dtype.kind == "f" else math.ceil(self.opaque / 2)


def read_photo(path: Path) -> Photo:
    """Read a picture file.

    Raises:
        PictureError: Missing, damaged, or of a kind that pconv does not take.
    """
    try:
        data = path.read_bytes()
        samples, exif, icc, dpi = decode(path, data)
    except FileNotFoundError as error:
        raise PictureError(f"there is no picture at {path}") from error
    except PictureError:
        raise
    except Exception as error:  # of a damaged file decoders raise anything
        raise PictureError(f"cannot read {path}: {error}") from error
    samples = _upright(samples, int(exif.get(ORIENTATION, 1)))
    alpha = None
    if samples.shape[2] in (2, 4):
        samples, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    if dpi and not all(0 < value < math.inf for value in dpi):  # 0/0 is how some say "unknown"
        dpi = None
    return Photo(np.ascontiguousarray(samples), alpha, icc, _describing(exif), dpi)


def check_writable(path: Path, photo: Photo, factor: int = 1) -> None:
    """Refuse a format that would lose something, before anything is computed.

    Args:
        path: Where the picture is to go.
        photo: As it is now.
        factor: By which it will be enlarged.

    Raises:
        PictureError: With a format that would not.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise PictureError(f"{path.name}: unknown ending {ending!r}; expected one of {', '.join(ENDINGS)}")
    if photo.pixels.dtype.kind == "f" and ending not in (".tif", ".tiff"):
        raise PictureError(f"{path.name}: only TIFF holds floating-point samples; choose an output that ends in .tif")
    if photo.pixels.dtype == np.uint16 and ending not in (".tif", ".tiff", ".png"):
        raise PictureError(f"{path.name}: {ending} holds 8 bits, the picture has 16; choose .png or .tif")
    if photo.alpha is not None and ending in (".jpg", ".jpeg", ".bmp"):
        raise PictureError(f"{path.name}: {ending} holds no transparency, the picture has some; choose .png or .tif")
    width, height = (side * factor for side in photo.size)
    if max(width, height) > (most := _LONGEST_SIDE.get(ending, math.inf)):
        found = f"it would have {width} × {height} px"
        raise PictureError(f"{path.name}: {ending} holds up to {most} px a side, {found}; choose .png or .tif")
    corner = None if photo.alpha is None else photo.alpha[:1, :1]
    _encode(path, scaled(photo, photo.pixels[:1, :1], corner, factor))  # does it hold profile, EXIF, resolution?


def write_photo(path: Path, photo: Photo) -> None:
    """Write a picture file in the format of its ending, at once or not at all.

    Raises:
        PictureError: The format would lose something, cannot hold the picture, or the disk refuses.
    """
    check_writable(path, photo)
    data = _encode(path, photo)
    try:
        replace_file(path, data)
    except OSError as error:
        raise PictureError(f"cannot write {path}: {error.strerror}") from error


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a hole from a mask file: at least half white = fill.

    Args:
        path: Gray or colour, any depth.
        size: Width and height that it must have, px.

    Returns:
        `(H, W)`, True = fill.

    Raises:
        PictureError: It cannot be read, or has another size.
    """
    photo = read_photo(path)
    if photo.size != size:
        found, wanted = (f"{width} × {height} px" for width, height in (photo.size, size))
        raise PictureError(f"the mask {path} is {found}, the picture {wanted} (upright): expected the same size")
    hole: NDArray[np.bool_] = photo.pixels.mean(axis=2) >= photo.half
    return hole


def scaled(photo: Photo, pixels: Array, alpha: Array | None, factor: int) -> Photo:
    """The photo with enlarged pixels, at the same size in print."""
    dpi = None if photo.dpi is None else (photo.dpi[0] * factor, photo.dpi[1] * factor)
    return replace(photo, pixels=pixels, alpha=alpha, dpi=dpi)


def _upright(samples: Array, orientation: int) -> Array:
    """Turn stored rows as EXIF's orientation tells (1…8; Exif 3.0, §4.6.5.1.6)."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _describing(exif: Image.Exif) -> Image.Exif | None:
    """What EXIF says of the photograph, without what it says of the stored pixels."""
    exif.get_ifd(0x8769), exif.get_ifd(0x8825)  # Exif and GPS: read now, the file closes
    for tag in [tag for tag in exif if tag in _LAYOUT_TAGS or tag == ORIENTATION]:
        del exif[tag]
    return exif if len(exif) else None


def _encode(path: Path, photo: Photo) -> bytes:
    samples = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    ending = path.suffix.lower()
    try:
        exif = photo.exif.tobytes() if photo.exif else b""
        if ending in (".tif", ".tiff"):
            return encode_tiff(samples, photo.icc, photo.exif, photo.dpi)
        if photo.pixels.dtype == np.uint16:
            return encode_png(samples, photo.icc, exif.removeprefix(b"Exif\0\0"), photo.dpi)
        return _encode_plain(samples, ending, photo, exif)
    except (OSError, ValueError, OverflowError, struct.error) as error:
        raise PictureError(f"cannot write {path}: {error}; another format may hold it") from error


def _encode_plain(samples: Array, ending: str, photo: Photo, exif: bytes) -> bytes:
    options: dict[str, object] = {"icc_profile": photo.icc} if photo.icc else {}
    if exif:
        options["exif"] = exif
    if photo.dpi:
        options["dpi"] = photo.dpi
    if ending in (".jpg", ".jpeg"):
        options |= {"quality": 95, "subsampling": 0}
    elif ending == ".webp":
        options |= {"lossless": True, "exact": True}
    buffer = io.BytesIO()
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    image.save(buffer, Image.registered_extensions()[ending], **options)
    return buffer.getvalue()
