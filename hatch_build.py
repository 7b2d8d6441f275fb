"""Generate the Python code of the protos, for editable installs and wheels alike. Nothing generated is committed.

And collect the pure-Python packages that the GIMP plug-in needs beside it: GIMP's Python has no pip.
`python hatch_build.py` does the same by hand, after an edit of a proto or of a version.
"""

import importlib.metadata
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: Path) -> list[str]:
    """Run protoc on every proto below `root`/protos; its output lies beside its source.

    Returns:
        The generated files, relative to `root`.
    """
    import grpc_tools
    from grpc_tools import protoc

    protos = sorted(str(path) for path in (root / "protos").rglob("*.proto"))
    out = root / "protos"
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    code = protoc.main(["protoc", f"-I{out}", f"-I{well_known}", *outputs, *protos])
    if code:
        raise RuntimeError(f"protoc failed with exit code {code} on {', '.join(protos)}")
    return [
        str(Path(proto).relative_to(root).with_suffix("")) + ending
        for proto in protos
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
    ]


PLUGIN = "plugins/gimp/pconv-inpaint"


def vendor(root: Path) -> None:
    """Copy the Python files and licences of the extra `plugin` into the plug-in's folder; no compiled file.

    Raises:
        RuntimeError: Another version is installed than pyproject.toml pins.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    target = root / PLUGIN / "vendor"
    shutil.rmtree(target, ignore_errors=True)
    for pin in project["project"]["optional-dependencies"]["plugin"]:
        name, _, version = pin.partition("==")
        found = importlib.metadata.distribution(name)
        if found.version != version:
            raise RuntimeError(f"{name} {found.version} is installed: the plug-in takes {version} (pyproject.toml)")
        for file in found.files or ():
            is_licence = re.search(r"\.dist-info/(licenses/)?LICEN[CS]E", str(file)) is not None
            if is_licence or (file.suffix == ".py" and ".." not in file.parts):
                copy = target / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), copy)


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's own configuration type
    """Called by hatchling before it collects the files of a wheel or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and tell hatchling to take the files although git ignores them."""
        build_data["artifacts"] += [f"/{path}" for path in generate(Path(self.root))]
        vendor(Path(self.root))
        if version == "standard":  # an editable install has the checkout
            build_data["force_include"][str(Path(self.root) / PLUGIN)] = "pconv_server/gimp/pconv-inpaint"


if __name__ == "__main__":
    print("\n".join(generate(Path(__file__).parent)))
    vendor(Path(__file__).parent)
