"""Who may import whom: plugins → pconv_api ← pconv_server → pconv ← pconv_train."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"pconv", "pconv_train", "pconv_api", "pconv_server", "bench"}
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_grpc.py")  # from the proto files, at build

# Folder → which of ours it may import (itself aside), and what else; None: anything that is declared.
RULES: dict[str, tuple[set[str], set[str] | None]] = {
    "training/pconv": (set(), {"torch", "safetensors", "numpy", "PIL"}),
    "training/pconv_train": ({"pconv"}, None),
    "protos/pconv_api": (set(), set()),
    "server/pconv_server": ({"pconv", "pconv_api"}, None),
    # Run by GIMP's own Python: what is pure Python and is copied beside it, nothing else.
    "plugins": ({"pconv_api"}, {"gi", "grpclib", "h2", "hpack", "hyperframe", "multidict", "google"}),
    "bench": ({"pconv", "pconv_api", "pconv_server", "pconv_train"}, None),
}
GENERATED_MAY = {"google", "grpc", "grpclib"}


def imports(source: str) -> Iterator[str]:
    """Top-level names of all imports, wherever they stand; a relative import is of the package itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.split(".")[0]


def breaches(folder: str, path: Path, source: str) -> set[str]:
    ours, others = RULES[folder]
    local = {folder.rsplit("/", 1)[-1]} | {p.stem for p in path.parent.glob("*.py")} if folder == "plugins" else set()
    allowed = ours | local | {folder.rsplit("/", 1)[-1]} | sys.stdlib_module_names
    if path.name.endswith(GENERATED):
        allowed |= GENERATED_MAY
    found = set(imports(source)) - allowed
    return found & OURS if others is None else found - others


def files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "vendor" not in path.parts)


@pytest.mark.parametrize("folder", RULES)
def test_imports_follow_the_arrows(folder: str) -> None:
    found = {str(p.relative_to(ROOT)): breaches(folder, p, p.read_text(encoding="utf-8")) for p in files(folder)}
    assert {path: names for path, names in found.items() if names} == {}


def test_every_source_file_has_a_rule() -> None:
    tops = ("training", "server", "protos", "plugins", "bench")
    ruled = {path for folder in RULES for path in files(folder)}
    assert [path for top in tops for path in files(top) if path not in ruled] == []
    assert ruled


@pytest.mark.parametrize(
    ("folder", "source", "found"),
    [
        ("training/pconv", "import pconv_train.data", {"pconv_train"}),
        ("training/pconv", "import torchvision", {"torchvision"}),
        ("training/pconv", "import torch\nfrom pconv.layers import zero_holes\nimport json", set()),
        ("training/pconv_train", "from pconv_server import Engine", {"pconv_server"}),
        ("training/pconv_train", "import torchvision, pconv", set()),
        ("protos/pconv_api", "def f():\n    import numpy", {"numpy"}),
        ("protos/pconv_api", "import grpc", {"grpc"}),
        ("server/pconv_server", "def f():\n    from pconv_train import fit", {"pconv_train"}),
        ("server/pconv_server", "importlib.import_module('pconv_train.cli')", {"pconv_train"}),
        ("plugins", "import numpy as np\nimport torch\nfrom gi.repository import Gimp", {"numpy", "torch"}),
        ("plugins", "import pconv", {"pconv"}),
        ("plugins", "from . import pixels\nimport pconv_api", set()),
    ],
)
def test_the_check_itself(folder: str, source: str, found: set[str]) -> None:
    assert breaches(folder, ROOT / folder / "module.py", source) == found


def test_generated_code_may_import_its_runtime() -> None:
    folder = ROOT / "protos/pconv_api/v1"
    assert breaches("protos/pconv_api", folder / "a_pb2_grpc.py", "import grpc, google.protobuf") == set()
    assert breaches("protos/pconv_api", folder / "a_pb2.py", "import torch") == {"torch"}
