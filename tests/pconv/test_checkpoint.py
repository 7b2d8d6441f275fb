"""Checkpoint files: what goes in comes out, and what is broken is named."""

import errno
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pconv import (
    CheckpointError,
    PConvUNet,
    PConvUNetConfig,
    describe_checkpoint,
    fold_batch_norm,
    load_checkpoint,
    save_checkpoint,
)
from pconv.checkpoint import write_atomically
from pconv.files import with_metadata

CONFIG = PConvUNetConfig((4, 6), (5, 3), mean=(0.5, 0.4, 0.3))


@pytest.fixture
def network() -> PConvUNet:
    network = PConvUNet(CONFIG)
    network(torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16))  # moves the running statistics
    return network.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network.safetensors"


def run(network: PConvUNet) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return network(torch.rand(1, 3, 17, 12), (torch.rand(1, 1, 17, 12) > 0.6).float())


def test_round_trip(network: PConvUNet, path: Path) -> None:
    save_checkpoint(path, network, "upscale", {"data": ["a", "b"], "steps": 7, "psnr": 31.5})
    loaded, info = load_checkpoint(path), describe_checkpoint(path)
    assert torch.equal(run(loaded), run(network))
    assert not loaded.training
    assert loaded.config == info.config == CONFIG
    assert (info.task, info.provenance) == ("upscale", {"data": ["a", "b"], "steps": 7, "psnr": 31.5})
    statistics = sum(b.numel() for name, b in network.named_buffers() if "num_batches" not in name)
    assert info.parameters == sum(p.numel() for p in network.parameters()) + statistics


def test_a_loaded_network_can_be_trained_and_saved_again(network: PConvUNet, path: Path) -> None:
    save_checkpoint(path, network)
    loaded = load_checkpoint(path).train()
    loaded(torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in loaded.parameters())
    assert loaded.encoder[1].norm.num_batches_tracked == 1
    save_checkpoint(path, loaded)
    assert torch.equal(run(load_checkpoint(path)), run(loaded.eval()))


def test_loading_draws_no_random_numbers(network: PConvUNet, path: Path) -> None:
    save_checkpoint(path, network)
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_folded_and_plain_networks_too(path: Path) -> None:
    folded = fold_batch_norm(PConvUNet(PConvUNetConfig((4, 6), (5, 3), partial=False)))
    save_checkpoint(path, folded)
    loaded = load_checkpoint(path)
    assert loaded.config == folded.config
    assert torch.equal(run(loaded), run(folded))


def test_half_precision_storage(network: PConvUNet, path: Path) -> None:
    save_checkpoint(path, network)
    full = path.stat().st_size
    save_checkpoint(path, network, dtype=torch.float16)
    assert path.stat().st_size < 0.7 * full
    loaded = load_checkpoint(path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert torch.equal(loaded.encoder[0].conv.weight, network.encoder[0].conv.weight.half().float())
    assert torch.equal(loaded.encoder[1].norm.running_var, network.encoder[1].norm.running_var)


def test_weights_that_half_precision_cannot_hold_are_refused(network: PConvUNet, path: Path) -> None:
    torch.nn.init.constant_(network.encoder[0].conv.weight, 7e4)
    with pytest.raises(ValueError, match=r"encoder\.0\.conv\.weight does not fit into torch\.float16.*70000"):
        save_checkpoint(path, network, dtype=torch.float16)
    assert not path.exists()


def test_same_network_same_bytes_and_the_sha256_is_the_files(network: PConvUNet, path: Path) -> None:
    first = save_checkpoint(path, network, provenance={"b": 1, "a": 2})
    data = path.read_bytes()
    assert save_checkpoint(path, network, provenance={"b": 1, "a": 2}) == first == describe_checkpoint(path).sha256
    assert path.read_bytes() == data


def test_it_is_an_ordinary_safetensors_file(network: PConvUNet, path: Path) -> None:
    save_checkpoint(path, network)
    tensors = safetensors.torch.load_file(path)
    assert torch.equal(tensors["encoder.0.conv.weight"], network.encoder[0].conv.weight)


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    network: PConvUNet, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(path, network)
    before = path.read_bytes()
    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, network, "upscale")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_write_atomically_makes_folders_and_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a" / "b", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o640


def test_missing_file_and_folder(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*network\.safetensors"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(path.parent)


def test_truncated_anywhere(network: PConvUNet, path: Path) -> None:
    save_checkpoint(path, network)
    data = path.read_bytes()
    for length in [*range(16), *range(16, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        for function in (load_checkpoint, describe_checkpoint):
            with pytest.raises(CheckpointError, match="truncated"):
                function(path)


def test_any_flipped_bit_is_noticed(path: Path) -> None:
    save_checkpoint(path, PConvUNet(PConvUNetConfig((2,), (3,))), provenance={"steps": 1})
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        for function in (load_checkpoint, describe_checkpoint):
            with pytest.raises(CheckpointError):
                function(path)


def forge(path: Path, network: PConvUNet, **changes: object) -> None:
    """Write a checkpoint whose metadata lie, with a checksum that agrees."""
    tensors = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    config = json.dumps({"channels": [4, 6], "kernel_sizes": [5, 3]})
    metadata = {"format": "pconv", "format_version": "1", "config": config, "task": "inpaint", "provenance": "{}"}
    tensors |= changes.pop("tensors", {})
    tensors = {k: v for k, v in tensors.items() if v is not None}
    path.write_bytes(with_metadata(safetensors.torch.save(tensors), metadata | changes))


def test_a_forged_checkpoint_without_lies_loads(network: PConvUNet, path: Path) -> None:
    forge(path, network)
    load_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a pconv checkpoint: its metadata says 'other'"),
        ({"format_version": "2"}, "format version 2, this pconv reads 1: update pconv"),
        ({"config": "{"}, "unreadable config"),
        ({"config": "[]"}, "unreadable config"),
        ({"config": '{"channels": [4, 6], "kernel_sizes": [5, 3], "depth": 3}'}, "unreadable config.*depth"),
        ({"config": '{"channels": "many", "kernel_sizes": [5, 3]}'}, "unreadable config"),
        (
            {"config": '{"channels": [4, 8], "kernel_sizes": [5, 3]}'},
            r"decoder\.0\.conv\.weight has shape \(4, 10, 3, 3\) instead of \(4, 12, 3, 3\)",
        ),
        ({"config": '{"channels": [4, 99999999], "kernel_sizes": [5, 3]}'}, "has shape"),
        ({"config": '{"channels": [4], "kernel_sizes": [5]}'}, r"missing \[.*in excess \['"),
        ({"tensors": {"encoder.0.conv.bias": None}}, r"missing \['encoder\.0\.conv\.bias'\], in excess \[\]"),
        ({"tensors": {"extra": torch.zeros(1)}}, r"missing \[\], in excess \['extra'\]"),
        ({"tensors": {"encoder.0.conv.bias": torch.zeros(5)}}, r"conv\.bias has shape \(5,\) instead of \(4,\)"),
        ({"tensors": {"encoder.0.conv.bias": torch.zeros(4).long()}}, r"has dtype torch\.int64"),
    ],
)
def test_what_does_not_fit_is_named(network: PConvUNet, path: Path, changes: dict, message: str) -> None:
    forge(path, network, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "header",
    [
        *(b"", b"\xff", b"[]", b"1", b"null", b"[" * 99999, b'{"__metadata__": 3}', b'{"a": 1}', b'{"a": {}}'),
        *(b'{"a": {"data_offsets": [0]}}', b'{"a": {"data_offsets": [0, "x"]}}'),
    ],
)
def test_rubbish_is_no_safetensors_file(path: Path, header: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(path)


def test_other_safetensors_files_are_not_ours(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a pconv checkpoint: its metadata says None"):
        describe_checkpoint(path)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.ckpt", "net", "net.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_with_the_way_out(
    tmp_path: Path, name: str, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if zipped:
        torch.save({"model": Trap()}, name)
    else:
        Path(name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match=r"is a pickle.*pconv-train import net.* -o net\.safetensors"):
        load_checkpoint(name)
    assert not Path("sprung").exists()


def test_a_header_may_begin_like_a_pickle(network: PConvUNet, path: Path) -> None:
    """A header of 0x280 bytes gives a file the first two bytes of a pickle of protocol 2."""
    save_checkpoint(path, network)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    wanted = length + (0x280 - length) % 0x10000
    header = data[8 : 8 + length] + b" " * (wanted - length)
    path.write_bytes(struct.pack("<Q", wanted) + header + data[8 + length :])
    assert path.read_bytes()[:2] == b"\x80\x02"
    load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)
