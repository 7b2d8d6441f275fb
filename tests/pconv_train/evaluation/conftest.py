import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pconv_train.evaluation.experiment import Experiment
from pconv_train.evaluation.methods import Machine

GRAY = """
import sys
from PIL import Image
image, hole = Image.open(sys.argv[1]), Image.open(sys.argv[2])
assert image.mode == "RGB" and hole.mode == "L" and image.size == hole.size
image.paste((128, 128, 128), mask=hole)
image.save(sys.argv[3])
"""


@pytest.fixture
def gray_command(tmp_path: Path) -> str:
    """A program that paints the hole gray."""
    script = tmp_path / "gray.py"
    script.write_text(GRAY)
    return f"{sys.executable} {script}"


@pytest.fixture
def small(photos: Path, tmp_path: Path) -> Experiment:
    """Two photos of 32 px and one rival that needs no package."""
    machine = Machine(threads=1, timeout=20)
    without = ("PatchMatch", "Telea", "Navier–Stokes", "membrane")
    options = {"side": 32, "photos": 2, "perceptual": "none", "machine": machine, "without": without}
    return replace(Experiment((photos,), tmp_path / "report"), **options)
