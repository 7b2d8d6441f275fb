"""Checkpoint files: safetensors that hold the weights, the network's config and where they come from. Never pickle."""

import dataclasses
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pconv.network import PConvUNet, PConvUNetConfig

FORMAT_VERSION = 1
_PICKLE_ENDINGS = {".pt", ".pth", ".ckpt", ".pkl", ".bin"}


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself, read without its weights."""

    config: PConvUNetConfig
    task: str  # "inpaint", "upscale" or "refine"
    provenance: Mapping[str, Any]  # data, steps, losses, metrics: whatever training wrote
    parameters: int  # number of weights, batch-norm statistics included
    sha256: str  # of the file, hexadecimal


def save_checkpoint(
    path: str | os.PathLike[str],
    network: PConvUNet,
    task: str = "inpaint",
    provenance: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a checkpoint atomically: the old file stays whole until the new one is.

    Args:
        path: File to write, by custom `*.safetensors`.
        network: Network whose weights and config are written.
        task: What it was trained for: "inpaint", "upscale" or "refine".
        provenance: JSON-like notes on data, steps, losses and metrics.
        dtype: Of convolution weights; vectors (biases, batch-norm statistics) stay float32.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        OSError: The disk is full or the folder not writable; an old file at `path` is untouched.
    """
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.ndim > 1 else torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = {
        "format": "pconv",
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(dataclasses.asdict(network.config)),
        "task": task,
        "provenance": json.dumps(dict(provenance or {})),
    }
    data = safetensors.torch.save(tensors, metadata)
    write_atomically(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> PConvUNet:
    """Build the network of a checkpoint, with its weights, in eval mode.

    Args:
        path: A file of `save_checkpoint`.
        device: Where the network goes.

    Returns:
        The network, float32.

    Raises:
        CheckpointError: The file is missing, truncated, of another format, or does not fit its own config.
    """
    info = describe_checkpoint(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); fetch or export it again") from error
    network = PConvUNet(info.config)
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    _check_tensors(path, tensors, expected)
    network.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    return network.to(device).eval()


def describe_checkpoint(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read config, task and provenance of a checkpoint, but not its weights.

    Raises:
        CheckpointError: The file is missing, truncated or not a pconv checkpoint.
    """
    path = Path(path)
    data = _read(path)
    header = _header(path, data)
    metadata = header.get("__metadata__", {})
    if metadata.get("format") != "pconv":
        raise CheckpointError(f"{path} is not a pconv checkpoint: its metadata says {metadata.get('format')!r}")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has format version {metadata.get('format_version')}, this pconv reads {FORMAT_VERSION}: update pconv"
        )
    try:
        fields = json.loads(metadata["config"])
        config = PConvUNetConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        provenance = json.loads(metadata["provenance"])
        task = metadata["task"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has an unreadable config ({error}); export it again") from error
    parameters = sum(_count(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return CheckpointInfo(config, task, provenance, parameters, hashlib.sha256(data).hexdigest())


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash or a full disk leaves the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp's 0600 would hide a shared file
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """Parse a safetensors header (https://github.com/huggingface/safetensors#format)."""
    if data[:2] in (b"PK", b"\x80\x02") or path.suffix in _PICKLE_ENDINGS:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when loaded, so pconv does not open it. "
            f"Convert it once with: pconv-train import {path} -o {path.with_suffix('.safetensors').name}"
        )
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    try:
        header = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or truncated in its header") from error
    wanted = 8 + length + max(ends, default=0)
    if len(data) != wanted:
        raise CheckpointError(f"{path} is truncated: {len(data)} bytes instead of {wanted}; fetch or export it again")
    assert isinstance(header, dict)
    return header


def _check_tensors(path: str | os.PathLike[str], found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, excess = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or excess:
        raise CheckpointError(f"{path} does not fit its config: missing {sorted(missing)}, in excess {sorted(excess)}")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            raise CheckpointError(f"{path} does not fit its config: {name} has shape {shapes}")


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
