"""Photographs to training samples: find the files, cut random crops, make input and hole for a task.

Everything random is drawn from `(seed, sample number)`, so the stream of samples depends neither on workers nor on
where a run was interrupted.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pconv import place_pixels
from pconv.wide import wide_parts
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pconv_train.curriculum import draw_difficulty, lay_out_cells
from pconv_train.degrade import Rgb8, degrade
from pconv_train.holes import load_hole, random_hole

TASKS = ("inpaint", "upscale", "refine")
UPSCALE_FACTOR = 4  # K of §5.2
REFINE_FACTOR = 2  # the same, of a wide hole (pconv.filling)
UPSCALE_JPEG = 0.4  # share of small pictures that are JPEGs: most that people have are
REFINE_BLUR = 1.5  # px of the reduced picture, at most: a coarse fill is soft

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises for a bad file

Sample = tuple[Tensor, Tensor, Tensor]  # image, hole, target: uint8, (3, S, S), (1, S, S), (3, S, S)


class DataError(ValueError):
    """The pictures cannot be used; the message says which and why."""


def find_photos(folder: Path, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> list[Path]:
    """List the pictures below a folder, recursively, in an order that depends on their names alone.

    Args:
        folder: Where to look.
        include: Shell patterns of file names, any of which may match.
        exclude: Shell patterns of file names, none of which may match.

    Returns:
        Files whose ending Pillow knows; they are not opened.

    Raises:
        DataError: The folder is missing, or holds no such picture.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    endings = {ending for ending, format in Image.registered_extensions().items() if format in Image.OPEN}
    photos = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in endings
        and any(fnmatch(path.name, pattern) for pattern in include)
        and not any(fnmatch(path.name, pattern) for pattern in exclude)
    ]
    if not photos:
        raise DataError(f"no picture in {folder} matches include {list(include)}, exclude {list(exclude)}")
    return photos


def hold_out(photos: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split photos into training and validation by the hash of their names: the same split in every run."""
    ranked = sorted(photos, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    held = set(ranked[:count])
    return [path for path in photos if path not in held], ranked[:count]


@dataclass(frozen=True)
class CropSettings:
    """How samples are cut and what the network has to restore."""

    task: str  # one of TASKS
    size: int  # side of the crop that the network sees, px
    seed: int
    max_scale: float = 2.0  # the crop covers up to this many times its side of the photo, then shrunk
    hole_ratio: tuple[float, float] = (0.01, 0.6)
    hole_files: tuple[Path, ...] = ()  # mask files instead of generated holes
    narrow: bool = False  # leave out the wide parts of holes, which come from a reduced picture (pconv.filling)
    curriculum: int = 0  # samples at the beginning that are of pconv_train.curriculum
    curriculum_share: float = 0.0  # share of them among the others

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise DataError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.size < 8 or self.size % UPSCALE_FACTOR:
            raise DataError(f"crop size must be a multiple of {UPSCALE_FACTOR} and at least 8, got {self.size}")


class CropDataset(Dataset[Sample]):
    """Endless random crops: sample i is photo `order(i)`, cropped and degraded by draws from `(seed, i)`.

    Args:
        photos: Files of any format that Pillow reads.
        settings: Crop and task.
    """

    def __init__(self, photos: Sequence[Path], settings: CropSettings) -> None:
        self.photos = list(photos)
        self.settings = settings
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._broken: set[int] = set()

    def __len__(self) -> int:
        """Return the number of photos: what an epoch is."""
        return len(self.photos)

    def __getitem__(self, number: int) -> Sample:
        """Make sample `number` ≥ 0 of the endless stream."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, 1, number))
        share = 1.0 if number < settings.curriculum else settings.curriculum_share
        if share and rng.random() < share:
            return self._easy(number, rng)
        return make_sample(self._crop(number, rng), settings, rng)

    def _easy(self, number: int, rng: np.random.Generator) -> Sample:
        difficulty = draw_difficulty(rng, min(1.0, number / max(1, self.settings.curriculum)))
        target, hole = lay_out_cells(rng, self._crop(number, rng), difficulty)
        wanted = _to_tensor(target)
        return wanted, torch.from_numpy(hole)[None].to(torch.uint8), wanted

    def _crop(self, number: int, rng: np.random.Generator) -> Rgb8:
        epoch, position = divmod(number, len(self.photos))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.settings.seed, 0, epoch)).permutation(len(self.photos))
        first = int(self._order[1][position])
        for step in range(len(self.photos)):  # a broken file is replaced by its neighbour
            index = (first + step) % len(self.photos)
            try:
                return random_crop(self.photos[index], self.settings.size, self.settings.max_scale, rng)
            except UNREADABLE as error:
                if index not in self._broken:
                    self._broken.add(index)
                    print(f"skipped {self.photos[index]}: {error}", flush=True)
        raise DataError(f"none of the {len(self.photos)} pictures can be read; the first is {self.photos[0]}")


class StreamSampler(Sampler[int]):
    """Numbers of the samples that one process takes of the stream, batch by batch.

    Args:
        start: Optimizer steps already done.
        steps: Optimizer steps to come.
        batch: Samples a step and process.
        rank: Number of this process.
        world: Number of processes; a step takes `world · batch` consecutive samples.
    """

    def __init__(self, start: int, steps: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self.start, self.steps, self.batch, self.rank, self.world = start, steps, batch, rank, world

    def __iter__(self) -> Iterator[int]:
        """Yield sample numbers."""
        for step in range(self.start, self.start + self.steps):
            first = (step * self.world + self.rank) * self.batch
            yield from range(first, first + self.batch)

    def __len__(self) -> int:
        """Return how many numbers come."""
        return self.steps * self.batch


def random_crop(path: Path, size: int, max_scale: float, rng: np.random.Generator) -> Rgb8:
    """Cut a random square from a photo's full resolution, shrink it to `size`, and mirror it half of the time.

    The square's side is log-uniform from `size` to `max_scale · size`, at most the photo's shorter side; a smaller
    photo is enlarged. JPEG files are decoded at a reduced size where the crop does not need more.

    Returns:
        `(size, size, 3)` uint8, sRGB.
    """
    with Image.open(path) as file:
        shorter = min(file.size)
        edge = min(size * max_scale ** rng.random(), shorter)
        fraction = edge / shorter  # survives a reduced decoding
        file.draft("RGB", (round(file.width * size / edge), round(file.height * size / edge)))
        photo = file.convert("RGB")
    edge = fraction * min(photo.size)
    left, top = rng.random() * (photo.width - edge), rng.random() * (photo.height - edge)
    box = (left, top, left + edge, top + edge)
    if edge <= size * 1.02 and min(photo.size) >= size:  # as good as 1:1, so take the pixels as they are
        left, top = min(round(left), photo.width - size), min(round(top), photo.height - size)
        crop = photo.crop((left, top, left + size, top + size))
    else:
        crop = photo.resize((size, size), Image.Resampling.BICUBIC, box)
    pixels = np.asarray(crop)
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def center_crop(path: Path, size: int) -> Rgb8:
    """Cut the central square of the shorter side and resize it to `size`: the fixed view for validation."""
    with Image.open(path) as file:
        photo = file.convert("RGB")
    edge = min(photo.size)
    left, top = (photo.width - edge) / 2, (photo.height - edge) / 2
    return np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge)))


def make_sample(target: Rgb8, settings: CropSettings, rng: np.random.Generator) -> Sample:
    """Make what the network gets from what it has to restore.

    - inpaint: the target with an irregular hole;
    - upscale: a reduced target's pixels on the ×4 lattice of §5.2, hole between them;
    - refine: the target outside an irregular hole, a reduced and blurred target's pixels on the ×2 lattice inside it.

    Returns:
        Image, hole and target: uint8, `(3, S, S)`, `(1, S, S)` of {0, 1}, `(3, S, S)`.
    """
    wanted = _to_tensor(target)
    if settings.task == "upscale":
        small = _to_tensor(degrade(target, UPSCALE_FACTOR, rng, jpeg=UPSCALE_JPEG))
        image, hole = place_pixels(small[None], UPSCALE_FACTOR)
        return image[0], hole[0].to(torch.uint8), wanted
    drawn = torch.from_numpy(_hole(settings, rng))[None]
    if settings.task == "inpaint":
        return wanted, (drawn & ~wide_parts(drawn[None])[0] if settings.narrow else drawn).to(torch.uint8), wanted
    coarse = degrade(target, REFINE_FACTOR, rng, blur=rng.uniform(0, REFINE_BLUR))
    placed, between = place_pixels(_to_tensor(coarse)[None], REFINE_FACTOR)
    return torch.where(drawn, placed[0], wanted), drawn * between[0].to(torch.uint8), wanted


def fixed_samples(photos: Sequence[Path], settings: CropSettings) -> list[Sample]:
    """Make the validation set: central crops, holes and degradations drawn once from the seed.

    A photo that cannot be read is left out, and named.
    """
    samples = []
    for number, path in enumerate(photos):
        try:
            crop = center_crop(path, settings.size)
        except UNREADABLE as error:
            print(f"skipped {path}: {error}", flush=True)
            continue
        samples.append(make_sample(crop, settings, np.random.default_rng((settings.seed, 2, number))))
    return samples


def to_unit(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels to float32 in [0, 1]."""
    return pixels.float() / 255


def _to_tensor(pixels: Rgb8) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _hole(settings: CropSettings, rng: np.random.Generator) -> NDArray[np.bool_]:
    if not settings.hole_files:
        return random_hole(rng, settings.size, settings.hole_ratio)
    low, high = settings.hole_ratio
    for _ in range(50):
        path = settings.hole_files[rng.integers(len(settings.hole_files))]
        hole = load_hole(path, rng, settings.size)
        if low < hole.mean() <= high:
            return hole
    raise DataError(f"50 masks in a row of {path.parent} have no hole ratio in ({low}, {high}]: is white the hole?")
