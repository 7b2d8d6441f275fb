"""Generate the Python code of the protos, for editable installs and wheels alike. Nothing generated is committed.

`python hatch_build.py` does the same by hand, after an edit of a proto.
"""

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


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's own configuration type
    """Called by hatchling before it collects the files of a wheel or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and tell hatchling to take the files although git ignores them."""
        build_data["artifacts"] += [f"/{path}" for path in generate(Path(self.root))]


if __name__ == "__main__":
    print("\n".join(generate(Path(__file__).parent)))
