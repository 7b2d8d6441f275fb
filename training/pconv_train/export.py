"""From a run to a checkpoint that can be served: EMA weights in half precision, provenance, a model card."""

import dataclasses
import hashlib
import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pconv import PConvUNet, PConvUNetConfig, describe_checkpoint, load_checkpoint, save_checkpoint
from pconv.checkpoint import write_atomically

from pconv_train.config import OWN_INIT, ConfigError, TrainConfig, read_config
from pconv_train.data import DataError
from pconv_train.layouts import find_training_photos
from pconv_train.state import STATE_FILE


def export(run: Path, path: Path, description: str = "", mean_with: Path | None = None) -> str:
    """Write a run's EMA weights as fp16 safetensors, and a Markdown card beside it.

    Args:
        run: Run folder.
        path: File to write, `*.safetensors`.
        description: Sentence on the data and its licences, for the card.
        mean_with: Checkpoint, such as the one that the run began with, to take the mean with: Wortsman et al. 2022,
            "Model soups" (arXiv:2203.05482).

    Returns:
        The file's sha256.

    Raises:
        ConfigError: There is no run, it has no state yet, or `mean_with` is for another task or network.
        CheckpointError: `mean_with` cannot be read.
    """
    config = read_config(run)
    if not (run / STATE_FILE).is_file():
        raise ConfigError(f"{run} has no {STATE_FILE} yet: train first")
    state = torch.load(run / STATE_FILE, map_location="cpu", weights_only=True)
    network = config.build_network()
    network.load_state_dict(state["ema"], strict=False)
    provenance = _provenance(config, state["progress"], description)
    if mean_with:
        provenance["stages"][-1]["mean_with"] = _take_mean(network, config.task, mean_with)
    sha256 = save_checkpoint(path, network, config.task, provenance, torch.float16)
    write_atomically(path.with_suffix(".md"), model_card(path).encode())
    return sha256


def _take_mean(network: PConvUNet, task: str, path: Path) -> str:
    """Give the network the mean of its weights and a checkpoint's, whose sha256 is returned."""
    info = describe_checkpoint(path)
    # These have no weights: a run may have changed them.
    same = {name: getattr(network.config, name) for name in ("upsampling", "smooth_noise")}
    if info.task != task or dataclasses.replace(info.config, **same) != network.config:
        raise ConfigError(f"{path} is for another task than the run, or another network: no mean can be taken")
    other = load_checkpoint(path).state_dict()
    network.load_state_dict({name: (x + other[name].to(x)) / 2 for name, x in network.state_dict().items()})
    return info.sha256


def model_card(path: Path) -> str:
    """Describe a checkpoint in Markdown, from what it says of itself."""
    info = describe_checkpoint(path)
    stages = list(info.provenance.get("stages", []))
    lines = [
        f"# {path.stem}",
        "",
        f"Partial-convolution U-Net (Liu et al. 2018, arXiv:1804.07723) for the task **{info.task}**.",
        "",
        "| | |",
        "|---|---|",
        f"| sha256 | `{info.sha256}` |",
        f"| weights | {info.parameters:,}, half precision |",
        f"| channels of the encoder | {', '.join(map(str, info.config.channels))} |",
        f"| decoder | {', '.join(_decoder(info.config))} |",
        f"| pictures seen | {sum(stage['pictures'] for stage in stages):,} |",
        f"| hours | {sum(stage['hours'] for stage in stages):.2f} |",
        "",
    ]
    for number, stage in enumerate(stages, 1):
        config = stage["config"]
        terms = ", ".join(f"{weight:g} {name}" for name, weight in config["loss"].items() if weight)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in stage["validation"].items())
        lines += [
            f"## Run {number}: {stage['steps']:,} steps of {config['batch']} crops of {config['crop']} px",
            "",
            f"- Loss: {terms}."
            + (f" Hole grown by {config['edge']} px and corrected by the error there." if config.get("edge") else "")
            + (" VGG saw it at any angle." if config.get("perceptual_turned") else "")
            + (" The encoder's batch norm frozen: stage 2 of the paper." if config["freeze_encoder_norm"] else ""),
            f"- Adam, learning rate {config['learning_rate']:g}, {config['schedule']} schedule, "
            f"EMA {config['ema']:g}, seed {config['seed']}.",
            f"- Data: {_photos(stage['data'])}. {stage['data']['description']}",
            f"- On {config['validation']} photos of the same source, held out: {figures or 'not measured'}.",
            *([f"- Then the mean with the weights of `{stage['mean_with'][:16]}…`."] if "mean_with" in stage else []),
            "",
        ]
    return "\n".join(lines)


def _decoder(config: PConvUNetConfig) -> list[str]:
    """What the paper's decoder does not have, for the card."""
    counts = ", ".join(map(str, config.blocks))
    return [
        f"{config.upsampling} upsampling",
        *([("smooth " if config.smooth_noise else "") + "random numbers"] if config.noise else []),
        *([f"residual blocks after its stages: {counts}"] if config.blocks else []),
    ]


def _photos(data: dict[str, Any]) -> str:
    if data["photos"] is None:
        return "a folder that was not there at the export"
    return f"{data['photos']} photos, names' sha256 `{data['names_sha256'][:16]}…`"


def _provenance(config: TrainConfig, progress: dict[str, Any], description: str) -> dict[str, Any]:
    stage = {
        "config": json.loads(config.to_json()),
        "steps": progress["step"],
        "skipped": progress["skipped"],
        "pictures": progress.get("pictures", progress["step"] * config.batch),  # of a version that did not count
        "hours": round(progress["seconds"] / 3600, 3),
        "validation": progress["figures"],
        "data": _describe_data(config, description),
        "pconv": version("pconv"),
        "revision": _git_revision(),
    }
    # Only the names of local files: their folders are nobody's business.
    for name in ("data", "init", "coarse", "vgg", "holes"):
        if value := stage["config"][name]:
            stage["config"][name] = Path(value).name.removeprefix(OWN_INIT if name == "init" else "")
    earlier = dict(describe_checkpoint(config.init).provenance).get("stages", []) if config.init else []
    return {"stages": [*earlier, stage]}


def _describe_data(config: TrainConfig, description: str) -> dict[str, Any]:
    try:
        names = sorted(path.name for path in find_training_photos(config))
    except DataError:  # trained elsewhere, exported here
        return {"photos": None, "names_sha256": None, "description": description}
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {"photos": len(names) - config.validation, "names_sha256": digest, "description": description}


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
