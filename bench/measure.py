"""Interleaved timing: all candidates once a round, so that a slow minute of the machine slows all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    found: str
    wanted: str = ""
    met: bool | None = None  # None: there is nothing to meet, or it was not measured


def interleave(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each candidate once a round, in an order that turns, after one round that does not count.

    Args:
        candidates: What to run, by name.
        rounds: Number of measurements of each.

    Returns:
        Seconds by name, one value a round: values of the same index were measured side by side.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for i in range(rounds + 1):
        for name in names if i % 2 else reversed(names):
            _wait()
            start = time.perf_counter()
            candidates[name]()
            _wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(what: str, top: Sequence[float], bottom: Sequence[float], *, most: float = 0, least: float = 0) -> Row:
    """Compare two candidates of one `interleave`, round by round; `most` or `least` is the target."""
    ratios = [a / b for a, b in zip(top, bottom, strict=True)]
    middle = statistics.median(ratios)
    found = f"{middle:.3f} × {_spread(ratios, '.3f')}"
    if not most and not least:
        return Row(what, found)
    return Row(what, found, f"≤ {most} ×" if most else f"≥ {least} ×", middle <= most if most else middle >= least)


def milliseconds(what: str, seconds: Sequence[float], beside: str = "") -> Row:
    """Report one candidate's time; it depends on the machine, so it has no target, only something to read it by."""
    values = [1000 * s for s in seconds]
    return Row(what, f"{statistics.median(values):.0f} ms {_spread(values, '.0f')}", beside)


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return ""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"[{low:{form}} … {high:{form}}]"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
