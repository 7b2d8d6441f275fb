"""The levels on which texture is looked for: a filled picture, halved until it is small."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pconv.edge import dilate

RADIUS = 2  # px; patches have 5 × 5
RING = 2  # px around the hole that get texture too at full resolution, to see how it differs from what is known
COARSEST = 96  # px; the pyramid ends with the first level that has no longer side than this
SEARCH_AREA = 1 << 20  # px of a level that is searched; a larger one only takes over what coarser ones found
SEARCH_BYTES = 700  # of memory for each of them, about
MIN_SOURCES = 64  # patches; a picture that has fewer to offer keeps the network's fill
ROUNDS = (2, 4, 8)  # of search and vote: at full resolution, at half, at all that is coarser
REACH = (8, 32, 1 << 14)  # px of the random search, at the same; at most the picture
GUIDE_SIGMA = 4.0  # px of any level
GUIDE_WEIGHT = 0.3  # of the blurred fill, against 1 of a patch
HOLE_WEIGHT = 0.05  # of a filled pixel in a comparison, against 1 of a known one
CONFIDENCE_DECAY = 3.0  # a filled pixel counts that much less for each px of the level that it lies deeper in the hole
DEEPEST = 24  # px; from there on it counts no less

OFFSETS = [(dy, dx) for dy in range(-RADIUS, RADIUS + 1) for dx in range(-RADIUS, RADIUS + 1)]


@dataclass
class Level:
    """A picture of the pyramid, its rows one after the other, in a frame of `RADIUS` pixels that repeat its border.

    So a pixel is a number, a shift is a sum, and every patch around a pixel of the picture lies within the frame.
    A field `(pixels,)` says for each query which source it takes; elsewhere a pixel names itself, which is no source.
    """

    width: int  # with the frame
    picture: Tensor  # (pixels, 3)
    guide: Tensor  # (pixels, 3): the picture blurred, scaled by its weight
    weight: Tensor  # (pixels,) in a comparison
    confidence: Tensor  # (pixels,): 1 where known, less the deeper in the hole; of the vote of the patch there
    sources: Tensor  # (pixels,) bool: centres of patches that are known and within the picture
    queries: Tensor  # centres of patches that touch those
    targets: Tensor  # pixels of the hole, and of its ring
    shifts: Tensor  # from the centre of a patch to its pixels
    rounds: int = 0  # of search and vote
    reach: int = 0  # px, of the random search

    @property
    def tries(self) -> int:
        """Sources that a round proposes to each query: of its four neighbours, and ever nearer ones at random."""
        return 4 + self.reach.bit_length()


def build_pyramid(picture: Tensor, hole: Tensor, area: int) -> list[Level]:
    """Halve a picture `(1, 3, H, W)` and its hole `(H, W)` until it is small; ends before the hole or sources do."""
    levels: list[Level] = []
    filled = hole[None, None].to(picture.dtype)
    while True:
        level = _level(picture, filled, 0 if levels else RING)
        if int(level.sources.sum()) < MIN_SOURCES or not len(level.targets):
            break
        levels.append(level)
        if max(picture.shape[-2:]) <= COARSEST:
            break
        # A pixel of which half is known is known, and the mean of that: thin holes close, as finer levels fill them
        # well. But nothing may close before a level that is searched.
        known = F.avg_pool2d(1 - filled, 2, ceil_mode=True)
        mean = F.avg_pool2d(picture * (1 - filled), 2, ceil_mode=True) / known.clamp_min(1e-6)
        filled = (known < (0.5 if len(level.picture) <= area else 1)).to(picture.dtype)
        picture = torch.where(filled > 0, F.avg_pool2d(picture, 2, ceil_mode=True), mean)
    for index, level in enumerate(levels):
        kind = -1 if level is levels[-1] else min(index, 2)
        level.rounds = ROUNDS[kind]
        level.reach = min(REACH[kind], max(level.width, len(level.picture) // level.width))
        if len(level.picture) > area:
            level.rounds = 0
    return levels if levels and levels[-1].rounds else []


def _level(picture: Tensor, filled: Tensor, ring: int) -> Level:
    frame = (RADIUS,) * 4
    framed = F.pad(picture, frame, mode="replicate")
    width = framed.shape[-1]
    grown = dilate(filled, ring)
    near = dilate(grown, RADIUS)
    sources = F.pad((near == 0)[..., RADIUS:-RADIUS, RADIUS:-RADIUS], (2 * RADIUS,) * 4)
    confidence = CONFIDENCE_DECAY ** -_depth(filled)
    weight = torch.where(filled > 0, HOLE_WEIGHT * confidence, 1)
    return Level(
        width,
        flatten(framed),
        GUIDE_WEIGHT**0.5 * flatten(blur(framed, GUIDE_SIGMA)),
        F.pad(weight, frame).flatten(),  # the frame is no evidence
        F.pad(confidence, frame).flatten(),
        sources.flatten(),
        F.pad(near, frame).flatten().nonzero()[:, 0],
        F.pad(grown, frame).flatten().nonzero()[:, 0],
        torch.tensor([dy * width + dx for dy, dx in OFFSETS], device=picture.device),
    )


def _depth(filled: Tensor) -> Tensor:
    """Count the pixels to the nearest known one, diagonal steps as one, up to `DEEPEST`; 0 where known."""
    depth = torch.zeros_like(filled)
    if not filled.any():
        return depth
    rows, columns = (surroundings((filled[0, 0] > 0).any(axis), 1) for axis in (1, 0))
    known, count = 1 - filled[..., rows, columns], depth[..., rows, columns]
    for _ in range(DEEPEST):
        count += 1 - known
        known = dilate(known, 1)
    return depth


def surroundings(occupied: Tensor, margin: int) -> slice:
    """Which rows (or columns) are within `margin` of those that are occupied."""
    found = occupied.nonzero()[:, 0]
    return slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin)


def flatten(framed: Tensor) -> Tensor:
    """Lay the rows of `(1, 3, H, W)` one after the other, `(H · W, 3)`."""
    return framed[0].flatten(1).T.contiguous()


def blur(image: Tensor, sigma: float) -> Tensor:
    """Blur `(1, C, H, W)` with a Gaussian, 3 σ wide; the border is repeated."""
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).to(image.dtype).expand(image.shape[1], 1, 1, -1)
    image = F.pad(image, (reach,) * 4, mode="replicate")
    image = F.conv2d(image, weights, groups=image.shape[1])
    return F.conv2d(image, weights.transpose(2, 3), groups=image.shape[1])
