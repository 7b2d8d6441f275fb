"""No photograph that judges is one that trained, checked by hash; mirrored, scaled and recompressed copies too."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pconv_train.data import find_photos
from PIL import Image

BITS = 256
ALIKE = 40  # bits that differ; two photographs differ in about half, and the nearest two of this data in 55


def difference_hash(picture: Image.Image) -> NDArray[np.bool_]:
    """Say of 16 × 16 places whether it gets brighter to the right there."""
    gray = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.BOX), np.int16)
    return (gray[:, 1:] > gray[:, :-1]).ravel()


def read(path: Path) -> Image.Image:
    with Image.open(path) as file:
        file.draft("RGB", (128, 128))
        return file.convert("RGB")


def nearest(judges: list[Image.Image], trained: NDArray[np.bool_]) -> NDArray[np.int64]:
    """In how many bits each differs from the training photo that is most like it or its mirror image."""
    both = [[difference_hash(p), difference_hash(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT))] for p in judges]
    return np.array([[(trained != bits).sum(1).min() for bits in found] for found in both]).min(1)


@pytest.fixture(scope="module")
def trained(shared_data: Path) -> NDArray[np.bool_]:
    return np.array([difference_hash(read(path)) for path in find_photos(shared_data / "train")])


def test_no_photo_that_judges_has_trained(shared_data: Path, trained: NDArray[np.bool_]) -> None:
    photos = find_photos(shared_data / "eval")
    differences = nearest([read(path) for path in photos], trained)
    assert len(photos) == 235
    assert trained.shape == (1927, BITS)
    assert not [path.name for path, bits in zip(photos, differences, strict=True) if bits <= ALIKE]


def test_a_copy_would_be_found(shared_data: Path, trained: NDArray[np.bool_], tmp_path: Path) -> None:
    for number, path in enumerate(find_photos(shared_data / "train")[::97]):
        copy = read(path)
        if number % 2:
            copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        copy = copy.resize((copy.width * 3 // 4, copy.height * 3 // 4))
        copy.save(tmp_path / f"{number}.jpg", quality=60)
    found = nearest([read(path) for path in sorted(tmp_path.iterdir())], trained)
    assert len(found) == 20
    assert (found <= ALIKE).all()
