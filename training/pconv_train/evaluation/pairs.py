"""The pictures that every method gets: photo and hole for inpainting, a reduced photo for enlargement."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pconv_train.data import DataError, center_crop, find_photos
from pconv_train.degrade import MCU, compress
from pconv_train.evaluation.methods import FACTOR, Hole, Picture
from pconv_train.holes import RATIO_BINS, dilate, test_hole

COLUMNS = tuple((index, border) for index in range(len(RATIO_BINS)) for border in ("N", "B"))  # of table 1
DILATIONS = (0, 5, 15, 35, 55, 95)  # px at 512, fig. 10


@dataclass(frozen=True)
class Problem:
    """What a method gets, and what it should have given."""

    image: Picture  # black in the hole; or the reduced picture
    hole: Hole | None
    target: Picture
    gray: bool = False  # the file has one channel


@dataclass(frozen=True)
class InpaintPair:
    """A photo's central square with a hole of table 1's test set, which may be grown."""

    photo: Path
    number: int  # of the photo in the draw, and of its hole in each column
    index: int  # of the hole's ratio in RATIO_BINS
    border: str  # "N" or "B"
    side: int  # px
    seed: int
    dilation: int | None = None  # px at this side; None: the pair belongs to table 1

    @property
    def column(self) -> str:
        """Column of the table that it counts for."""
        return column_name(self.index, self.border) if self.dilation is None else f"dilation {self.dilation} px"

    @property
    def identity(self) -> list[object]:
        """All that its pixels depend on, as JSON."""
        where = [self.number, self.index, self.border, self.side, self.seed, self.dilation or 0]
        return ["inpaint", _file_sha256(self.photo), *where]

    def load(self) -> Problem:
        """Read the photo and draw the hole."""
        target = _cached_crop(self.photo, self.side)
        hole = dilate(test_hole(self.side, self.index, self.border, self.number, self.seed), self.dilation or 0)
        return Problem(np.where(hole[..., None], np.uint8(0), target), hole, target)


@dataclass(frozen=True)
class UpscalePair:
    """A photo, and the same reduced by 4 with an antialiased bicubic filter (a = −0.5), as MATLAB's imresize does."""

    photo: Path
    column: str  # the set's name, and what is done to its photos
    side: int | None = None  # px; the photo's longer one is reduced to it first
    quality: int | None = None  # of the JPEG that the reduced photo is given as
    cropped: bool = False  # the JPEG was larger: its blocks begin anywhere

    @property
    def identity(self) -> list[object]:
        """All that its pixels depend on, as JSON."""
        changes = [self.side or 0, self.quality or 0] if self.side or self.quality else []
        return ["upscale", _file_sha256(self.photo), FACTOR, *changes, *self._crop]

    def load(self) -> Problem:
        """Read the photo, cut to a multiple of 4, and reduce it."""
        with Image.open(self.photo) as file:
            gray = file.mode in ("L", "1", "I;16")
            photo = file.convert("RGB")
        if self.side and (longer := max(photo.size)) > self.side:
            wanted = [max(1, round(self.side * length / longer)) for length in photo.size]
            photo = photo.resize((wanted[0], wanted[1]), Image.Resampling.BICUBIC)
        width, height = photo.width // FACTOR, photo.height // FACTOR
        if min(width, height) < 8:
            raise DataError(f"{self.photo} is {photo.width}×{photo.height} px, too small to be reduced by {FACTOR}")
        photo = photo.crop((0, 0, FACTOR * width, FACTOR * height))
        small = photo.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(small)
        if self.quality:
            pixels = compress(pixels, self.quality, *self._crop)
        return Problem(pixels, None, np.asarray(photo), gray)

    @property
    def _crop(self) -> tuple[int, ...]:
        """How much was cropped off the JPEG's left and top, px, from the photo's digest; empty if nothing."""
        if not self.cropped:
            return ()
        left, top = bytes.fromhex(_file_sha256(self.photo))[:2]
        return 1 + left % (MCU - 1), 1 + top % (MCU - 1)  # never a whole one, which would leave all as it was


Pair = InpaintPair | UpscalePair


def column_name(index: int, border: str) -> str:
    """Name a column of table 1, as in "1–10 % N"."""
    low, high = RATIO_BINS[index]
    return f"{100 * low:.0f}–{100 * high:.0f} % {border}"


def choose_photos(folders: Sequence[Path], count: int | None, seed: int) -> list[Path]:
    """Draw `count` photos by the seed, all if None; more of the same seed begin with the same ones."""
    photos = [photo for folder in folders for photo in find_photos(folder)]
    order = np.random.default_rng((seed, 6)).permutation(len(photos))
    return [photos[position] for position in order[:count]]


def inpaint_pairs(photos: Sequence[Path], side: int, seed: int) -> list[InpaintPair]:
    """Pair each photo with one hole of each column; photo by photo, so that a part of the list is a fair sample."""
    return [
        InpaintPair(photo, number, index, border, side, seed)
        for number, photo in enumerate(photos)
        for index, border in COLUMNS
    ]


def dilation_pairs(photos: Sequence[Path], side: int, seed: int) -> list[InpaintPair]:
    """Take the first photo whose hole of 1–10 % N leaves some picture when grown most, and grow it step by step."""
    widths = sorted({round(dilation * side / 512) for dilation in DILATIONS})
    for number, photo in enumerate(photos):
        pairs = [InpaintPair(photo, number, 0, "N", side, seed, width) for width in widths]
        if not dilate(test_hole(side, 0, "N", number, seed), widths[-1]).mean() > 0.95:
            return pairs
    return []


def upscale_pairs(
    folders: Sequence[Path], count: int | None, seed: int, side: int | None = None, quality: int | None = None
) -> list[UpscalePair]:
    """List the photos of each folder, or `count` of each: a column for a folder.

    Photos may be reduced to `side` px before, and given to methods as JPEGs of a quality: as they are saved, and, in a
    column of their own, as they are after a crop.

    Raises:
        DataError: Two folders have one name, or one has no photos.
    """
    names = [folder.resolve().name for folder in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two folders are called {', '.join(twice)}, and a column is called as its folder: rename one")
    changes = (f", {side} px" if side else "") + (f", JPEG {quality}" if quality else "")  # no published figure then
    return [
        UpscalePair(photo, folder.resolve().name + changes + ", cropped" * cropped, side, quality, cropped)
        for folder in folders
        for cropped in ((False, True) if quality else (False,))
        for photo in (find_photos(folder) if count is None else choose_photos([folder], count, seed))
    ]


@functools.lru_cache(maxsize=4)
def _cached_crop(path: Path, side: int) -> NDArray[np.uint8]:
    return center_crop(path, side)


@functools.lru_cache(maxsize=64)
def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
