from dataclasses import replace

import numpy as np
import pytest
import torch
from pconv_train.losses import (
    LossWeights,
    chroma_loss,
    gram,
    hole_loss,
    perceptual_loss,
    ssim_loss,
    style_loss,
    total_loss,
    tv_loss,
    unit_perceptual_loss,
    valid_loss,
)
from pconv_train.metrics import ssim

rng = np.random.default_rng(0)
OUTPUT, TARGET = rng.random((2, 3, 12, 13)), rng.random((2, 3, 12, 13))
HOLE = (rng.random((2, 1, 12, 13)) < 0.3).astype(float)
PSI = [rng.random((2, c, s, s)) for c, s in ((4, 8), (5, 4), (6, 2))]
PSI_TARGET = [rng.random(p.shape) for p in PSI]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()


def test_pixel_losses_average_over_every_element_of_the_batch():
    difference = np.abs(OUTPUT - TARGET)
    valid = valid_loss(tensor(OUTPUT), tensor(TARGET), tensor(HOLE))
    hole = hole_loss(tensor(OUTPUT), tensor(TARGET), tensor(HOLE))
    assert valid.item() == pytest.approx((difference * (1 - HOLE)).sum() / OUTPUT.size, rel=1e-5)
    assert hole.item() == pytest.approx((difference * HOLE).sum() / OUTPUT.size, rel=1e-5)


def test_perceptual_loss_adds_the_mean_difference_of_each_layer():
    wanted = sum(np.abs(a - b).sum() / a.size for a, b in zip(PSI, PSI_TARGET, strict=True))
    found = perceptual_loss([tensor(p) for p in PSI], [tensor(p) for p in PSI_TARGET])
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_unit_perceptual_loss_compares_directions_of_the_features():
    wanted = 0.0
    for a, b in zip(PSI, PSI_TARGET, strict=True):
        a, b = (x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (a, b))
        wanted += ((a - b) ** 2).sum() / (a.size / a.shape[1])
    psi, psi_target = [tensor(p) for p in PSI], [tensor(p) for p in PSI_TARGET]
    assert unit_perceptual_loss(psi, psi_target).item() == pytest.approx(wanted, rel=1e-5)
    longer = unit_perceptual_loss([3 * p for p in psi], psi_target)
    assert longer.item() == pytest.approx(wanted, rel=1e-5)
    assert unit_perceptual_loss([0 * p for p in psi], psi_target).isfinite()


def test_ssim_loss_is_what_the_metric_lacks_of_1():
    output, target = tensor(OUTPUT), tensor(TARGET)
    assert ssim_loss(output, target).item() == pytest.approx(1 - ssim(output, target).mean().item(), abs=1e-6)
    assert ssim_loss(target, target).item() == pytest.approx(0, abs=1e-6)


def test_chroma_loss_sees_colour_but_not_luma():
    output, target, hole = tensor(OUTPUT), tensor(TARGET), tensor(HOLE)
    error = HOLE * (OUTPUT - TARGET)
    luma = 0.299 * error[:, :1] + 0.587 * error[:, 1:2] + 0.114 * error[:, 2:]
    assert chroma_loss(output, target, hole).item() == pytest.approx(np.abs(error - luma).mean(), rel=1e-5)
    assert chroma_loss(target + 0.1, target, hole).item() == pytest.approx(0, abs=1e-6)


def numpy_gram(psi: np.ndarray) -> np.ndarray:
    n, c, h, w = psi.shape
    flat = psi.reshape(n, c, h * w).transpose(0, 2, 1)  # (H·W) × C
    return np.stack([f.T @ f for f in flat]) / (c * h * w)


def test_gram_is_psi_transposed_psi_over_its_size():
    np.testing.assert_allclose(gram(tensor(PSI[0])).numpy(), numpy_gram(PSI[0]), rtol=1e-5)


def test_style_loss_averages_over_the_gram_matrix():
    pairs = zip(PSI, PSI_TARGET, strict=True)
    wanted = sum(np.abs(numpy_gram(a) - numpy_gram(b)).mean() for a, b in pairs)
    found = style_loss([tensor(p) for p in PSI], [tensor(p) for p in PSI_TARGET])
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_gram_of_large_half_precision_features_is_finite():
    huge = torch.full((1, 2, 64, 64), 6e4, dtype=torch.float16)
    assert torch.isfinite(gram(huge)).all()


def test_tv_loss_counts_neighbours_that_are_both_in_the_dilated_hole():
    n, _, h, w = OUTPUT.shape
    region = np.zeros_like(HOLE)
    for b, _, y, x in np.argwhere(HOLE):
        region[b, 0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 1
    total = 0.0
    for b in range(n):
        for y in range(h):
            for x in range(w):
                for yy, xx in ((y + 1, x), (y, x + 1)):
                    if yy < h and xx < w and region[b, 0, y, x] and region[b, 0, yy, xx]:
                        total += np.abs(OUTPUT[b, :, y, x] - OUTPUT[b, :, yy, xx]).sum()
    assert tv_loss(tensor(OUTPUT), tensor(HOLE)).item() == pytest.approx(total / OUTPUT.size, rel=1e-5)


def fake_features(image: torch.Tensor) -> list[torch.Tensor]:
    return [image * 2, image[..., ::2, ::2], image[..., ::4, ::4] ** 2]


def test_total_loss_is_equation_7():
    output, target, hole = tensor(OUTPUT), tensor(TARGET), tensor(HOLE)
    comp = torch.where(hole > 0, output, target)
    psi_out, psi_comp, psi_gt = (fake_features(x) for x in (output, comp, target))
    wanted = (
        valid_loss(output, target, hole)
        + 6 * hole_loss(output, target, hole)
        + 0.05 * (perceptual_loss(psi_out, psi_gt) + perceptual_loss(psi_comp, psi_gt))
        + 120 * (style_loss(psi_out, psi_gt) + style_loss(psi_comp, psi_gt))
        + 0.1 * tv_loss(comp, hole)
    )
    found, terms = total_loss(output, target, hole, LossWeights(), fake_features)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert set(terms) == {"valid", "hole", "perceptual", "style", "tv"}


def test_terms_that_the_paper_lacks_are_added_by_their_weights():
    output, target, hole = tensor(OUTPUT), tensor(TARGET), tensor(HOLE)
    comp = torch.where(hole > 0, output, target)
    wanted = 6 * hole_loss(output, target, hole) + 2 * ssim_loss(comp, target) + 12 * chroma_loss(output, target, hole)
    wanted += 0.5 * unit_perceptual_loss(fake_features(comp), fake_features(target))
    weights = replace(LossWeights.l1(valid=0), ssim=2, unit_perceptual=0.5, chroma=12)
    found, terms = total_loss(output, target, hole, weights, fake_features)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert terms.keys() >= {"hole", "ssim", "unit_perceptual", "chroma"}


def test_l1_weights_leave_out_all_that_needs_vgg():
    _, terms = total_loss(tensor(OUTPUT), tensor(TARGET), tensor(HOLE), LossWeights.l1())
    assert set(terms) == {"valid", "hole"}


def test_perceptual_crop_shows_psi_a_window_around_a_place_of_each_hole():
    seen = []

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        seen.append(image)
        return [image]

    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    target = torch.stack([rows, columns, 0 * rows]).expand(3, 3, 40, 50)  # what is seen says where it comes from
    hole = torch.zeros(3, 1, 40, 50)
    hole[0, :, 20, 30] = hole[1, :, 1, 49] = 1  # in the picture, in a corner; none in the third
    total_loss(target, target, hole, LossWeights(), features, 24, torch.Generator().manual_seed(1))
    gt, (out, comp) = seen[0], seen[1].chunk(2)
    assert gt.shape == (3, 3, 24, 24)
    assert torch.equal(out, gt)
    assert torch.equal(comp, gt)
    assert gt[:2, :2, 0, 0].tolist() == [[8, 18], [0, 26]]
    assert torch.equal(gt[:, :2, 23, 23], gt[:, :2, 0, 0] + 23)


@pytest.mark.parametrize("side", [20, 21])  # of 40 px at least: twice as much has room, or has not
def test_half_of_the_windows_are_of_the_picture_at_half_its_size_if_it_is_large_enough(side):
    seen = []

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        seen.append(image)
        return [image]

    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    target = torch.stack([rows, columns, 0 * rows]).expand(200, 3, 40, 60)
    hole = torch.zeros(200, 1, 40, 60)
    hole[..., 20, 30] = 1
    total_loss(target, target, hole, LossWeights(), features, side, torch.Generator().manual_seed(1))
    gt, (out, comp) = seen[0], seen[1].chunk(2)
    assert gt.shape == (200, 3, side, side)
    assert torch.equal(out, gt)
    assert torch.equal(comp, gt)
    steps = gt[:, :2, 11, 11] - gt[:, :2, 10, 10]
    halved = steps[:, 0] > 1.5
    torch.testing.assert_close(steps, torch.where(halved, 2.0, 1.0)[:, None].expand(-1, 2))
    assert 70 < halved.sum() < 130 if side == 20 else not halved.any()
    torch.testing.assert_close(gt[halved][:, :2, 10, 10], torch.tensor([20.5, 30.5]).expand(int(halved.sum()), 2))


def test_all_places_of_a_hole_may_be_the_middle_of_a_window():
    seen = []

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        seen.append(image)
        return [image]

    target = torch.arange(24.0).expand(200, 3, 24, 24)
    hole = torch.zeros(200, 1, 24, 24)
    hole[..., 12, [6, 9, 16]] = 1
    total_loss(target, target, hole, LossWeights(tv=0), features, 13, torch.Generator().manual_seed(1))
    assert set(seen[0][:, 0, 0, 0].tolist()) == {0, 3, 10}


def test_a_turned_window_shows_psi_a_square_of_each_picture_at_an_angle_of_its_own():
    seen = []

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        seen.append(image)
        return [image]

    rows, columns = torch.meshgrid(torch.arange(90.0), torch.arange(70.0), indexing="ij")
    target = torch.stack([columns, rows, 0 * rows]).expand(6, 3, 90, 70)  # what is seen says where it comes from
    hole = torch.ones(6, 1, 90, 70)
    total_loss(target, target, hole, LossWeights(tv=0), features, 40, torch.Generator().manual_seed(2), turned=True)
    gt, (out, comp) = seen[0], seen[1].chunk(2)
    assert gt.shape == (6, 3, 40, 40)
    assert torch.equal(out, gt)
    assert torch.equal(comp, gt)
    start, right, down = gt[:, :2, 10, 10], gt[:, :2, 10, 30], gt[:, :2, 30, 10]
    right, down = (right - start) / 20, (down - start) / 20  # torch's bicubic kernel is 0.1 px off here and there
    torch.testing.assert_close(down, torch.stack([-right[:, 1], right[:, 0]], 1), atol=0.02, rtol=0)  # a square, turned
    steps = right.norm(dim=1)
    assert (steps > 1 / 1.46).all()
    assert (steps < 1 / 0.88).all()
    angles = torch.atan2(right[:, 1], right[:, 0])
    assert angles.sort().values.diff().min() > 0.01
    corners = gt[:, :2, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.min() > -1
    assert (corners < torch.tensor([70.0, 90.0]).view(1, 2, 1)).all()


@pytest.mark.parametrize("term", ["perceptual", "unit_perceptual", "style", "tv", "ssim", "chroma"])
def test_the_output_does_not_reach_the_composite_outside_the_hole(term):
    output, hole = tensor(OUTPUT).requires_grad_(), tensor(HOLE) == 1
    weights = replace(LossWeights.l1(valid=0, hole=0), **{term: 1.0})
    total_loss(output, tensor(TARGET), tensor(HOLE), weights, fake_features)[0].backward()
    reached = output.grad.abs().sum(1, keepdim=True) > 0
    assert reached[hole].any()
    assert not reached[~hole].any()
