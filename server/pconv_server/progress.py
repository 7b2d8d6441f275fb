"""How far a job is: windows and the stages of a network as one fraction that only rises."""

from collections.abc import Callable

from pconv import PConvUNet

Progress = Callable[[float], None]
"""Called with the finished fraction, 0…1, several times a second; what it raises ends the work."""


def no_progress(_: float) -> None:
    """Tell nobody."""


class Stages:
    """Turns windows and the stages of a network into one fraction."""

    def __init__(self, network: PConvUNet, progress: Progress) -> None:
        self._stages, self._progress = len(network.encoder) + len(network.decoder), progress
        self._done, self._windows, self._total = 0, 0, 1

    def window(self, done: int, total: int) -> None:
        """Take what `pconv.inpaint` tells."""
        self._done, self._windows, self._total = 0, done, max(1, total)

    def stage_done(self) -> None:
        """Take the start of a stage."""
        self._progress((self._windows + min(1.0, self._done / self._stages)) / self._total)
        self._done += 1


def rising_only(progress: Progress) -> Progress:
    """Keep a fraction from falling when work begins again in other tiles."""
    most = 0.0

    def told(fraction: float) -> None:
        nonlocal most
        most = max(most, fraction)
        progress(most)

    return told
