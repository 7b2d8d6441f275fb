"""Picture files ↔ arrays, with all that belongs to a photograph: alpha, ICC profile, EXIF, orientation, resolution.

Pillow reads and writes what has 8 bits; it cuts 16-bit colour to 8. There OpenCV reads, and `deep_files` writes.
"""

import io
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pconv_server.deep_files import encode_png, encode_tiff
from pconv_server.files import replace_file
from pconv_server.rasters import Array

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp")
ORIENTATION = 0x0112
_LONGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # px; libjpeg, WebP
Image.MAX_IMAGE_PIXELS = 200_000_000  # beyond twice as many Pillow refuses: the server's limit, too
# Tags of a TIFF's first directory that say how its pixels are stored; the rest describes the photograph.
_LAYOUT_TAGS = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 296, 297, 317, 318}
_LAYOUT_TAGS |= {319, 320, 321, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532}
_LAYOUT_TAGS |= {700, 33723, 34377, 34675}  # XMP, IPTC, Photoshop blocks, and the ICC profile, which is kept apart


class PictureError(ValueError):
    """A picture file cannot be read or written; the message says why and what to do."""


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
        if data[:4] in (b"II*\0", b"MM\0*"):
            samples, exif, icc, dpi = _read_tiff(path, data)
        else:
            samples, exif, icc, dpi = _read_other(path, data)
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


def _read_tiff(path: Path, data: bytes) -> tuple[Array, Image.Exif, bytes | None, tuple[float, float] | None]:
    """Read a TIFF. Its directory is read as EXIF is, because Pillow refuses files of float colours."""
    exif = Image.Exif()
    exif.load(data)
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
    density = (float(exif[282]), float(exif[283])) if {282, 283} <= set(exif) else None
    if density and exif.get(296, 2) == 3:  # per centimetre
        density = density[0] * 2.54, density[1] * 2.54
    return samples, exif, exif.get(34675), density


def _refuse_layout(path: Path, exif: Image.Exif, channels: int) -> None:
    """Refuse what OpenCV reads wrongly, without a word, in a TIFF of more than 8 bits."""
    extra = exif.get(338, 0)
    if exif.get(262, 2) not in (0, 1, 2):
        raise PictureError(f"{path} is neither RGB nor gray, and deep: save it as RGB")
    if channels > 1 and exif.get(284, 1) != 1:
        raise PictureError(f"{path} has its colours in planes: save it with interleaved channels")
    if 1 in (extra if isinstance(extra, tuple) else (extra,)):
        raise PictureError(f"{path} has colours multiplied by alpha: save it with unassociated alpha")


def _read_other(path: Path, data: bytes) -> tuple[Array, Image.Exif, bytes | None, tuple[float, float] | None]:
    with Image.open(io.BytesIO(data)) as image:
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
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's JPEG: the photograph is the first, then come previews
        raise PictureError(f"{path} has {frames} pages or frames: save the one you mean by itself")
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
