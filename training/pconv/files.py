"""Files on the disk: safetensors with checked metadata, read whole and written atomically."""

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch's zip, bare pickles
_PICKLE_ENDINGS = {".pt", ".pth", ".ckpt", ".pkl", ".bin"}


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says why and what to do."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash or a full disk leaves the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # not tempfile's: that has 0600 for ever
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> bytes:
    """Read a whole file, or say in a CheckpointError why not."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def split(path: Path, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Parse a safetensors file into header and body (https://github.com/huggingface/safetensors#format)."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    try:
        header = json.loads(data[8 : 8 + length])
        header.setdefault("__metadata__", {}).get("format")
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        pickled = data.startswith(_PICKLE_STARTS) and data[8:9] != b"{"  # 0x280 may be a header's length, too
        if pickled or path.suffix in _PICKLE_ENDINGS:
            raise CheckpointError(
                f"{path} is a pickle, which can run code when loaded, so pconv does not open it. "
                f"Convert it once with: pconv-train import {path} -o {path.with_suffix('.safetensors').name}"
            ) from error
        raise CheckpointError(f"{path} is not a safetensors file, or truncated in its header") from error
    if len(data) != wanted:
        raise CheckpointError(f"{path} is truncated: {len(data)} bytes instead of {wanted}; fetch or export it again")
    return header, data[8 + length :]


def with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """Add metadata and a checksum to a safetensors file, in one order, so that same weights give the same bytes."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = {**json.loads(data[8 : 8 + length]), "__metadata__": metadata}, data[8 + length :]
    metadata["sha256"] = digest(header, body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the body starts aligned
    return struct.pack("<Q", len(text)) + text + body


def digest(header: Mapping[str, Any], body: bytes) -> str:
    """Hash all that a checkpoint says, config included, but for the hash itself."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != "sha256"}
    said = json.dumps({**header, "__metadata__": metadata}, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(said).digest() + hashlib.sha256(body).digest()).hexdigest()
