"""Which devices serve, and in which precision: decided by what the hardware has, so the same every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pconv.precision import prefers_bf16

from pconv_server.errors import SetupError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where a network runs, and in what."""

    name: str  # "cpu", "cuda:0"
    precision: str  # "fp32", "bf16" or "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and features."""
        return DTYPES[self.precision]

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.name.startswith("cuda")


def choose_devices(
    gpus: Sequence[int] = (), cpu: bool = False, precision: Precision = "auto", gpu_count: int | None = None
) -> list[Device]:
    """Choose what to serve on.

    Args:
        gpus: Numbers of GPUs, one worker each.
        cpu: Use the CPU. With neither: the first GPU, or else the CPU.
        precision: "auto": bf16 where the hardware computes with it, else fp32.
        gpu_count: GPUs of this machine; None: ask torch.

    Raises:
        SetupError: A GPU that is not there, or a precision that the device does not have.
    """
    count = torch.cuda.device_count() if gpu_count is None else gpu_count
    if gpus and cpu:
        raise SetupError("--gpu and --cpu exclude each other: give one of them")
    if len(set(gpus)) != len(gpus):
        raise SetupError(f"each --gpu must be given once, got {', '.join(map(str, gpus))}")
    for gpu in gpus:
        if not 0 <= gpu < count:
            have = f"the GPUs here are 0…{count - 1}" if count else "torch finds no GPU here (see: pconv-server doctor)"
            raise SetupError(f"--gpu {gpu}: {have}; leave it out, or use --cpu")
    names = [f"cuda:{gpu}" for gpu in gpus] or ["cpu" if cpu or not count else "cuda:0"]
    return [Device(name, _precision(name, precision)) for name in names]


def describe(name: str) -> str:
    """The model of a GPU, or the threads of a CPU."""
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    return f"{torch.get_num_threads()} threads"


def _precision(name: str, wanted: Precision) -> str:
    if wanted == "auto":
        return "bf16" if prefers_bf16(name) else "fp32"
    if wanted == "fp16" and name == "cpu":
        raise SetupError("--precision fp16 is for GPUs: on the CPU use fp32, or bf16 where it has it")
    return wanted
