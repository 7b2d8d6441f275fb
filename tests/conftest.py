"""What all tests share: seeds, threads, and a way to demand what a checkout may lack.

`PCONV_REQUIRE=gimp,shared` turns the skips for lack of GIMP or of the shared data into failures.
"""

import os
import shutil
import subprocess
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


@pytest.fixture
def make_certificate(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Make a certificate for this machine, and its key, by a name for the files."""
    if not shutil.which("openssl"):
        pytest.skip("not run: no openssl to make a certificate")

    def make(name: str) -> tuple[Path, Path]:
        cert, key = tmp_path / f"{name}-cert.pem", tmp_path / f"{name}-key.pem"
        kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        command = ["openssl", "req", "-x509", *kind.split(), *names, "-keyout", str(key), "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True)
        return cert, key

    return make
