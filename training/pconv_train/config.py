"""What a training run is: one frozen dataclass, written into the run folder as config.json."""

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pconv import PConvUNet, PConvUNetConfig, load_checkpoint
from pconv.network import UPSAMPLINGS

from pconv_train.curriculum import CELL
from pconv_train.data import TASKS
from pconv_train.losses import LossWeights
from pconv_train.warm_start import with_blocks, with_noise, with_options, with_smooth_noise

OWN_INIT = "init-"  # begins the name of a run's own copy of --init
SCHEDULES = ("cosine", "constant")
PRESETS = {"paper": PConvUNetConfig.paper, "compact": PConvUNetConfig.compact, "light": PConvUNetConfig.light}


class ConfigError(ValueError):
    """The options of a run do not go together; the message says which."""


@dataclass(frozen=True)
class TrainConfig:
    """All options of one stage of training."""

    # Data.
    data: str  # folder of photographs
    include: tuple[str, ...] = ("*",)  # shell patterns of file names
    exclude: tuple[str, ...] = ()
    layout: str = "folder"  # "folder", "imagenet", "places2" or "celeba-hq"
    holes: str | None = None  # folder of mask files; None: generated
    curriculum: int = 0  # pictures at the beginning that are drawn edges, or photographs, with holes that begin small
    curriculum_share: float = 0.0  # share of such pictures, at their hardest, among the others
    validation: int = 32  # photos held out for validation
    # Task and network.
    task: str = "inpaint"
    preset: str = "compact"
    stages: int | None = None  # of the encoder; None: as many as suit the crop
    edge: int = 0  # px that the hole is grown by; what the network predicts there corrects the hole (pconv.edge)
    upsampling: str | None = None  # "nearest" or "bilinear"; None: as `init` has it, else nearest
    noise: bool = False  # random numbers in the decoder (pconv.noise); with `init`, added to a network without
    smooth_noise: bool = False  # those of the decoder without their finest waves
    blocks: tuple[int, ...] = ()  # residual blocks after each decoder stage; with `init`, added to it or left out
    plain: bool = False  # the paper's "Conv" instead of partial convolutions
    init: str | None = None  # checkpoint to start from; it then decides the network
    coarse: str | None = None  # checkpoint whose fills "refine" learns from; None: it learns from reduced photographs
    freeze_encoder_norm: bool = False  # stage 2 (§4.2)
    # Optimization.
    steps: int | None = None
    hours: float | None = None
    batch: int = 6  # a step and process
    crop: int = 256  # px
    max_scale: float = 2.0
    learning_rate: float = 2e-4
    warmup: int = 100  # steps
    schedule: str = "cosine"  # or "constant"
    clip: float = 1.0  # gradient norm
    ema: float = 0.999  # decay a step
    precision: str = "auto"  # "fp32", "bf16", "fp16"
    seed: int = 0
    # Loss.
    loss: LossWeights = dataclasses.field(default_factory=LossWeights)
    vgg: str | None = None  # file; None: torchvision downloads
    perceptual_crop: int | None = None  # px; None: the whole crop
    perceptual_turned: bool = False  # VGG sees it turned by any angle
    # Machine.
    device: str = "auto"
    workers: int = 1
    threads: int | None = None
    # Log.
    log_every: int = 50  # steps
    validate_every: int = 1000  # steps
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"--task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.upsampling not in (None, *UPSAMPLINGS):
            raise ConfigError(f"--upsampling must be one of {', '.join(UPSAMPLINGS)}, got {self.upsampling!r}")
        if (self.steps is None) == (self.hours is None):
            raise ConfigError("give either --steps or --hours")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"--schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"--device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if self.crop < 11 and (self.loss.ssim or self.validation):
            raise ConfigError(f"SSIM, of the loss and of validation, needs --crop of at least 11 px, got {self.crop}")
        if self.edge and self.task != "inpaint":
            raise ConfigError(f"--edge {self.edge} would hide the lattice pixels of --task {self.task}: give --edge 0")
        if (self.curriculum or self.curriculum_share) and self.task != "inpaint":
            raise ConfigError(f"--curriculum and --curriculum-share are for --task inpaint, not {self.task}")
        if (self.curriculum or self.curriculum_share) and self.crop < CELL:
            raise ConfigError(f"--curriculum and --curriculum-share need --crop of at least {CELL} px, got {self.crop}")
        if self.coarse and self.task != "refine":
            raise ConfigError(f"--coarse is for --task refine, not {self.task}")
        if self.stages is not None and self.stages > self.deepest_stages():
            raise ConfigError(
                f"{self.stages} stages reduce a crop of {self.crop} px below 2×2, where batch norm sees too few values "
                f"to be stable: use at most --stages {self.deepest_stages()}, or a larger --crop"
            )

    def deepest_stages(self) -> int:
        """Count the stages after which the crop is still at least 2×2: 8 at 512, 7 at 256 px."""
        return max(1, min(8, int(math.log2(self.crop)) - 1))

    def network_config(self) -> PConvUNetConfig:
        """Build the network's config of preset, stages and kind."""
        config = PRESETS[self.preset](self.stages or self.deepest_stages(), not self.plain)
        return dataclasses.replace(config, noise=self.noise, upsampling=self.upsampling or config.upsampling)

    def build_network(self) -> PConvUNet:
        """Make the network that the run begins with.

        Raises:
            CheckpointError: `init` cannot be read.
            ConfigError: `blocks` that the network cannot get, or nothing to make smooth.
        """
        network = load_checkpoint(self.init) if self.init else PConvUNet(self.network_config())
        network = with_options(network, upsampling=self.upsampling) if self.upsampling else network
        network = with_noise(network) if self.noise else network
        if self.smooth_noise and not network.config.noise:
            raise ConfigError("--smooth-noise is for a network with random numbers: give --noise, too")
        network = with_smooth_noise(network) if self.smooth_noise else network
        if self.blocks in ((), network.config.blocks):
            return network
        try:
            return with_blocks(network, self.blocks)
        except ValueError as error:
            raise ConfigError(f"--blocks: {error}") from error

    def to_json(self) -> str:
        """Write all options as JSON, as read by `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the options of config.json.

        Raises:
            ConfigError: It has an option that there is not, as that of a later version has.
        """
        fields = json.loads(text)
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        try:
            fields["loss"] = LossWeights(**fields["loss"])
            return cls(**fields)
        except TypeError as error:
            raise ConfigError(f"config.json was not written by this version of pconv-train ({error})") from error


def read_config(run: Path) -> TrainConfig:
    """Read config.json of a run folder.

    Raises:
        ConfigError: There is no run in that folder.
    """
    path = run / "config.json"
    if not path.is_file():
        raise ConfigError(f"no run at {run}: {path.name} is missing")
    return TrainConfig.from_json(path.read_text())
