"""Weights of naoto0804's PConvUNet against a forward pass of that network, written here from its description."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pconv.checkpoint import CheckpointError, import_naoto0804, load_checkpoint, save_checkpoint
from pconv.network import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor

State = dict[str, Tensor]


def their_weights(levels: int) -> State:
    widths = [3, 64, 128, 256, 512, 512, 512, 512, 512][: levels + 1]
    state = {}
    for i in range(1, levels + 1):
        kernel = {1: 7, 2: 5, 3: 5}.get(i, 3)
        for name, inputs, outputs, k in [
            (f"enc_{i}", widths[i - 1], widths[i], kernel),
            (f"dec_{i}", widths[i] + widths[i - 1], widths[i - 1], 3),
        ]:
            window = inputs * k * k  # their layer divides by sum(M), so trained weights are larger by about this
            state[f"{name}.conv.input_conv.weight"] = torch.randn(outputs, inputs, k, k) * (2 * window) ** 0.5
            state[f"{name}.conv.mask_conv.weight"] = torch.ones(outputs, inputs, k, k)
            if i > 1:
                state[f"{name}.bn.weight"] = torch.rand(outputs) + 0.5
                state[f"{name}.bn.bias"] = torch.randn(outputs) * 0.3
                state[f"{name}.bn.running_mean"] = torch.randn(outputs) * 0.3
                state[f"{name}.bn.running_var"] = torch.rand(outputs) + 0.5
                state[f"{name}.bn.num_batches_tracked"] = torch.tensor(3)
    state["dec_1.conv.input_conv.bias"] = torch.randn(3)
    return state


def their_stage(state: State, name: str, x: Tensor, m: Tensor, stride: int, slope: float) -> tuple[Tensor, Tensor]:
    weight = state[f"{name}.conv.input_conv.weight"]
    bias = state.get(f"{name}.conv.input_conv.bias", torch.zeros(len(weight))).view(1, -1, 1, 1)
    padding = weight.shape[-1] // 2
    total = F.conv2d(m, state[f"{name}.conv.mask_conv.weight"], None, stride, padding)
    y = F.conv2d(x * m, weight, None, stride, padding) / total.clamp(min=1) + bias
    y, m = y.masked_fill(total == 0, 0), (total > 0).float()
    if f"{name}.bn.weight" in state:
        fields = [state[f"{name}.bn.{field}"] for field in ("running_mean", "running_var", "weight", "bias")]
        y = F.batch_norm(y, *fields, eps=1e-5)
    return F.leaky_relu(y, slope), m


def their_network(state: State, x: Tensor, m: Tensor, levels: int) -> Tensor:
    """Normalised picture and three-channel mask (1 = known) in, normalised picture out; sizes of a power of two."""
    skips = []
    for i in range(1, levels + 1):
        skips.append((x, m))
        x, m = their_stage(state, f"enc_{i}", x, m, 2, 0)
    for i in range(levels, 0, -1):
        skip, skip_mask = skips.pop()
        x = torch.cat([F.interpolate(x, scale_factor=2), skip], 1)
        m = torch.cat([F.interpolate(m, scale_factor=2), skip_mask], 1)
        x, m = their_stage(state, f"dec_{i}", x, m, 1, 0.2 if i > 1 else 1)
    return x


@pytest.mark.parametrize(("levels", "nested"), [(7, True), (8, False)])
def test_gives_the_output_of_the_original(tmp_path: Path, levels: int, nested: bool) -> None:
    state = their_weights(levels)
    torch.save({"model": state, "n_iter": 5} if nested else state, tmp_path / "theirs.pth")
    network = import_naoto0804(tmp_path / "theirs.pth")
    side = 2**levels
    image, hole = torch.rand(1, 3, side, side), torch.ones(1, 1, side, side)
    hole[..., : side // 2, :9] = 0
    hole[..., 5:7, :] = 0
    mean, std = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    with torch.no_grad():
        wanted = their_network(state, (image - mean) / std, (1 - hole).expand(1, 3, -1, -1), levels) * std + mean
        found = network(image, hole)
    assert not network.training
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float((wanted - mean).abs().max()))
    save_checkpoint(tmp_path / "ours.safetensors", network)
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path / "ours.safetensors")(image, hole), found)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


@pytest.fixture(scope="module")
def few_weights() -> State:
    torch.manual_seed(0)
    return {k: torch.empty(v.shape, dtype=v.dtype) for k, v in their_weights(7).items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("dec_3.conv.input_conv.weight"), r"missing \['decoder\.4\.conv\.weight'\]"),
        (lambda s: s.pop("enc_2.bn.running_var"), r"missing \['encoder\.1\.norm\.running_var'\]"),
        (lambda s: s.pop("dec_1.conv.input_conv.bias"), r"missing \['decoder\.6\.conv\.bias'\]"),
        (lambda s: s.update({"enc_7.attention": torch.zeros(1)}), r"in excess \['enc_7\.attention'\]"),
        (lambda s: s.update({"enc_1.conv.input_conv.weight": torch.zeros(64, 4, 7, 7)}), r"\(64, 4, 7, 7\) instead of"),
        (lambda s: s.pop("enc_1.conv.input_conv.weight"), "6 encoder stages instead of 7 or 8"),
    ],
)
def test_another_network_is_named(tmp_path: Path, few_weights: State, change, message: str) -> None:
    state = dict(few_weights)
    change(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        import_naoto0804(tmp_path / "x.pth")


def test_only_tensors_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Trap()}, "x.pth")
    with pytest.raises(CheckpointError, match="no pickle of tensors alone"):
        import_naoto0804("x.pth")
    assert not Path("sprung").exists()


def test_files_that_are_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        import_naoto0804(path)
    for rubbish in (b"", b"rubbish", b"PK\x03\x04rubbish"):
        path.write_bytes(rubbish)
        with pytest.raises(CheckpointError, match=r"damaged or no pickle|no pickle of tensors"):
            import_naoto0804(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no state dict"):
        import_naoto0804(path)
