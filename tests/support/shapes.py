"""Holes for tests."""

import torch


def disc(side: int, radius: float, middle: tuple[float, float] | None = None) -> torch.Tensor:
    """A round hole `(1, 1, side, side)` of {0, 1}."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    top, left = middle or (side / 2, side / 2)
    return ((y - top) ** 2 + (x - left) ** 2 < radius**2).float()[None, None]
