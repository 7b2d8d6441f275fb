import pytest
import torch
from pconv.gradients import SCREEN, join
from pconv.pyramid import build_pyramid


def level_of(picture, hole):
    """The finest level of a picture and its hole, and a field in which nothing is copied."""
    level = build_pyramid(picture, hole, 1 << 20)[0]
    return level, torch.arange(len(level.picture))


def copied(level, field):
    """What the photograph gives where the field says, at the targets."""
    composed = level.picture.clone()
    composed[level.targets] = level.picture[field[level.targets]]
    return composed


def is_target(level):
    inside = torch.zeros_like(level.sources)
    inside[level.targets] = True
    return inside


@pytest.fixture
def hole():
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[24:40, 24:44] = True
    return hole


def test_what_is_copied_from_one_place_stays_as_it_is(hole):
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    level, field = level_of(picture, hole)
    field[level.targets] += 20 * level.width - 3
    composed = copied(level, field)
    torch.testing.assert_close(join(level, field, composed.clone(), lambda _: None), composed, atol=1e-6, rtol=0)


def test_two_skies_meet_without_a_step(hole):
    """The left half of the hole is copied from above, the right from below, where it is brighter; both have grain."""
    grain = 0.01 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sky = torch.full((1, 3, 64, 64), 0.5)
    sky[..., 42:, :] += 0.1
    level, field = level_of(sky + grain, hole)
    left = (level.targets % level.width) < 34 + 2
    field[level.targets] += torch.where(left, -20 * level.width, 20 * level.width)
    composed = copied(level, field)
    joined = join(level, field, composed.clone(), lambda _: None)

    def steps(flat):
        rows = flat.view(-1, level.width, 3)[2:-2, 2:-2][24:40]
        return rows.diff(dim=1).mean((0, 2))

    assert steps(composed)[33] > 0.08
    assert steps(joined)[24:43].max() < 0.03, "the step is spread over its neighbours"
    inside = [flat.view(-1, level.width, 3)[28:40, 28:34].std() for flat in (joined, composed)]
    assert inside[0] > 0.8 * inside[1], "grain stays"


def test_it_solves_its_equation():
    """Against a dense solve of SCREEN · change + Σ over the edges, with sources all over the place."""
    generator = torch.Generator().manual_seed(0)
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[16:21, 18:22] = True
    level, field = level_of(torch.rand(1, 3, 40, 40, generator=generator), hole)
    sources = level.sources.nonzero()[:, 0]
    field[level.targets] = sources[torch.randint(len(sources), (len(level.targets),), generator=generator)]
    composed = copied(level, field)
    joined = join(level, field, composed.clone(), lambda _: None)
    number = {int(pixel): index for index, pixel in enumerate(level.targets)}
    matrix = SCREEN * torch.eye(len(number), dtype=torch.float64)
    right = SCREEN * composed[level.targets].double()
    for pixel, a in number.items():
        for shift in (1, level.width):
            if (b := number.get(pixel + shift)) is None:
                continue
            forward = level.picture[field[pixel] + shift] - level.picture[field[pixel]]
            other = field[pixel + shift]
            backward = level.picture[other] - level.picture[other - shift]
            wanted = max(forward, backward, key=lambda x: x.square().sum())
            matrix[[a, b], [a, b]] += 1
            matrix[[a, b], [b, a]] -= 1
            right[b] += wanted
            right[a] -= wanted
    exact = torch.linalg.solve(matrix, right)
    assert (exact - composed[level.targets]).abs().max() > 0.2
    torch.testing.assert_close(joined[level.targets].double(), exact, atol=0.01, rtol=0)


def test_only_targets_change(hole):
    level, field = level_of(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), hole)
    field[level.targets] = field[level.targets].flip(0) - 20 * level.width
    composed = copied(level, field)
    changed = (join(level, field, composed.clone(), lambda _: None) != composed).any(1)
    assert changed.any()
    assert not (changed & ~is_target(level)).any()


def test_work_can_be_stopped(hole):
    class StopError(Exception):
        pass

    def stop(_):
        raise StopError

    level, field = level_of(torch.rand(1, 3, 64, 64), hole)
    with pytest.raises(StopError):
        join(level, field, level.picture.clone(), stop)
