"""Texture for the network's fill, copied from the rest of the photograph. The paper has no such stage.

The network gives colours and shapes, but softly. Here every small patch of its fill gives way to patches of the
photograph that look like it: PatchMatch (Barnes et al. 2009, https://doi.org/10.1145/1531326.1531330) within the
expectation maximisation of Wexler et al. 2007 (https://doi.org/10.1109/TPAMI.2007.60), coarse to fine. What differs is
where it starts and what it keeps to: the network's fill, compared with the photograph where both are blurred, or the
softest patches would win. So structure has a say in which patches are copied, a weak one as long as fills are soft
(training/RECIPE.md). Texture grows inwards from what is known: in comparisons and votes a filled pixel counts the less
the deeper in the hole it lies, or patches in the midst of a wide hole would agree on a soft mean (the confidence of
Criminisi et al. 2004, https://doi.org/10.1109/TIP.2004.833105). In the end patches are joined in the gradient domain
(`pconv.gradients`), low frequencies are the network's, and the patches' error in a ring around the hole is continued
into it, as for the network (`pconv.edge`).

Work follows the hole: all rounds run over its pixels, and nothing is read beyond `MARGIN` px around it. The same seed
gives the same pixels.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pconv.edge import edge_correction, grow_hole
from pconv.gradients import join
from pconv.network import check_image_and_hole
from pconv.pyramid import OFFSETS, RADIUS, RING, SEARCH_AREA, Level, blur, build_pyramid, flatten, surroundings

MARGIN = 256  # px around the hole in which patches are looked for
FIRST_SWEEPS = 4  # of the first search, which starts anywhere; 1 later
FIRST_SIGMA = 9.0  # px of the coarsest level, of the blur of the first search
TOLERANCE = 0.001  # distance at which a patch's vote counts 1/√e
VOTE_SIGMA, LAST_SIGMA = 1.0, 0.4  # px; how far from its centre a patch votes; less for the result, to stay sharp
MATCH_SIGMA = 16.0  # px; what is slower than that comes from the network

_ROWS = 1 << 12  # queries compared at once
_NO_PATCH = 1e-22  # weight of the network's fill among the votes: it stays where every patch is 0.1 or more away


@torch.inference_mode()
def add_texture(
    filled: Tensor,
    hole: Tensor,
    seed: int = 0,
    on_step: Callable[[float], None] = lambda _: None,
    area: int = SEARCH_AREA,
) -> Tensor:
    """Replace a soft fill by texture of the same photograph.

    Args:
        filled: Picture with the network's fill, as `inpaint` returns it, `(N, 3, H, W)`.
        hole: `(N, 1, H, W)`, 0 = keep, anything else = filled by the network.
        seed: Of the random search.
        on_step: Called with the finished fraction, never falling, many times a second; what it raises ends the work.
        area: Pixels of the largest picture that is searched, which take `SEARCH_BYTES` each; instead of a larger one a
            reduced one is, and what is found there is taken over.

    Returns:
        `(N, 3, H, W)` in the range of `filled`, equal to it wherever `hole` is 0, and everywhere if the surroundings of
        the hole have fewer than `pconv.pyramid.MIN_SOURCES` patches to offer.

    Raises:
        ValueError: Shapes that do not fit.
    """
    check_image_and_hole(filled, hole)
    result = filled.clone()
    for index, inside in enumerate(hole[:, 0] != 0):
        if inside.any():
            rows, columns = (surroundings(inside.any(axis), MARGIN) for axis in (1, 0))
            part, mask = filled[index : index + 1, :, rows, columns].float(), inside[rows, columns]

            def step(fraction: float, index: int = index) -> None:
                on_step((index + fraction) / len(filled))

            texture = _synthesize(part, mask, seed, step, area)
            result[index, :, rows, columns][:, mask] = texture[0][:, mask].to(result.dtype)
    on_step(1.0)
    return result


def _synthesize(picture: Tensor, hole: Tensor, seed: int, on_step: Callable[[float], None], area: int) -> Tensor:
    """Give the hole `(H, W)` of a filled picture `(1, 3, H, W)` texture, as far as there is some."""
    levels = build_pyramid(picture, hole, area)
    if not levels:
        return picture
    total = sum(level.rounds * level.tries * len(level.queries) for level in levels)
    total += (FIRST_SWEEPS - 1) * levels[-1].tries * len(levels[-1].queries)
    done = 0

    def tick(pixels: int) -> None:
        nonlocal done
        done += pixels
        on_step(done / total)

    generator = torch.Generator().manual_seed(seed)  # of the CPU, so that every device draws the same
    coarsest = levels.pop()
    field = _anywhere(coarsest, generator)
    # At first the picture has no texture in the hole: compared as it is, it would find the softest patches.
    framed = coarsest.picture.T.reshape(1, 3, -1, coarsest.width)
    blurred = flatten(blur(framed, FIRST_SIGMA))
    distance = torch.empty(0)
    for _ in range(FIRST_SWEEPS):
        distance = _search(coarsest, _features(coarsest, blurred), blurred, field, generator, tick)
    estimate = _improve(coarsest, field, _agreement(distance), coarsest.rounds - 1, generator, tick, not levels)
    for level in reversed(levels):
        tick(0)  # a large level has no search in which to notice a cancellation
        field, weights = _refine(coarsest, field, level)
        estimate = _improve(level, field, weights, level.rounds, generator, tick, level is levels[0])
        coarsest = level
    framed = estimate.view(1, -1, coarsest.width, 3).permute(0, 3, 1, 2)
    return _match(framed[..., RADIUS:-RADIUS, RADIUS:-RADIUS], picture, hole[None, None])


def _match(texture: Tensor, picture: Tensor, hole: Tensor) -> Tensor:
    """Give texture the low frequencies of the network's fill, and let it meet what is known around the hole."""
    there = grow_hole(hole, RING).to(texture.dtype)
    # What is that slow needs no full resolution.
    known, error = (
        F.avg_pool2d(x, 4, ceil_mode=True, count_include_pad=False) for x in (there, there * (picture - texture))
    )
    missing = blur(error, MATCH_SIGMA / 4) / blur(known, MATCH_SIGMA / 4).clamp_min(1e-3)
    missing = F.interpolate(missing, scale_factor=4, mode="bilinear")[..., : hole.shape[-2], : hole.shape[-1]]
    texture = texture + there * missing
    return (texture + edge_correction(texture, picture, hole)).clamp(picture.min(), picture.max())


def _improve(
    level: Level,
    field: Tensor,
    weights: Tensor,
    rounds: int,
    generator: torch.Generator,
    tick: Callable[[int], None],
    finest: bool,
) -> Tensor:
    """Vote, and search and vote again for some rounds; changes `field` in place and returns the picture."""
    estimate = _vote(level, field, weights, finest and not rounds)
    features = _features(level, level.picture) if rounds else estimate
    for left in reversed(range(rounds)):
        distance = _search(level, features, estimate, field, generator, tick)
        weights = _agreement(distance)
        estimate = _vote(level, field, weights, finest and not left)
    if not finest:
        return estimate
    field[level.queries] = torch.where(weights > _NO_PATCH, field[level.queries], level.queries)
    return join(level, field, estimate, tick)


def _search(
    level: Level,
    features: Tensor,
    estimate: Tensor,
    field: Tensor,
    generator: torch.Generator,
    tick: Callable[[int], None],
) -> Tensor:
    """Improve `field` in place; returns the distances of the queries, mean over the patch, sum over the channels."""
    queries = level.queries
    pixels = queries[:, None] + level.shifts
    weight = level.weight[pixels]
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(3, 1)
    weight = torch.cat([weight, weight.new_ones(len(queries), 3)], 1)  # of the guide, which is scaled already
    wanted = torch.cat([estimate[pixels].flatten(1), level.guide[queries]], 1)

    del pixels  # large, as all here with a row for every query

    def compare(sources: Tensor) -> Tensor:
        parts = []
        for some, like, heavy in zip(*(torch.split(rows, _ROWS) for rows in (sources, wanted, weight)), strict=True):
            difference = features.index_select(0, some).to(like.dtype).sub_(like).square_()
            parts.append(difference.mul_(heavy).sum(1))
        return torch.where(level.sources[sources], torch.cat(parts), torch.inf)

    best = compare(field[queries])
    for candidates in _candidates(level, field, generator):
        candidates = candidates.clamp_(0, len(field) - 1)
        distance = compare(candidates)
        better = distance < best
        field[queries] = torch.where(better, candidates, field[queries])
        best = torch.where(better, distance, best)
        tick(len(queries))
    return best


def _candidates(level: Level, field: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Propose a source to every query: what continues a neighbour's, then ever nearer to its own."""
    for shift in (-1, -level.width, 1, level.width):
        yield field[level.queries + shift] - shift
    reach = level.reach
    while reach:
        away = torch.randint(-reach, reach + 1, (2, len(level.queries)), generator=generator).to(field.device)
        yield field[level.queries] + away[0] * level.width + away[1]
        reach //= 2


def _vote(level: Level, field: Tensor, weights: Tensor, last: bool) -> Tensor:
    """Compose the hole from the patches that cover its pixels; where none counts, the network's fill stays.

    The last vote counts in the ring around the hole too: there it tells how texture differs from what is known.
    """
    sigma = LAST_SIGMA if last else VOTE_SIGMA
    votes = torch.zeros_like(level.weight)
    votes[level.queries] = weights * level.confidence[level.queries]
    total = _NO_PATCH * level.confidence[level.targets]
    colours = total[:, None] * level.picture[level.targets]
    for (dy, dx), shift in zip(OFFSETS, level.shifts.tolist(), strict=True):
        near = math.exp(-(dy**2 + dx**2) / (2 * sigma**2))
        if near > 1e-2:
            centres = level.targets - shift
            weight = near * votes[centres]
            total += weight
            colours += weight[:, None] * level.picture[(field[centres] + shift).clamp_(0, len(field) - 1)]
    estimate = level.picture.clone()
    estimate[level.targets] = colours / total[:, None]
    return estimate if last else torch.where(level.weight[:, None] == 1, level.picture, estimate)


def _agreement(distance: Tensor) -> Tensor:
    """Weigh votes by how like the patches are."""
    return torch.exp(-distance / (2 * TOLERANCE))


def _anywhere(level: Level, generator: torch.Generator) -> Tensor:
    """Start with sources at random."""
    field = torch.arange(len(level.picture), device=level.picture.device)
    sources = level.sources.nonzero()[:, 0]
    draw = torch.randint(len(sources), (len(level.queries),), generator=generator)
    field[level.queries] = sources[draw.to(field.device)]
    return field


def _refine(coarse: Level, found: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """Take the sources of a level of half the size; returns the field, and 1 for each query that got one, else 0."""

    def split(pixels: Tensor, width: int) -> tuple[Tensor, Tensor]:
        return pixels // width - RADIUS, pixels % width - RADIUS

    y, x = split(level.queries, level.width)
    source_y, source_x = split(found[(y // 2 + RADIUS) * coarse.width + x // 2 + RADIUS], coarse.width)
    sources = (2 * source_y + y % 2 + RADIUS) * level.width + 2 * source_x + x % 2 + RADIUS
    sources = sources.clamp_(0, len(level.picture) - 1)
    usable = level.sources[sources]
    field = torch.arange(len(level.picture), device=found.device)
    field[level.queries] = torch.where(usable, sources, level.queries)
    return field, usable.to(level.picture.dtype)


def _features(level: Level, picture: Tensor) -> Tensor:
    """Lay out the patch around every pixel as a row, its guide at the end; in half precision, for they are large."""
    reach = int(level.shifts[-1])
    padded = F.pad(picture.half(), (0, 0, reach, reach))
    rows = [padded[reach + shift : reach + shift + len(picture)] for shift in level.shifts.tolist()]
    return torch.cat([*rows, level.guide.half()], 1)
