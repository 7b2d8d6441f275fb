"""The wheel has what an installation needs, and nothing else."""

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def package_files() -> set[str]:
    """Every file of the import packages in the checkout, as the wheel names it."""
    parents = {"pconv": "training", "pconv_train": "training", "pconv_server": "server", "pconv_api": "protos"}
    return {
        path.relative_to(ROOT / parent).as_posix()
        for name, parent in parents.items()
        for path in (ROOT / parent / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_every_file_of_our_packages_is_in_it(wheel: zipfile.ZipFile) -> None:
    assert package_files() - set(wheel.namelist()) == set()


def test_nothing_else_lies_at_its_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    assert len(metadata) == 1
    assert tops - metadata <= {"pconv", "pconv_train", "pconv_server", "pconv_api"}


def test_the_plugin_is_in_it_with_what_it_imports(wheel: zipfile.ZipFile) -> None:
    inside = [name for name in wheel.namelist() if name.startswith("pconv_server/gimp/pconv-inpaint/")]
    names = {name.removeprefix("pconv_server/gimp/pconv-inpaint/") for name in inside}
    ours = {path.name for path in (ROOT / "plugins" / "gimp" / "pconv-inpaint").glob("*.py")}
    assert names >= ours | {"vendor/grpclib/client.py", "vendor/google/protobuf/message.py"}
    assert not [name for name in names if name.endswith((".so", ".pyd", ".pyc", "connection.json"))]
    licences = {name.split("/")[1].split("-")[0] for name in names if "LICENSE" in name}
    assert licences >= {"grpclib", "h2", "hpack", "hyperframe", "multidict", "protobuf"}


def test_types_are_declared(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    packages = {name.split("/")[0] for name in names if name.endswith("/__init__.py") and name.count("/") == 1}
    assert "pconv" in packages
    assert {f"{package}/py.typed" for package in packages} - names == set()


def test_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Name"] == "pconv"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in wheel.namelist())
    needs = {n.split(">=")[0] for n in metadata.get_all("Requires-Dist") if "extra ==" not in n}
    assert needs >= {"torch", "safetensors"}
    assert needs.isdisjoint({"torchvision", "pytest", "hatchling"})  # of the extras
    assert set(metadata.get_all("Provides-Extra")) >= {"train", "eval", "dev"}


def test_commands_point_at_modules_that_are_in_it(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt")]
    lines = [line for line in wheel.read(name).decode().splitlines() if "=" in line]
    modules = {line.split("=")[1].split(":")[0].strip().replace(".", "/") + ".py" for line in lines}
    built = {module for module in modules if any(n.startswith(module.split("/")[0] + "/") for n in wheel.namelist())}
    assert built - set(wheel.namelist()) == set()
