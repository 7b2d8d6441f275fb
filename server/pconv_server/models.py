"""Which models there are: those that ship with the server, and the user's folder. Found by name, at each request."""

import json
from dataclasses import dataclass
from pathlib import Path

from pconv import CheckpointError, CheckpointInfo, PConvUNetConfig, describe_checkpoint

from pconv_server.errors import ModelNotFoundError, RequestError

DEFAULT_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ModelEntry:
    """A checkpoint file that can be asked for by name."""

    name: str
    path: Path
    info: CheckpointInfo | None  # None: see problem
    size: int  # bytes
    problem: str = ""
    is_default: bool = False  # ships with the server

    @property
    def factor(self) -> int:
        """Enlargement of an upscaling network, 1 for any other."""
        if self.info is None or self.info.task != "upscale":
            return 1
        return int(self.info.provenance.get("factor", 4))

    @property
    def preset(self) -> str:
        """The preset of the network's config, with its stages."""
        return preset_name(self.info.config) if self.info else ""

    @property
    def provenance(self) -> str:
        """What training wrote, as JSON."""
        return json.dumps(dict(self.info.provenance)) if self.info else ""


class ModelFolder:
    """Checkpoints by name. A file in the user's folder hides a default of the same name.

    Args:
        user: The user's folder; it need not exist.
        default: The folder of the weights that ship with the server.
    """

    def __init__(self, user: Path | None = None, default: Path = DEFAULT_FOLDER) -> None:
        self.user, self.default = user, default
        self._seen: dict[tuple[Path, int, int], ModelEntry] = {}

    def entries(self) -> list[ModelEntry]:
        """All models by name; files that cannot be used have a `problem`."""
        paths = {path.stem: path for path in sorted(self.default.glob("*.safetensors"))}
        if self.user is not None:
            paths |= {path.stem: path for path in sorted(self.user.glob("*.safetensors"))}
        return [self._describe(path) for _, path in sorted(paths.items())]

    def find(self, name: str, task: str) -> ModelEntry:
        """Look a model up.

        Args:
            name: As listed; empty: the default model of the task.
            task: "inpaint", "upscale" or "refine".

        Raises:
            ModelNotFoundError: There is no such model; the message has the command that makes it.
            RequestError: It was trained for something else, or its file cannot be used.
        """
        wanted = name or task
        entry = next((entry for entry in self.entries() if entry.name == wanted), None)
        if entry is None:
            known = ", ".join(entry.name for entry in self.entries()) or "none"
            folder = self.user or self.default
            raise ModelNotFoundError(
                f"there is no model {wanted!r} (models here: {known}). Make one with: pconv-train export RUN -o "
                f"{folder / f'{wanted}.safetensors'} — or install a release of pconv, which carries the default weights"
            )
        if entry.info is None:
            raise RequestError(f"the model {wanted!r} cannot be used: {entry.problem}")
        if entry.info.task != task:
            raise RequestError(f"the model {wanted!r} was trained to {entry.info.task}, expected one to {task}")
        return entry

    def refinement(self) -> ModelEntry | None:
        """Find the model "refine", which adds detail to what any inpainting model fills from a reduced picture.

        Raises:
            RequestError: There is one, but it cannot be used.
        """
        try:
            return self.find("refine", "refine")
        except ModelNotFoundError:
            return None

    def _describe(self, path: Path) -> ModelEntry:
        is_default = path.parent == self.default
        try:
            status = path.stat()
        except OSError as error:  # a link to nothing, or deleted just now
            return ModelEntry(path.stem, path, None, 0, f"cannot read {path}: {error.strerror}", is_default)
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self._seen:
            try:
                info, problem = describe_checkpoint(path), ""
            except CheckpointError as error:
                info, problem = None, str(error)
            self._seen[key] = ModelEntry(path.stem, path, info, status.st_size, problem, is_default)
        return self._seen[key]


def preset_name(config: PConvUNetConfig) -> str:
    """Name a config: "paper-8" for the paper's with 8 stages, "compact-5", "light-6", or "custom"."""
    stages = len(config.channels)
    for preset in (PConvUNetConfig.paper, PConvUNetConfig.compact, PConvUNetConfig.light):
        try:
            if preset(stages, config.partial).channels == config.channels:
                return f"{preset.__name__}-{stages}"
        except ValueError:  # more stages than the preset has
            continue
    return "custom"
