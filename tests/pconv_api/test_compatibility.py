"""Programs of last year still understand those of today: names and numbers of the contract never change.

New fields are added below. A line is never edited or removed: rather raise `pconv_api.PROTOCOL_VERSION`.
"""

import ast
import pathlib
import subprocess
import sys

import pconv_api
import pytest
from pconv_api.v1 import pconv_pb2 as pb

MESSAGES = {
    "JobRequest": {"header": 1, "band": 2},
    "Header": {"protocol_version": 1, "model": 2, "picture": 3, "boxes": 4, "options": 5},
    "Picture": {"width": 1, "height": 2, "channels": 3, "format": 4},
    "Box": {"x": 1, "y": 2, "width": 3, "height": 4},
    "Band": {"box": 1, "image": 2, "hole": 3},
    "JobReply": {"queued": 1, "progress": 2, "notice": 3, "result": 4, "band": 5, "finished": 6},
    "Queued": {"ahead": 1},
    "Progress": {"fraction": 1},
    "Notice": {"code": 1, "text": 2},
    "Result": {"boxes": 1, "picture": 2, "model": 3, "sha256": 4, "device": 5, "precision": 6},
    "Finished": {"queued_seconds": 1, "compute_seconds": 2},
    "ListModelsRequest": {},
    "ListModelsReply": {"models": 1},
    "Model": {
        "name": 1,
        "task": 2,
        "preset": 3,
        "sha256": 4,
        "bytes": 5,
        "parameters": 6,
        "provenance": 7,
        "factor": 8,
        "problem": 9,
        "is_default": 10,
    },
    "GetServerInfoRequest": {"protocol_version": 1},
    "GetServerInfoReply": {
        "protocol_version": 1,
        "version": 2,
        "pid": 3,
        "devices": 4,
        "limits": 5,
        "options": 6,
        "log_file": 7,
        "jobs": 8,
        "uptime_seconds": 9,
    },
    "Device": {"name": 1, "description": 2, "precision": 3, "memory_bytes": 4, "memory_used_bytes": 5},
    "Limits": {"pixels": 1, "queue": 2, "boxes": 3, "band_bytes": 4, "idle_seconds": 5},
}

FORMATS = {"PIXEL_FORMAT_UNSPECIFIED": 0, "PIXEL_FORMAT_U8": 1, "PIXEL_FORMAT_U16": 2, "PIXEL_FORMAT_F32": 3}
METHODS = {
    "Inpaint": ("JobRequest", "JobReply", True),
    "Upscale": ("JobRequest", "JobReply", True),
    "ListModels": ("ListModelsRequest", "ListModelsReply", False),
    "GetServerInfo": ("GetServerInfoRequest", "GetServerInfoReply", False),
}


def test_fields_keep_their_names_and_numbers():
    found = {
        name: {field.name: field.number for field in message.fields}
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
    }
    assert found == MESSAGES


def test_types_stay_as_they_are():
    fields = pb.Band.DESCRIPTOR.fields_by_name
    assert {name: field.type for name, field in fields.items()} == {"box": 13, "image": 12, "hole": 12}
    assert pb.Progress.DESCRIPTOR.fields_by_name["fraction"].type == 1
    assert (
        pb.JobRequest(band=pb.Band(box=1, image=b"a", hole=b"b")).SerializeToString()
        == b"\x12\x08\x08\x01\x12\x01a\x1a\x01b"
    )


def test_the_service_keeps_its_methods():
    service = pb.DESCRIPTOR.services_by_name["PConv"]
    assert service.full_name == "pconv_api.v1.PConv"
    for name, (request, reply, streams) in METHODS.items():
        method = service.methods_by_name[name]
        assert (method.input_type.name, method.output_type.name) == (request, reply)
        assert (method.client_streaming, method.server_streaming) == (streams, streams)
    assert dict(pb.PixelFormat.items()) == FORMATS
    assert pconv_api.PROTOCOL_VERSION == 1
    assert pconv_api.DEFAULT_PORT == 50451


def test_unknown_fields_and_events_of_newer_programs_do_no_harm():
    newer = pb.Header(protocol_version=1, model="m").SerializeToString() + b"\xa2\x06\x03new"  # field 100
    assert pb.Header.FromString(newer).model == "m"
    assert pb.JobReply.FromString(b"\xa2\x06\x03new").WhichOneof("event") is None


def test_the_geometry_needs_nothing_but_the_standard_library():
    folder = pathlib.Path(pconv_api.__file__).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names | {"pconv_api"}, f"{path.name} imports {name}"


@pytest.mark.parametrize("module", ["pconv_api.geometry", "pconv_api.v1.pconv_pb2"])
def test_the_contract_imports_without_compiled_packages(module):
    code = (
        "import os, sys; os.environ['PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION'] = 'python';"
        f"sys.path[:] = {sys.path!r}; sys.modules |= dict.fromkeys(['numpy', 'grpc', 'torch', 'google._upb._message']);"
        f"import {module}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
