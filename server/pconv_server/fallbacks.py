"""What the engine does where a device runs out of memory, or half precision out of range."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pconv import PConvUNet, PConvUNetConfig
from torch import Tensor

from pconv_server.devices import Device
from pconv_server.errors import NotFiniteError

Notice = Callable[[str, str], None]
"""Called with a word for programs and a sentence for people: what was done instead; the result is right."""

CPU = Device("cpu", "fp32")
CPU_MEMORY = 512 << 20  # bytes; a fixed budget, so that the same picture gets the same tiles everywhere
_PIXEL_BYTES = 240  # of a window, measured with the compact network (32 channels in its first stage) in float32


def no_notice(code: str, text: str) -> None:
    """Tell nobody."""


@dataclass
class Plan:
    """Where and in what pieces a job is computed; it changes as fallbacks are taken."""

    device: Device
    tile: int  # px
    smallest: int  # px; a tile that is no use to cut further


class CarefulNetwork:
    """A network whose windows are computed again in float32 where half precision gave NaN or Inf.

    Args:
        network: In any precision.
        exact: Gives the same network in float32 on the same device.
        notice: Told when that happens.
    """

    def __init__(self, network: PConvUNet, exact: Callable[[], PConvUNet], notice: Notice) -> None:
        self.network, self.exact, self.notice, self.config = network, exact, notice, network.config

    def __call__(self, image: Tensor, hole: Tensor) -> Tensor:
        """Run the network.

        Raises:
            NotFiniteError: The result is not finite in float32 either.
        """
        output: Tensor = self.network(image, hole)
        if output.isfinite().all():
            return output
        dtype = next(self.network.parameters()).dtype
        if dtype != torch.float32:
            self.notice("float32", f"{dtype} was not enough for a part of the picture: it was computed in float32")
            output = self.exact()(image, hole)
        if not output.isfinite().all():
            raise NotFiniteError("the network gave values that are no numbers: its weights may be damaged")
        return output


def smaller(plan: Plan, notice: Notice) -> bool:
    """Change a plan that ran out of memory to smaller tiles, then to the CPU; False: nothing is left to try."""
    name = plan.device.name
    if plan.tile > plan.smallest:
        plan.tile = max(plan.smallest, plan.tile // 2)
        notice("smaller-tiles", f"{name} ran out of memory: the work goes on in tiles of {plan.tile} px")
        return True
    if name != "cpu":
        plan.device = CPU
        notice("cpu", f"{name} ran out of memory: the work goes on on the CPU")
        return True
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in main memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # torch's allocators of the CPU, CUDA itself, cuBLAS and cuDNN: when another program fills the GPU, say.
    words = ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def window_side(config: PConvUNetConfig, memory: int, dtype: torch.dtype) -> int:
    """How large a square the network can compute at once.

    Args:
        config: Of the network.
        memory: For its features, bytes.
        dtype: Of its features.

    Returns:
        Side, px.
    """
    pixel = _PIXEL_BYTES * max(32, config.channels[0]) / 32 * dtype.itemsize / 4
    return math.isqrt(int(memory / pixel))


def default_memory(device: Device) -> int:
    """The budget for features: half of a GPU's memory, or a fixed amount of main memory; bytes."""
    return torch.cuda.mem_get_info(device.name)[1] // 2 if device.is_cuda else CPU_MEMORY
