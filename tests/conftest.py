"""What all tests share: seeds, threads, and a way to demand what a checkout may lack.

`PCONV_REQUIRE=gimp,shared` turns the skips for lack of GIMP or of the shared data into failures.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors; and the same order of additions everywhere


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def lacking() -> Callable[[str, str], None]:
    """Skip the test for lack of something (`gimp`, `shared`), or fail where PCONV_REQUIRE names it."""

    def skip_or_fail(what: str, reason: str) -> None:
        if what in os.environ.get("PCONV_REQUIRE", "").split(","):
            pytest.fail(f"PCONV_REQUIRE has {what!r}, but {reason}")
        pytest.skip(reason)

    return skip_or_fail


@pytest.fixture(scope="session")
def shared_data(lacking: Callable[[str, str], None]) -> Path:
    """Folder of pictures and VGG weights, too big for the repository: PCONV_SHARED, or beside the checkout."""
    path = Path(os.environ.get("PCONV_SHARED") or Path(__file__).parents[2] / "shared" / "data")
    if not path.is_dir():
        lacking("shared", f"there is no shared data at {path} (PCONV_SHARED names another folder)")
    return path
