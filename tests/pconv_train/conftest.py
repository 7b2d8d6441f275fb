import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pconv_train.config import TrainConfig
from pconv_train.losses import LossWeights
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight small smooth pictures in a folder and a subfolder."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for number in range(8):
        coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((48 + number, 40), Image.Resampling.BICUBIC)
        picture.save(folder / ("deeper" if number % 2 else ".") / f"p{number}.{'jpg' if number % 3 else 'png'}")
    return folder


@pytest.fixture
def small_config(photos: Path) -> TrainConfig:
    """A run of 6 steps that takes a second."""
    return TrainConfig(
        data=str(photos),
        validation=2,
        stages=2,
        steps=6,
        batch=2,
        crop=16,
        warmup=2,
        loss=LossWeights.l1(),
        device="cpu",
        precision="fp32",
        workers=0,
        log_every=1,
        validate_every=4,
    )


@pytest.fixture
def vgg_file(tmp_path: Path) -> Path:
    """Random weights with the names and shapes of torchvision's VGG-16 up to pool3."""
    import safetensors.torch

    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    weights = {}
    for number, (out, into) in shapes.items():
        weights[f"features.{number}.weight"] = torch.randn(out, into, 3, 3, generator=generator) / (3 * into**0.5)
        weights[f"features.{number}.bias"] = torch.zeros(out)
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(weights, path)
    return path


@pytest.fixture
def read_log():
    def read(run: Path, group: str) -> list[dict]:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if line["group"] == group]

    return read
