"""Checkpoint files: safetensors that hold the weights, the network's config and where they come from. Never pickle."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pconv.files import CheckpointError, digest, read, split, with_metadata, write_atomically
from pconv.network import PConvUNet, PConvUNetConfig

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "describe_checkpoint",
    "import_naoto0804",
    "load_checkpoint",
    "save_checkpoint",
    "write_atomically",
]

FORMAT_VERSION = 1
_COUNTER = "num_batches_tracked"  # of batch norm; means nothing to a finished network


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
        ValueError: Weights that `dtype` cannot hold.
    """
    tensors = {
        name: _cast(name, tensor.detach().cpu(), dtype if tensor.ndim > 1 else torch.float32)
        for name, tensor in network.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    metadata = {
        "format": "pconv",
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(dataclasses.asdict(network.config)),
        "task": task,
        "provenance": json.dumps(dict(provenance or {})),
    }
    data = with_metadata(safetensors.torch.save(tensors), metadata)
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
    path = Path(path)
    data = read(path)
    info = _info(path, data)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); fetch or export it again") from error
    return _build(path, info.config, tensors).to(device)


def describe_checkpoint(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read config, task and provenance of a checkpoint, but not its weights.

    Raises:
        CheckpointError: The file is missing, damaged or not a pconv checkpoint.
    """
    path = Path(path)
    return _info(path, read(path))


def import_naoto0804(path: str | os.PathLike[str]) -> PConvUNet:
    """Read weights of https://github.com/naoto0804/pytorch-inpainting-with-partial-conv, 7 or 8 levels.

    Its layer multiplies by 1/sum(M) where ours has sum(1)/sum(M), so its weights are divided by C_in · k² here.
    Topology and normalisation of the input are the same.

    Args:
        path: Pickled state dict, bare or under "model". Only tensors are loaded from it, no code is run.

    Returns:
        The network in eval mode, float32, which gives the same output.

    Raises:
        CheckpointError: The file is missing or damaged, holds more than tensors, or another network.
    """
    path = Path(path)
    found = _load_pickle(path)
    levels = sum(name.startswith("enc_") and name.endswith(".conv.input_conv.weight") for name in found)
    if levels not in (7, 8):
        raise CheckpointError(f"{path} is not one of naoto0804's PConvUNet: {levels} encoder stages instead of 7 or 8")
    theirs = {f"encoder.{i}": f"enc_{i + 1}" for i in range(levels)}
    theirs |= {f"decoder.{i}": f"dec_{levels - i}" for i in range(levels)}
    tensors = {}
    for stage, name in theirs.items():
        weight = found.pop(f"{name}.conv.input_conv.weight", None)
        if weight is not None and weight.ndim == 4:
            tensors[f"{stage}.conv.weight"] = weight / weight[0].numel()
        for field in ("weight", "bias", "running_mean", "running_var"):
            if f"{name}.bn.{field}" in found:
                tensors[f"{stage}.norm.{field}"] = found.pop(f"{name}.bn.{field}")
    tensors["encoder.0.conv.bias"] = torch.zeros(64)  # it has none
    if "dec_1.conv.input_conv.bias" in found:
        tensors[f"decoder.{levels - 1}.conv.bias"] = found.pop("dec_1.conv.input_conv.bias")
    # What is left must be what only its layer needs; anything else means a network that this is not.
    rest = {name: tensor for name, tensor in found.items() if not name.endswith(("conv.mask_conv.weight", _COUNTER))}
    return _build(path, PConvUNetConfig.paper(levels), tensors | rest)


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is no pickle of tensors alone, so it is not loaded: {error}") from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or no pickle: {error}") from error
    state = found.get("model", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state dict, bare or under 'model', but {type(state).__name__}")
    return dict(state)


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(dtype).contiguous()
    if not torch.equal(cast.isfinite(), tensor.isfinite()):
        raise ValueError(f"{name} does not fit into {dtype}: its largest value is {tensor.abs().max().item():g}")
    return cast


def _info(path: Path, data: bytes) -> CheckpointInfo:
    header, body = split(path, data)
    metadata = header["__metadata__"]
    if metadata.get("format") != "pconv":
        raise CheckpointError(f"{path} is not a pconv checkpoint: its metadata says {metadata.get('format')!r}")
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise CheckpointError(f"{path} has format version {version}, this pconv reads {FORMAT_VERSION}: update pconv")
    try:
        fields = json.loads(metadata["config"])
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        config = PConvUNetConfig(**arguments)
        provenance = json.loads(metadata["provenance"])
        task = metadata["task"]
        parameters = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has an unreadable config ({error}); export it again") from error
    if metadata.get("sha256") != digest(header, body):
        raise CheckpointError(
            f"{path} is damaged (its sha256 is not the one it was saved with); fetch or export it again"
        )
    return CheckpointInfo(config, task, provenance, parameters, hashlib.sha256(data).hexdigest())


def _build(path: Path, config: PConvUNetConfig, tensors: Mapping[str, Tensor]) -> PConvUNet:
    """Make the network of a config in eval mode, float32, and give it the tensors."""
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        network = PConvUNet(config)
    state = network.state_dict()
    _check_tensors(path, tensors, {k: v for k, v in state.items() if not k.endswith(_COUNTER)})
    counters = {k: torch.zeros((), dtype=torch.long) for k in state if k.endswith(_COUNTER)}
    network.load_state_dict({**{k: v.float() for k, v in tensors.items()}, **counters}, assign=True)
    return network.eval()


def _check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, excess = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or excess:
        raise CheckpointError(f"{path} does not fit its config: missing {sorted(missing)}, in excess {sorted(excess)}")
    for name, tensor in sorted(found.items()):
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            raise CheckpointError(f"{path} does not fit its config: {name} has shape {shapes}")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path} does not fit its config: {name} has dtype {tensor.dtype}, no floating one")
