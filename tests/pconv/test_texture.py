import pconv.pyramid
import pconv.texture
import pytest
import torch
import torch.nn.functional as F
from pconv import add_texture


def grain(height=64, width=64, seed=0):
    """A photograph of nothing but texture, `(1, 3, H, W)`, mean 0.5."""
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return (0.5 + 0.1 * noise).clamp(0, 1)


def block(height=64, width=64, top=20, left=22, size=18):
    hole = torch.zeros(1, 1, height, width)
    hole[..., top : top + size, left : left + size] = 1
    return hole


def soft(photo, hole):
    """The photograph as a network without texture would fill it."""
    return torch.where(hole > 0, F.avg_pool2d(F.pad(photo, (8,) * 4, mode="reflect"), 17, 1), photo)


def inside(image, hole):
    return image[:, :, hole[0, 0] > 0]


def contrast(image, hole):
    return inside(image, hole).std(-1).mean().item()


def test_a_soft_fill_gets_the_texture_of_the_photograph():
    photo, hole = grain(), block()
    filled = soft(photo, hole)
    assert contrast(filled, hole) < 0.02
    assert 0.06 < contrast(add_texture(filled, hole), hole) < 0.14


def test_a_soft_fill_takes_texture_of_its_mean_rather_than_what_is_as_soft():
    photo, hole = 0.5 + 2 * (grain(96, 96) - 0.5), block(96, 96, 40, 44, 40)
    photo[:, :, :30] = 0.62  # flat; pixel by pixel it is nearer to the fill than grain is
    textured = add_texture(torch.where(hole > 0, 0.5, photo), hole)
    assert contrast(textured, block(96, 96, 50, 54, 20)) > 0.08


def test_bold_texture_grows_into_the_midst_of_a_wide_hole_though_what_is_flat_is_nearer_to_the_fill():
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    photo = (0.5 + 0.45 * torch.sin(0.7 * x + 0.2 * y + 0.1).sign()).repeat(1, 3, 1, 1)
    photo[..., 100:] = 0.5
    hole, midst = block(128, 128, 30, 25, 56), block(128, 128, 44, 39, 28)
    textured = add_texture(torch.where(hole > 0, 0.5, photo), hole)
    # Not all of it: an island of what is flat is left, with a soft rim.
    assert contrast(textured, midst) > 0.6 * contrast(photo, midst)


def test_a_fill_that_no_patch_is_like_gets_no_differences_either():
    photo, hole = grain(96, 96), block(96, 96, 30, 36, 30)
    photo[:, 1:] = 0
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    textured = add_texture(torch.where(hole > 0, blue, photo), hole)
    assert contrast(textured, block(96, 96, 42, 48, 6)) < 0.012


def test_patches_of_other_colours_are_joined_without_steps_of_colour():
    """Grain is of luma, and colour changes slowly; patches from here and there differ in colour."""
    y, x = torch.meshgrid(torch.linspace(-0.2, 0.2, 96), torch.linspace(-0.2, 0.2, 96), indexing="ij")
    photo = grain(96, 96)[:, :1] + torch.stack([x, y, -x - y])
    hole = block(96, 96, 30, 36, 30)
    textured = add_texture(soft(photo, hole), hole)
    colour = textured - textured.mean(1, keepdim=True)
    steps = colour.diff(dim=-1).abs()[..., 32:58, 38:64]
    assert steps.quantile(0.99) < 0.04


def test_a_thin_hole_closes_before_the_picture_is_small():
    photo, hole = grain(256, 256), torch.zeros(1, 1, 256, 256)
    hole[..., 120:122, 20:236] = 1
    assert 0.06 < contrast(add_texture(soft(photo, hole), hole), hole) < 0.14


def test_the_fill_decides_what_is_copied():
    photo, hole = grain(), block(left=20, size=24)
    photo[..., :32] *= 0.4
    photo[..., 32:] = 1 - 0.4 * photo[..., 32:]
    filled = torch.where(hole > 0, 0.2, photo)
    filled[..., 32:] = torch.where(hole[..., 32:] > 0, 0.8, photo[..., 32:])
    textured = add_texture(filled, hole)
    assert (textured[..., 20:44, 20:31] < 0.5).float().mean() > 0.98
    assert (textured[..., 20:44, 33:44] > 0.5).float().mean() > 0.98


def test_the_fill_counts_where_nothing_known_speaks_for_it(monkeypatch):
    photo, hole = 0.5 * grain(128, 128), block(128, 128, 20, 20, 50)
    photo[..., 90:] += 0.45
    filled = torch.where(hole > 0, 0.25, photo)
    filled[..., 31:59, 31:59] = 0.7  # bright amid dark, to be copied from far away

    def bright():
        textured = add_texture(filled, hole)
        assert (textured[..., 20:29, 20:70] < 0.5).float().mean() > 0.98
        return (textured[..., 33:57, 33:57] > 0.5).float().mean()

    assert bright() > 0.3  # a weak guide: texture that is continued from around the hole goes before
    monkeypatch.setattr(pconv.pyramid, "GUIDE_WEIGHT", 3.0)
    assert bright() > 0.95


def test_flat_regions_stay_flat():
    photo, hole = grain(), block(left=6)
    photo[..., :34] = 0.7
    textured = add_texture(torch.where(hole > 0, 0.7 + 0.02 * (grain() - 0.5), photo), hole)
    assert (inside(textured, hole) - 0.7).abs().max() < 0.01


def test_low_frequencies_are_those_of_the_fill():
    picture, hole = grain(192, 192), block(192, 192, 20, 20, 152)
    axis = torch.arange(192) - 95.5
    bump = torch.exp(-(axis**2 + axis[:, None] ** 2) / (2 * 28**2)) * hole
    there = F.max_pool2d(hole, 5, 1, 2)  # the ring is filled too
    result = pconv.texture._match(picture + 0.3 * bump + 0.1 * grain(192, 192, 1) * there, picture, hole)
    assert F.avg_pool2d(result - picture, 9)[..., 9:12, 9:12].abs().max() < 0.1
    assert contrast(result - picture, hole) > 0.008  # the rest is kept


def test_texture_meets_what_is_known_around_it():
    picture, hole = F.avg_pool2d(F.pad(grain(), (8,) * 4, mode="reflect"), 17, 1), block()
    wrong = torch.full((64, 64), 0.1)
    wrong[:, 31:] = -0.1  # a step that the low frequencies cannot follow
    there = F.max_pool2d(hole, 5, 1, 2)
    result = pconv.texture._match(picture + there * wrong, picture, hole)
    rim = hole - (F.avg_pool2d(hole, 3, 1, 1) == 1).float()
    assert inside(result - picture, rim).abs().mean() < 0.02


def test_texture_stays_in_the_range_of_the_picture():
    picture, hole = torch.linspace(0, 1, 64).expand(1, 3, 64, 64), block()
    result = pconv.texture._match(torch.where(hole > 0, grain().round(), picture), picture, hole)
    assert result.min() == 0
    assert result.max() == 1


def test_the_ring_around_the_hole_shows_what_texture_would_be_there(monkeypatch):
    seen = []
    monkeypatch.setattr(pconv.texture, "_match", lambda texture, picture, hole: seen.append(texture) or texture)
    photo, hole = grain(), block()
    filled = soft(photo, hole)
    result = add_texture(filled, hole)
    assert torch.equal(result[0][:, hole[0, 0] == 0], filled[0][:, hole[0, 0] == 0])
    there = F.max_pool2d(hole, 5, 1, 2) - hole
    assert (inside(seen[0] - filled, there) != 0).float().mean() > 0.95
    assert torch.equal(inside(seen[0], 1 - there - hole), inside(filled, 1 - there - hole))


def test_known_pixels_keep_their_bits():
    photo = torch.cat([grain(seed=seed) for seed in (1, 2)])
    hole = torch.cat([block(), torch.zeros(1, 1, 64, 64)])
    filled = torch.where(hole > 0, 0.5, photo)
    textured = add_texture(filled, hole)
    known = (hole == 0).expand_as(photo)
    assert torch.equal(textured[known], photo[known])
    assert torch.equal(textured[1], filled[1])
    assert not torch.equal(textured[0], filled[0])
    assert torch.equal(textured[:1], add_texture(filled[:1], hole[:1]))


def test_the_same_seed_gives_the_same_pixels():
    photo, hole = grain(), block()
    filled = soft(photo, hole)
    first, second, other = (add_texture(filled, hole, seed) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("shape", "known"),
    [((1, 1), 0), ((1, 9), 5), ((4, 4), 3), ((64, 64), 5), ((11, 40), 12)],  # known columns at the left
)
def test_where_there_is_next_to_nothing_to_copy_the_fill_stays(shape, known):
    filled, hole = grain(*shape), torch.ones(1, 1, *shape)
    hole[..., :known] = 0
    if shape == (11, 40):  # 7 × 8 patches, 64 are asked for
        assert pconv.pyramid.MIN_SOURCES > 7 * (known - 6) > 0
    assert torch.equal(add_texture(filled, hole), filled)


def test_nothing_is_read_beyond_the_margin(monkeypatch):
    monkeypatch.setattr(pconv.texture, "MARGIN", 12)
    photo, hole = grain(), block()
    filled = soft(photo, hole)
    other = filled.clone()
    other[..., : 20 - 12, :] = other[..., 20 + 18 + 12 :, :] = 0.1
    other[..., : 22 - 12] = other[..., 22 + 18 + 12 :] = 0.9
    assert torch.equal(inside(add_texture(filled, hole), hole), inside(add_texture(other, hole), hole))
    nearer = filled.clone()
    nearer[..., 8:11, 10:52] = 0.1
    assert not torch.equal(inside(add_texture(filled, hole), hole), inside(add_texture(nearer, hole), hole))


def test_large_levels_take_over_what_smaller_ones_found(monkeypatch):
    photo, hole = grain(100, 100), block(100, 100, size=30)
    hole[..., 90, 5:95] = 1  # as thin as a scratch: it must not vanish before a level that is searched
    searched, search = [], pconv.texture._search
    monkeypatch.setattr(
        pconv.texture, "_search", lambda level, *more: (searched.append(len(level.picture)), search(level, *more))[1]
    )
    textured = add_texture(soft(photo, hole), hole, area=60 * 60)
    assert searched
    assert max(searched) <= 60 * 60
    scratch = torch.zeros_like(hole)
    scratch[..., 90, 5:95] = 1
    assert contrast(textured, hole - scratch) > 0.05
    assert contrast(textured, scratch) > 0.05


def test_work_follows_the_hole(monkeypatch):
    monkeypatch.setattr(pconv.texture, "MARGIN", 40)
    compared, search = [0], pconv.texture._search

    def count(level, *more):
        compared[-1] += len(level.queries)
        return search(level, *more)

    monkeypatch.setattr(pconv.texture, "_search", count)
    for side, size in ((160, 16), (400, 16), (400, 64)):
        compared.append(0)
        photo, hole = grain(side, side), block(side, side, 60, 60, size)
        add_texture(soft(photo, hole), hole)
    _, small, same, larger = compared
    assert small == same
    assert 2 * small < larger < 16 * small


def test_progress_rises_to_one_and_an_exception_ends_the_work():
    photo, hole = grain(), block()
    filled, seen = torch.cat([soft(photo, hole)] * 2), []
    add_texture(filled, torch.cat([hole, hole]), on_step=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 100
    assert 0 < seen[0] < 0.02
    assert seen[-2:] == [1.0, 1.0]

    class CancelledError(Exception):
        pass

    def cancel(fraction):
        seen.append(fraction)
        if fraction > 0.3:
            raise CancelledError

    seen.clear()
    with pytest.raises(CancelledError):
        add_texture(filled, torch.cat([hole, hole]), on_step=cancel)
    assert seen[-1] < 0.35


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"hole must have shape \(N, 1, H, W\)"):
        add_texture(grain(), block(32, 32, 5, 5, 5))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device")
def test_a_gpu_adds_texture_too():
    photo, hole = grain(), block()
    filled = soft(photo, hole)
    textured = add_texture(filled.cuda(), hole.cuda()).cpu()
    assert torch.equal(textured[(hole == 0).expand_as(photo)], photo[(hole == 0).expand_as(photo)])
    assert contrast(textured, hole) > 0.06
