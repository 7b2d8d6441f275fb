"""The correction of a fill by the network's error around the hole."""

import pytest
import torch
from pconv.edge import edge_correction, grow_hole
from pconv.operations import predict
from shapes import disc


def test_a_hole_grows_by_the_margin_to_all_sides() -> None:
    hole = torch.zeros(1, 1, 9, 9)
    hole[..., 4, 5] = 7
    grown = grow_hole(hole, 2)
    wanted = torch.zeros(1, 1, 9, 9)
    wanted[..., 2:7, 3:8] = 1
    assert torch.equal(grown, wanted)
    assert torch.equal(grow_hole(hole, 0), (hole > 0).float())


def test_a_hole_does_not_grow_over_all_that_is_known() -> None:
    hole = torch.ones(2, 1, 9, 9)
    hole[0, :, 4, 4] = hole[1, :, :4] = 0
    grown = grow_hole(hole, 2)
    assert torch.equal(grown[0], hole[0])
    assert grown[1].sum() == 63


@pytest.mark.parametrize("size", [(83, 97), (1, 40), (40, 1), (7, 7)])
def test_an_error_that_is_linear_is_continued_as_it_is(size: tuple[int, int]) -> None:
    """A linear function is harmonic, so it is its own continuation."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    image = (x + y).expand(1, 3, height, width)
    hole = torch.zeros(1, 1, height, width)
    hole[..., height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None] = 1
    correction = edge_correction(torch.zeros_like(image), image, hole)
    assert (correction - image).abs()[hole.expand_as(image) > 0].max() < 0.04
    assert (correction[hole.expand_as(image) == 0] == 0).all()


def test_an_error_that_is_rough_is_continued_as_a_dense_solve_does() -> None:
    """Solved with less care, what lies beyond the hole's rim, or half of what is on it, seeps in."""
    hole = (disc(48, 17, (22, 27)) + disc(48, 6, (40, 8))).clamp(max=1)
    hole[..., 30:33, :20] = 1  # up to the picture's border
    hole[..., 20, 20] = 0
    image, inside = torch.rand(1, 3, 48, 48), hole[0, 0] > 0
    places = inside.nonzero().tolist()
    numbers = {tuple(place): number for number, place in enumerate(places)}
    matrix, wanted = torch.zeros(len(places), len(places), dtype=torch.float64), torch.zeros(len(places), 3).double()
    for number, (y, x) in enumerate(places):
        for neighbour in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not all(0 <= side < 48 for side in neighbour):
                continue
            matrix[number, number] += 1
            if neighbour in numbers:
                matrix[number, numbers[neighbour]] -= 1
            else:
                wanted[number] += image[0, :, *neighbour]
    exact = torch.linalg.solve(matrix, wanted).T.float()
    correction = edge_correction(torch.zeros_like(image), image, hole)[0][:, inside]
    assert (correction - exact).abs().mean() < 0.01
    assert (correction - exact).abs().max() < 0.1


def test_of_the_error_only_what_touches_the_hole_counts() -> None:
    image, output, hole = torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40), disc(40, 8)
    elsewhere = output.masked_fill(grow_hole(hole, 1) == 0, torch.nan)
    assert torch.equal(edge_correction(elsewhere, image, hole), edge_correction(output, image, hole))


def test_a_colour_cast_goes_and_detail_stays() -> None:
    target, hole = torch.rand(1, 3, 64, 64), disc(64, 20)
    corrected = predict(lambda *_: target + 0.1, target, hole)
    torch.testing.assert_close(corrected, torch.where(hole > 0, target, target + 0.1), atol=1e-4, rtol=0)


def test_the_network_predicts_the_ring_too_and_values_in_the_hole_never_matter() -> None:
    image, hole, seen = torch.rand(1, 3, 40, 40), disc(40, 8), []

    def network(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen.append(hole)
        return torch.zeros_like(image)

    clean = predict(network, image, hole, edge=3)
    assert torch.equal(seen[0], grow_hole(hole, 3))
    assert torch.equal(predict(network, image.masked_fill(hole > 0, torch.nan), hole, edge=3), clean)
    assert torch.equal(predict(network, image, hole, edge=0), torch.zeros_like(image))
    assert torch.equal(seen[-1], hole)


def test_the_gradient_knows_what_the_correction_makes_of_the_output() -> None:
    """The result is affine in the output, so a step changes it by exactly gradient · step."""
    image, hole, step = torch.rand(1, 3, 16, 16), disc(16, 4), torch.rand(1, 3, 16, 16)
    output, weights = torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16)
    before = (weights * predict(lambda *_: output, image, hole)).sum()
    before.backward()
    after = (weights * predict(lambda *_: output.detach() + step, image, hole)).sum()
    torch.testing.assert_close((output.grad * step).sum(), (after - before).detach(), rtol=1e-3, atol=1e-3)
    assert not torch.equal(output.grad, weights)  # what passes the correction by


def test_where_the_hole_lies_does_not_matter() -> None:
    """Only its surroundings count, so a picture around them changes nothing."""
    image, hole = torch.rand(1, 3, 96, 96), disc(96, 9, (40, 44))
    output = torch.rand(1, 3, 96, 96)
    whole = edge_correction(output, image, hole)
    part = (..., slice(8, 80), slice(8, 80))
    torch.testing.assert_close(edge_correction(output[part], image[part], hole[part]), whole[part])
    assert not edge_correction(output, image, torch.zeros_like(hole)).any()
