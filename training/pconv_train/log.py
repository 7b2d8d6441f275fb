"""What a run tells: log.jsonl, TensorBoard scalars and picture grids, one line a tick on the terminal."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm


class RunLog:
    """Log of one process; of several, only the first writes.

    Args:
        run: Run folder.
        total: Steps of the whole run, or its seconds where a time limit ends it.
        start: Steps or seconds already done.
        unit: "step" or "s", for the progress bar.
        enabled: Whether this process is the one that writes.
    """

    def __init__(self, run: Path, total: float, start: float, unit: str, enabled: bool) -> None:
        self._run = run
        self._enabled = enabled
        self._bar = tqdm(total=round(total), initial=round(start), unit=unit, disable=not enabled, dynamic_ncols=True)
        self._board = None
        self._said = False
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            (run / "grids").mkdir(exist_ok=True)
            self._board = SummaryWriter(str(run / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def advance(self, done: float) -> None:
        """Move the progress bar to the steps or seconds done."""
        self._bar.update(round(done) - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self._enabled:
            tqdm.write(text)

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Write figures to log.jsonl, to TensorBoard and beside the progress bar."""
        with self._surviving():
            self._write_scalars(step, group, values)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if group == "train":
            self._bar.set_postfix_str(shown)
        else:
            self.say(f"step {step} {group}: {shown}")

    def _write_scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        if self._board is None:
            return
        line = {"step": step, "time": round(time.time(), 1), "group": group, **values}
        with (self._run / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def grid(self, step: int, rows: list[list[Tensor]]) -> None:
        """Write a picture of rows of `(3, H, W)` pictures in [0, 1]: input, output, composite, target."""
        if self._board is None:
            return
        picture = torch.cat([torch.cat(row, dim=2) for row in rows], dim=1).clamp(0, 1).cpu()
        pixels = (picture * 255).round().to(torch.uint8)
        with self._surviving():
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(self._run / "grids" / f"{step:07d}.png")
            self._board.add_image("grid", pixels, step)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Say that the log cannot be written, once; the training is worth more than its log."""
        try:
            yield
        except OSError as error:
            if not self._said:
                self._said = True
                self.say(f"cannot write the log ({error}); the run goes on")
