"""Where published data sets keep their training photos: the splits of §4.2, by folder layout."""

from pathlib import Path
from typing import TYPE_CHECKING

from pconv_train.data import DataError, find_photos

if TYPE_CHECKING:
    from pconv_train.config import TrainConfig

# Subfolders, in the order tried, that hold the training split.
_TRAIN_FOLDERS = {
    "folder": ("",),
    "imagenet": ("train", "ILSVRC/Data/CLS-LOC/train"),  # torchvision.datasets.ImageNet; Kaggle's archive
    "places2": ("data_256_standard", "data_large_standard", "data_large", "data_256"),  # torchvision.datasets.Places365
    "celeba-hq": ("CelebA-HQ-img", "data1024x1024", ""),
}
CELEBA_HQ_TRAINING = 27_000  # of 30,000 faces, the rest tests (§4.2)


def find_training_photos(config: "TrainConfig") -> list[Path]:
    """List the photos that a run trains on, before any are held out for validation.

    Raises:
        DataError: The folder does not have the layout.
    """
    root = Path(config.data)
    if config.layout not in _TRAIN_FOLDERS:
        raise DataError(f"--layout must be one of {', '.join(_TRAIN_FOLDERS)}, got {config.layout!r}")
    candidates = [root / name for name in _TRAIN_FOLDERS[config.layout]]
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        wanted = " or ".join(str(path) for path in candidates)
        raise DataError(f"{root} does not have the layout {config.layout!r}: expected {wanted}")
    photos = find_photos(folder, config.include, config.exclude)
    return photos[:CELEBA_HQ_TRAINING] if config.layout == "celeba-hq" else photos
