"""A device with its networks: pictures in, pictures out, in the samples of the wire. Knows nothing of gRPC."""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pconv import PConvUNet, add_texture, fold_batch_norm, inpaint, load_checkpoint, upscale_tiles
from pconv_api import Box, Texture
from torch import Tensor

from pconv_server.devices import Device, choose_devices
from pconv_server.errors import RequestError
from pconv_server.models import ModelEntry, ModelFolder
from pconv_server.rasters import Array, check_finite, to_samples, to_tensor

Progress = Callable[[float], None]
"""Called with the finished fraction, 0…1, several times a second; what it raises ends the work."""

T = TypeVar("T")


def _no_progress(_: float) -> None:
    pass


class Engine:
    """Runs networks on one device. Used by one thread at a time.

    Networks are loaded at their first use, batch norm folded into the convolutions, channels last in memory.

    Args:
        device: Where and in what precision; None: the first GPU, or else the CPU.
        models: Which networks; None: those that ship with pconv.
    """

    def __init__(self, device: Device | None = None, models: ModelFolder | None = None) -> None:
        self.device = device or choose_devices()[0]
        self.models = models or ModelFolder()
        self._networks: dict[str, tuple[str, PConvUNet]] = {}  # by path, with the file's sha256
        self._stage_done = _nothing

    def inpaint(
        self,
        image: Array,
        hole: NDArray[np.bool_],
        model: str = "",
        progress: Progress = _no_progress,
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
        network = self._network(entry)
        stages, done = len(network.encoder) + len(network.decoder), 0
        share = 1.0 if texture == Texture.NETWORK else 0.5  # of the network in the time: half, roughly

        def stage_done() -> None:
            nonlocal done
            progress(share * done / stages)
            done += 1

        def restore() -> Tensor:
            filled = inpaint(network, pixels, mask)
            if texture == Texture.NETWORK:
                return filled
            return add_texture(filled, mask, on_step=lambda fraction: progress(share + (1 - share) * fraction))

        pixels, mask = self._input(image), torch.from_numpy(hole).to(self.device.name, torch.float32)[None, None]
        filled = self._compute(restore, stage_done)
        result[hole] = to_samples(filled, image.shape[2], image.dtype)[hole]
        progress(1.0)
        return result

    def upscale(
        self,
        image: Array,
        hole: NDArray[np.bool_] | None = None,
        model: str = "",
        progress: Progress = _no_progress,
    ) -> Iterator[Array]:
        """Enlarge a picture by the factor of the model.

        Args:
            image: `(H, W, 1 or 3)`, uint8, uint16 or float32, sRGB-encoded; float samples are clamped to [0, 1].
            hole: `(H, W)`, True = unknown (transparent, say); None: all is known.
            model: Name of a model; empty: the default.
            progress: Called after each stage of each tile.

        Yields:
            Rows of the result from the top, `(rows, K·W, channels)` in the samples of `image`.

        Raises:
            RequestError: Shapes do not fit, or known pixels are not finite.
            ModelNotFoundError: No such model.
        """
        entry = self.models.find(model, "upscale")
        _check_shapes(image, hole)
        check_finite(image, None if hole is None else ~hole, Box(0, 0, image.shape[1], image.shape[0]))
        network, finished = self._network(entry), 0.0

        def tile_done(fraction: float) -> None:
            nonlocal finished
            finished = fraction
            progress(fraction)

        pixels = self._input(image)
        mask = None if hole is None else torch.from_numpy(hole).to(self.device.name, torch.float32)[None, None]
        rows = upscale_tiles(network, pixels, entry.factor, mask, progress=tile_done)
        while (part := self._compute(lambda: next(rows, None), lambda: progress(finished))) is not None:
            yield to_samples(part, image.shape[2], image.dtype)

    def release(self) -> None:
        """Forget all networks and give their memory back; the next job loads what it needs."""
        self._networks.clear()
        gc.collect()
        if self.device.is_cuda:
            with torch.cuda.device(self.device.name):
                torch.cuda.empty_cache()

    @property
    def loaded(self) -> bool:
        """Whether a network is in memory."""
        return bool(self._networks)

    def _compute(self, call: Callable[[], T], stage_done: Callable[[], None]) -> T:
        """Let the device compute. All fallbacks (out of memory, not a number in half precision) belong here."""
        self._stage_done = stage_done
        try:
            return call()
        finally:
            self._stage_done = _nothing

    def _input(self, image: Array) -> Tensor:
        tensor = to_tensor(image).to(self.device.name)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _network(self, entry: ModelEntry) -> PConvUNet:
        assert entry.info is not None  # find() gives no other
        key, sha256 = str(entry.path), entry.info.sha256
        if key not in self._networks or self._networks[key][0] != sha256:
            network = fold_batch_norm(load_checkpoint(entry.path))
            network.to(self.device.name, self.device.dtype)
            network.to(memory_format=torch.channels_last)
            for stage in (*network.encoder, *network.decoder):
                stage.register_forward_pre_hook(lambda *_: self._stage_done())
            self._networks[key] = (sha256, network)
        return self._networks[key][1]


def _nothing() -> None:
    pass


def _check_shapes(image: Array, hole: NDArray[np.bool_] | None) -> None:
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise RequestError(f"a picture has shape (height, width, 1 or 3), got {image.shape}")
    if hole is not None and hole.shape != image.shape[:2]:
        raise RequestError(f"the hole has {hole.shape} rows and columns, the picture {image.shape[:2]}")
