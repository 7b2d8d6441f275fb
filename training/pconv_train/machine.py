"""What a run needs of the machine: its processes, their device and precision, signals that ask to stop."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a process group: its default arguments would keep the group's threads
from pconv.precision import prefers_bf16
from torch import Tensor

from pconv_train.config import ConfigError, TrainConfig


def join_processes(config: TrainConfig) -> tuple[int, int, torch.device]:
    """Join the process group that torchrun started, if any, and choose this process's device."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() if config.device == "auto" else config.device.startswith("cuda")
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    name = config.device if config.device != "auto" and ":" in config.device else f"cuda:{local}" if cuda else "cpu"
    return (dist.get_rank() if world > 1 else 0), world, torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Pick the dtype of the network's convolutions: what the hardware does fast, unless told otherwise."""
    if name == "auto":
        if prefers_bf16(str(device)):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in dtypes:
        raise ConfigError(f"--precision must be auto or one of {', '.join(dtypes)}, got {name!r}")
    return dtypes[name]


def agree(flagged: bool | Tensor, device: torch.device, world: int) -> bool:
    """Return whether any process is flagged: one that stopped or skipped alone would leave the others waiting."""
    if world == 1:
        return bool(flagged)
    flag = torch.tensor(float(flagged), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def share(value: float, device: torch.device, world: int) -> float:
    """Return the first process's value in all processes, so that what they derive from it is the same."""
    if world == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


class StopFlag:
    """Remembers that a signal came; the step in progress goes on."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        """Handle the signal."""
        self._asked = True

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return self._asked


def ignore_stop_signals(_worker: int) -> None:
    """Let decoding processes outlive a signal to the whole group; the main process ends them after its last step."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Catch SIGTERM and SIGINT for the time of the block."""
    flag = StopFlag()
    before = {name: signal.signal(name, flag.ask) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class Stopwatch:
    """Measures from one reading to the next."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last reading."""
        before, self._since = self._since, time.monotonic()
        return self._since - before


@contextlib.contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measure, but not while the process is stopped (SIGSTOP, Ctrl-Z): a pause is no training time."""
    watch = Stopwatch()
    if not hasattr(signal, "SIGCONT"):  # Windows
        yield watch
        return
    before = signal.signal(signal.SIGCONT, lambda *_: watch.lap())
    try:
        yield watch
    finally:
        signal.signal(signal.SIGCONT, before)
