"""Filling any hole of any picture."""

import pytest
import torch
import torch.nn.functional as F
from pconv import PConvUNet, PConvUNetConfig, add_texture, composite, filling, inpaint
from pconv.noise import strength_factor
from pconv.operations import predict
from pconv.sharpen import sharpen
from pconv.wide import wide_parts
from shapes import disc

torch.set_num_threads(1)


@pytest.fixture
def network() -> PConvUNet:
    torch.manual_seed(0)
    return PConvUNet(PConvUNetConfig((8, 8), (3, 3))).eval()


def some_hole(*size: int) -> torch.Tensor:
    return (torch.rand(size) > 0.5).float()


def test_known_pixels_are_kept_and_the_rest_is_the_prediction(network: PConvUNet) -> None:
    image, hole = torch.rand(2, 3, 23, 20), F.pad(some_hole(2, 1, 13, 10), (5, 5, 5, 5))
    result = inpaint(network, image, hole)
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    with torch.inference_mode():
        predicted = composite(predict(network, image, hole), image, hole)
        torch.testing.assert_close(result, composite(sharpen(predicted, hole != 0), image, hole))
        assert torch.equal(inpaint(network, image, hole, edge=0), composite(network(image, hole), image, hole))
    assert torch.equal(inpaint(network, image.masked_fill(hole != 0, torch.nan), hole), result)
    assert torch.equal(inpaint(network, image, torch.zeros_like(hole)), image)


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (3, 3), (1, 300), (65, 67), (64, 64)])
def test_any_size_works(network: PConvUNet, size: tuple[int, int]) -> None:
    image, hole = torch.rand(1, 3, *size), torch.ones(1, 1, *size)
    hole[..., 0, 0] = 0
    result = inpaint(network, image, hole)
    assert result.isfinite().all()
    assert torch.equal(result[..., 0, 0], image[..., 0, 0])


def test_a_picture_goes_on_as_its_mirror_image_where_the_hole_touches_its_border(network: PConvUNet) -> None:
    seen = []

    def spy(part: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append(part)
        return network(part, hole)

    image, hole = torch.rand(1, 3, 40, 50), torch.zeros(1, 1, 40, 50)
    hole[..., 10:20, 45:] = 1
    inpaint(spy, image, hole)
    assert seen[-1].shape[-2:] == (40, 50 + filling.BORDER)
    assert torch.equal(seen[-1][..., 50:], image[..., -filling.BORDER :].flip(-1))
    strip, cut = torch.rand(1, 3, 20, 300), torch.zeros(1, 1, 20, 300)
    cut[..., 100:250] = 1
    inpaint(spy, strip, cut)  # wide: it is halved, which needs some height
    assert [part.shape[-2] for part in seen[1:]] == [122]


def test_a_gray_picture_stays_gray_and_one_with_a_single_coloured_pixel_is_not_made_gray(network: PConvUNet) -> None:
    image, hole = torch.rand(1, 1, 40, 40).expand(3, 3, 40, 40).clone(), torch.zeros(3, 1, 40, 40)
    hole[..., 10:30, 10:30] = 1
    image[1, 0, 3, 3] += 0.1
    image[2, 0, 15, 15] += 0.1  # in the hole: it is not known
    filled = inpaint(network, image, hole)
    spread = (filled.amax(1) - filled.amin(1)).flatten(1).amax(1)
    assert spread[0] == spread[2] == 0
    assert torch.equal(filled.where(hole == 0, image), image)
    assert (filled[1].amax(0) - filled[1].amin(0))[10:30, 10:30].max() > 0.01
    assert torch.equal(filled[0], filled[2])
    textured = add_texture(filled[:1], hole[:1])
    assert textured.amax(1).sub(textured.amin(1)).max() < 0.5 / 255


def test_a_picture_that_is_all_hole_is_refused(network: PConvUNet) -> None:
    hole = torch.zeros(2, 1, 8, 8)
    hole[1] = 1
    with pytest.raises(ValueError, match="covers the whole picture"):
        inpaint(network, torch.rand(2, 3, 8, 8), hole)
    with pytest.raises(ValueError, match=r"hole must have shape .*got \(1, 1, 4, 4\)"):
        inpaint(network, torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 4, 4))


def test_what_is_wide() -> None:
    assert not wide_parts(disc(200, 30) > 0).any()
    for side in (96, 120):
        square = torch.zeros(1, 1, 200, 200, dtype=torch.bool)
        square[..., 40 : 40 + side, 40 : 40 + side] = True
        assert wide_parts(square).any() == (side > 112)
    blob = disc(300, 90, (150, 120)) > 0
    streak = torch.zeros_like(blob)
    streak[..., 148:156, 200:295] = True
    wide = wide_parts(blob | streak)
    assert torch.equal(wide & blob, blob)
    assert not wide[..., 260:].any()
    for size in ((8, 512), (300, 6), (5, 5), (40, 40)):  # small pictures are not wide for being small
        speck = torch.zeros(1, 1, *size, dtype=torch.bool)
        speck[..., size[0] // 2, size[1] // 2] = True
        assert not wide_parts(speck).any()
    frame = torch.zeros(1, 1, 200, 200, dtype=torch.bool)
    frame[..., :12] = frame[..., :12, :] = True  # long, not wide
    assert not wide_parts(frame).any()


def test_a_wide_hole_is_filled_from_a_smaller_picture() -> None:
    image, hole, seen = torch.rand(1, 3, 400, 400), disc(400, 180), []

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append((image.shape[-1], int(hole.sum())))
        assert not wide_parts(hole > 0).any()
        return torch.full_like(image, 0.5)

    result = inpaint(network, image, hole)
    assert [side for side, _ in seen] == [100]
    assert torch.equal(result[hole.expand_as(image) == 0], image[hole.expand_as(image) == 0])


def test_narrow_parts_beside_a_wide_one_are_filled_at_full_size() -> None:
    image, hole, seen = torch.rand(1, 3, 256, 256), disc(256, 90, (128, 95)), []
    hole[..., 126:132, 180:250] = 1

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append(hole)
        return torch.full_like(image, 0.5)

    inpaint(network, image, hole)
    assert [given.shape[-1] for given in seen] == [128, 256]
    assert seen[-1][..., 128, 240] == 1
    assert seen[-1][..., 128, 80] == 0  # known by then


def test_refinement_adds_detail_to_what_comes_from_a_smaller_picture_and_nothing_else() -> None:
    image, hole, seen, told = torch.rand(1, 3, 300, 301), disc(301, 75)[..., :300, :], [], []
    hole[..., 20:26, 20:200] = 1  # narrow

    def refine(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append(hole)
        torch.manual_seed(0)
        return torch.where(torch.rand_like(image) > 0.5, 0.9, 0.1)  # no stripes, which would be taken for the lattice

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        return torch.full_like(image, 0.5)

    rest = {"progress": lambda done, total: told.append((done, total)), "edge": 0}
    plain = inpaint(network, image, hole)
    result = inpaint(network, image, hole, refine=refine, **rest)
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert [given.shape[-1] for given in seen] == [301]
    assert seen[0][..., 150, 150] == 1
    assert not seen[0][..., 1::2, 1::2].any()  # the lattice
    assert result[..., 150, 120:180].diff().abs().mean() > 0.2  # detail
    assert plain[..., 150, 120:180].diff().abs().max() < 0.1
    assert result[..., 23, 30:100].diff().abs().max() == 0  # narrow parts are the other network's
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_what_can_be_refined_is_wide_sooner_but_at_full_size_only() -> None:
    image, seen = torch.rand(1, 3, 400, 400), []

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append(image.shape[-1])
        return torch.full_like(image, 0.5)

    for radius, alone, refined in ((15, [400], [400]), (60, [400], [200]), (95, [200], [200])):
        for refine, wanted in ((None, alone), (lambda image, hole: image, refined)):
            seen.clear()
            inpaint(network, image, disc(400, radius), refine=refine)
            assert seen == wanted, (radius, refine)


@pytest.mark.parametrize("tile", [64, 63])
def test_refinement_by_windows_is_the_same_as_in_one(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(filling, "HALO", 64)
    image, hole = torch.rand(1, 3, 401, 300), disc(401, 125)[..., :300]

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        return image.masked_fill(hole > 0, 0.25)

    def refine(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        assert not hole[..., 1::2, 1::2].any()
        return torch.where(hole > 0, F.avg_pool2d(image, 3, 1, 1), image)

    one = inpaint(network, image, hole, tile=999, refine=refine)
    torch.testing.assert_close(inpaint(network, image, hole, tile=tile, refine=refine), one, atol=1e-3, rtol=0)


def test_refinement_keeps_values_beyond_white() -> None:
    image, hole = torch.full((1, 3, 256, 256), 3.0), disc(256, 70)
    white = torch.ones_like
    result = inpaint(lambda image, hole: white(image), image, hole, refine=lambda image, hole: white(image))
    torch.testing.assert_close(result, image, atol=0.1, rtol=0)


def test_large_pictures_go_window_by_window_and_only_where_the_hole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "HALO", 16)
    monkeypatch.setattr(filling, "_BLEND", 8)
    image, hole, seen, told = torch.rand(1, 3, 100, 300), torch.zeros(1, 1, 100, 300), [], []
    hole[..., 50:54, 10:90] = 1

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape[-2:]))
        return image.mean((2, 3), keepdim=True).expand_as(image).contiguous()

    def sharpen(filled: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        told.append("sharpened")
        return filled.clone()

    monkeypatch.setattr(filling, "sharpen", sharpen)
    inpaint(network, image, hole, tile=40, progress=lambda done, total: told.append((done, total)))
    assert seen == [(72, 56), (72, 72), (72, 72)]
    assert told == [(0, 3), (1, 3), (2, 3), "sharpened", (3, 3)]


def test_windows_that_agree_give_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "HALO", 16)
    image, hole = torch.rand(1, 3, 120, 150), some_hole(1, 1, 120, 150)

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        return image.masked_fill(hole > 0, 0.25)

    one = inpaint(network, image, hole, tile=999)
    torch.testing.assert_close(inpaint(network, image, hole, tile=24), one, atol=1e-6, rtol=0)


def test_values_beyond_white_reach_into_the_hole() -> None:
    image, hole = torch.full((1, 3, 64, 64), 4.0), disc(64, 15)
    image[..., 40:] = -0.5

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        assert image.min() >= 0
        assert image.max() <= 1
        return image

    result = inpaint(network, image, hole)
    assert torch.equal(result[hole.expand_as(image) == 0], image[hole.expand_as(image) == 0])
    assert result[..., 32, 20].min() > 3
    assert result.min() >= -0.5
    assert result.max() <= 4


def test_no_line_shows_between_wide_and_narrow_parts() -> None:
    image, hole = torch.full((1, 3, 256, 256), 0.5), torch.zeros(1, 1, 256, 256)
    hole[..., 60:180, 40:160] = 1
    hole[..., 100:130, 160:230] = 1  # a narrow part beside the wide one
    assert 0 < wide_parts(hole > 0).sum() < hole.sum()
    filled = inpaint(lambda image, hole: torch.where(hole > 0, 0.7, image), image, hole)  # too bright everywhere
    torch.testing.assert_close(filled, image, atol=0.1, rtol=0)
    assert max(filled.diff(dim=axis).abs().max() for axis in (-2, -1)) < 0.02  # of 0.2


def test_numbers_are_stronger_in_reduced_pictures_alone() -> None:
    image, hole, seen = torch.rand(1, 3, 256, 256), disc(256, 90, (128, 95)), []
    hole[..., 126:132, 180:250] = 1

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append((image.shape[-1], strength_factor()))
        return torch.full_like(image, 0.5)

    inpaint(network, image, hole)
    assert seen == [(128, filling.REDUCED_NOISE), (256, 1)]
    assert strength_factor() == 1
