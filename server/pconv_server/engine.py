"""A device with its networks: pictures in, pictures out, in the samples of the wire. Knows nothing of gRPC."""

import gc
import logging
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pconv import CheckpointError, PConvUNet, add_texture, filling, fold_batch_norm, inpaint, load_checkpoint, tiles
from pconv.pyramid import SEARCH_AREA, SEARCH_BYTES
from pconv.wide import WIDE
from pconv_api import Box, Texture
from torch import Tensor

from pconv_server.devices import Device, choose_devices
from pconv_server.errors import LimitError, RequestError
from pconv_server.fallbacks import (
    CarefulNetwork,
    Notice,
    Plan,
    default_memory,
    is_out_of_memory,
    no_notice,
    smaller,
    window_side,
)
from pconv_server.models import ModelEntry, ModelFolder
from pconv_server.progress import Progress, Stages, no_progress, rising_only
from pconv_server.rasters import Array, check_finite, to_samples, to_tensor

T = TypeVar("T")
_SMALLEST_TILE = 64  # px, when memory is short
log = logging.getLogger(__name__)


class Engine:
    """Runs networks on one device. Used by one thread at a time.

    Networks are loaded at their first use, batch norm folded into the convolutions, channels last in memory. Where
    memory is short, tiles become smaller, and the CPU helps out in the end; `notice` is told.

    Args:
        device: Where and in what precision; None: the first GPU, or else the CPU.
        models: Which networks; None: those that ship with pconv.
        memory: For the features of a network, bytes; None: by the device.
    """

    def __init__(
        self, device: Device | None = None, models: ModelFolder | None = None, memory: int | None = None
    ) -> None:
        self.device = device or choose_devices()[0]
        self.models = models or ModelFolder()
        self.memory = memory
        self.notice: Notice = no_notice  # set for each job by who runs it
        self._networks: dict[tuple[str, Device], tuple[str, PConvUNet]] = {}  # by path, with the file's sha256
        self._stage_done = _nothing

    def inpaint(
        self,
        image: Array,
        hole: NDArray[np.bool_],
        model: str = "",
        progress: Progress = no_progress,
        box: Box | None = None,
        texture: Texture = Texture.PHOTO,
    ) -> Array:
        """Fill the hole of a picture, or of a box of one.

        Args:
            image: `(H, W, 1 or 3)`, uint8, uint16 or float32, sRGB-encoded; its values under the hole never matter.
            hole: `(H, W)`, True = fill.
            model: Name of a model; empty: the default.
            progress: Called after each stage of the network, and many times while texture is added.
            box: Where the array lies in the picture, for messages.
            texture: Where it comes from; nothing beyond `image` is ever copied.

        Returns:
            A copy of `image`, filled in the hole and the same bytes elsewhere.

        Raises:
            RequestError: The hole is everywhere, shapes do not fit, or known pixels are not finite.
            ModelNotFoundError: No such model.
            LimitError: Not enough memory, in the smallest tiles on the CPU either.
        """
        entry = self.models.find(model, "inpaint")
        _check_shapes(image, hole)
        box = box or Box(0, 0, image.shape[1], image.shape[0])
        check_finite(image, ~hole, box)
        result = image.copy()
        if not hole.any():
            return result
        if hole.all():
            raise RequestError(
                f"the hole covers all {box.width} × {box.height} px at ({box.x}, {box.y}): nothing is left to go by; "
                "expected known pixels around it"
            )
        refinement = self.models.refinement()
        share = 1.0 if texture == Texture.NETWORK else 0.5  # of the network in the time: half, roughly
        rising = rising_only(progress)

        def attempt(network: CarefulNetwork, plan: Plan) -> Tensor:
            now = Stages(network.network, lambda fraction: rising(share * fraction))
            self._stage_done = now.stage_done
            pixels, mask = _input(image, plan.device), _mask(hole, plan.device)
            refine = self._careful(refinement, plan.device) if refinement else None
            return inpaint(network, pixels, mask, tile=plan.tile, progress=now.window, refine=refine)

        plan = self._plan(entry, filling.TILE, 2 * filling.HALO, 1)
        # A larger tile would be the same: one window, of the picture and its mirror image.
        plan.tile = min(plan.tile, max(plan.smallest, max(image.shape[:2]) + 2 * WIDE - 2 * filling.HALO))
        filled = self._compute(entry, plan, attempt)
        if texture == Texture.PHOTO:
            filled = self._add_texture(filled, hole, lambda fraction: rising(share + (1 - share) * fraction))
        result[hole] = to_samples(filled, image.shape[2], image.dtype)[hole]
        progress(1.0)
        return result

    def upscale(
        self,
        image: Array,
        hole: NDArray[np.bool_] | None = None,
        model: str = "",
        progress: Progress = no_progress,
    ) -> Iterator[Array]:
        """Enlarge a picture by the factor of the model.

        Args:
            image: `(H, W, 1 or 3)`, uint8, uint16 or float32, sRGB-encoded.
            hole: `(H, W)`, True = unknown (transparent, say); None: all is known.
            model: Name of a model; empty: the default.
            progress: Called after each stage of each tile.

        Yields:
            Rows of the result from the top, `(rows, K·W, channels)` in the samples of `image`.

        Raises:
            RequestError: Shapes do not fit, or known pixels are not finite.
            ModelNotFoundError: No such model.
            LimitError: Not enough memory, in the smallest tiles on the CPU either.
        """
        entry = self.models.find(model, "upscale")
        _check_shapes(image, hole)
        check_finite(image, None if hole is None else ~hole, Box(0, 0, image.shape[1], image.shape[0]))
        assert entry.info is not None  # find() gives no other
        config, factor = entry.info.config, entry.factor
        height, width = image.shape[:2]
        top, finished = 0, 0.0

        def attempt(network: CarefulNetwork, plan: Plan) -> Array:
            nonlocal finished
            self._stage_done = lambda: progress(finished)
            rows, tile, above = tiles.band_rows(config, factor, plan.tile, top)
            mask = None if hole is None else _mask(hole[rows], plan.device)
            band = []
            for right, large in tiles.upscale_band(
                network, _input(image[rows], plan.device), factor, mask, tile, above
            ):
                band.append(to_samples(large, image.shape[2], image.dtype))
                finished = max(finished, (top * width + min(tile, height - top) * right) / (height * width))
                progress(finished)
            return np.concatenate(band, axis=1)

        plan = self._plan(entry, tiles.TILE, 2 * factor * tiles.halo(config, factor), factor)
        while top < height:
            band = self._compute(entry, plan, attempt)
            top += band.shape[0] // factor
            yield band

    def release(self) -> None:
        """Forget all networks and give their memory back; the next job loads what it needs."""
        self._networks.clear()
        self._free()

    @property
    def loaded(self) -> bool:
        """Whether a network is in memory."""
        return bool(self._networks)

    def _plan(self, entry: ModelEntry, most: int, around: int, factor: int) -> Plan:
        """Choose tiles that fit the memory: at most `most` px, `around` px of surroundings on the network's side."""
        assert entry.info is not None
        side = window_side(entry.info.config, self.memory or default_memory(self.device), self.device.dtype)
        fitting = (side - around) // factor
        smallest = math.ceil(_SMALLEST_TILE / factor)
        return Plan(self.device, max(smallest, min(most, fitting)), smallest)

    def _compute(self, entry: ModelEntry, plan: Plan, attempt: Callable[[CarefulNetwork, Plan], T]) -> T:
        """Let the device compute, with smaller tiles and then on the CPU if memory does not do."""
        while True:
            try:
                return attempt(self._careful(entry, plan.device), plan)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            finally:
                self._stage_done = _nothing
            self._free()  # after the except clause, which holds the failed tensors
            if not smaller(plan, self._tell):
                raise LimitError(
                    f"out of memory, even in tiles of {plan.tile} px on the CPU: close other programs, or send a "
                    f"smaller picture ({reason.splitlines()[0] if reason else 'no message'})"
                )

    def _add_texture(self, filled: Tensor, hole: NDArray[np.bool_], on_step: Progress) -> Tensor:
        """Add texture where the fill was computed, or else on the CPU, or else none."""
        area = min(SEARCH_AREA, (self.memory or default_memory(self.device)) // SEARCH_BYTES)
        for device in dict.fromkeys((str(filled.device), "cpu")):
            try:
                mask = torch.from_numpy(hole).to(device, torch.float32)[None, None]
                return add_texture(filled.to(device), mask, on_step=on_step, area=area)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._free()
        self._tell("no-texture", "there is not enough memory to add texture: the fill is the network's alone")
        return filled

    def _careful(self, entry: ModelEntry, device: Device) -> CarefulNetwork:
        exact = Device(device.name, "fp32")
        return CarefulNetwork(self._network(entry, device), lambda: self._network(entry, exact), self._tell)

    def _tell(self, code: str, text: str) -> None:
        log.warning(text, extra={"code": code})
        self.notice(code, text)

    def _free(self) -> None:
        gc.collect()
        if self.device.is_cuda:
            with torch.cuda.device(self.device.name):
                torch.cuda.empty_cache()

    def _network(self, entry: ModelEntry, device: Device) -> PConvUNet:
        assert entry.info is not None  # find() gives no other
        key, sha256 = (str(entry.path), device), entry.info.sha256
        if key not in self._networks or self._networks[key][0] != sha256:
            try:
                network = fold_batch_norm(load_checkpoint(entry.path))
            except CheckpointError as error:  # undamaged, but its tensors are of another network
                raise RequestError(f"the model {entry.name!r} cannot be used: {error}") from error
            network.to(device.name, device.dtype)
            network.to(memory_format=torch.channels_last)
            for stage in (*network.encoder, *network.decoder):
                stage.register_forward_pre_hook(lambda *_: self._stage_done())
            self._networks[key] = (sha256, network)
        return self._networks[key][1]


def _nothing() -> None:
    pass


def _input(image: Array, device: Device) -> Tensor:
    return to_tensor(image).to(device.name).contiguous(memory_format=torch.channels_last)


def _mask(hole: NDArray[np.bool_], device: Device) -> Tensor:
    return torch.from_numpy(hole).to(device.name, torch.float32)[None, None]


def _check_shapes(image: Array, hole: NDArray[np.bool_] | None) -> None:
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise RequestError(f"a picture has shape (height, width, 1 or 3), got {image.shape}")
    if hole is not None and hole.shape != image.shape[:2]:
        raise RequestError(f"the hole has {hole.shape} rows and columns, the picture {image.shape[:2]}")
