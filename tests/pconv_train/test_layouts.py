from dataclasses import replace

import pytest
from pconv_train import layouts
from pconv_train.data import DataError
from pconv_train.layouts import find_training_photos
from PIL import Image


@pytest.mark.parametrize(
    ("layout", "training", "other"),
    [
        ("folder", "", None),
        ("imagenet", "train/n01440764", "val/n01440764"),
        ("imagenet", "ILSVRC/Data/CLS-LOC/train/n01440764", "ILSVRC/Data/CLS-LOC/val"),
        ("places2", "data_256_standard/a/abbey", "val_256"),
        ("places2", "data_large_standard/a/abbey", "val_large"),
        ("celeba-hq", "CelebA-HQ-img", None),
    ],
)
def test_the_training_split_of_each_layout_is_found(small_config, tmp_path, layout, training, other):
    for folder, name in ((training, "wanted.png"), (other, "unwanted.png")):
        if folder is not None:
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "set" / folder / name)
    config = replace(small_config, data=str(tmp_path / "set"), layout=layout)
    assert [path.name for path in find_training_photos(config)] == ["wanted.png"]


def test_celeba_hq_keeps_the_last_faces_for_testing(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "CELEBA_HQ_TRAINING", 3)
    for number in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:05d}.jpg")
    config = replace(small_config, data=str(tmp_path), layout="celeba-hq")
    assert [path.name for path in find_training_photos(config)] == ["00000.jpg", "00001.jpg", "00002.jpg"]


def test_an_unknown_layout_names_those_there_are(small_config):
    with pytest.raises(DataError, match="folder, imagenet, places2, celeba-hq, got 'coco'"):
        find_training_photos(replace(small_config, layout="coco"))
