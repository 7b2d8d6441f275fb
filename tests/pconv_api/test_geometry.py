import functools
import random
import time

import pytest
from pconv_api.geometry import GAP, MIN_CONTEXT, Box, context_box, crop, islands, plan_jobs


def random_hole(seed, width, height, parts):
    """Rectangles, single pixels and lines, some touching the borders."""
    rng = random.Random(seed)
    hole = bytearray(width * height)
    for _ in range(parts):
        w, h = rng.choice([(1, 1), (rng.randint(1, 40), 1), (1, rng.randint(1, 40)), (rng.randint(1, 40),) * 2])
        x, y = rng.randrange(-5, width), rng.randrange(-5, height)
        for row in range(max(0, y), min(height, y + h)):
            for column in range(max(0, x), min(width, x + w)):
                hole[row * width + column] = rng.choice([1, 128, 255])
    return bytes(hole)


def pixels(hole, width):
    return [(i % width, i // width) for i, value in enumerate(hole) if value]


def inside(box, x, y):
    return box.x <= x < box.right and box.y <= y < box.bottom


@pytest.mark.parametrize("seed", range(30))
def test_islands_cover_the_hole_and_are_tight(seed):
    width, height = random.Random(seed).choice([(1, 1), (7, 3), (200, 150), (33, 400), (257, 129)])
    hole = random_hole(seed, width, height, parts=seed % 7)
    boxes = islands(hole, width, height)
    found = pixels(hole, width)
    assert all(any(inside(box, x, y) for box in boxes) for x, y in found)
    for box in boxes:
        mine = [(x, y) for x, y in found if inside(box, x, y)]
        xs, ys = [x for x, _ in mine], [y for _, y in mine]
        assert (min(xs), min(ys), max(xs) + 1, max(ys) + 1) == (box.x, box.y, box.right, box.bottom)


@pytest.mark.parametrize("seed", range(30))
def test_jobs_are_disjoint_cover_the_hole_and_see_known_pixels(seed):
    width, height = random.Random(seed).choice([(1, 1), (300, 200), (97, 501)])
    hole = random_hole(seed, width, height, parts=seed % 9)
    jobs = plan_jobs(hole, width, height)
    for x, y in pixels(hole, width):
        assert sum(inside(job.target, x, y) for job in jobs) == 1
    if jobs:
        everything = functools.reduce(Box.union, (job.target for job in jobs))
        assert sum(job.context.area for job in jobs) <= context_box(everything, width, height).area
    for job in jobs:
        assert job.context == context_box(job.target, width, height)
        assert job.context.union(job.target) == job.context
        assert Box(0, 0, width, height).union(job.context) == (0, 0, width, height)


def test_no_hole_has_no_island():
    assert islands(bytes(12), 4, 3) == []
    assert plan_jobs(bytes(12), 4, 3) == []


def test_far_islands_are_apart_and_near_ones_together():
    hole = bytearray(200 * 100)
    hole[10 * 200 + 10] = hole[10 * 200 + 10 + GAP - 1] = 1
    hole[90 * 200 + 150] = 1
    assert islands(bytes(hole), 200, 100) == [Box(10, 10, GAP, 1), Box(150, 90, 1, 1)]


def test_a_u_shaped_hole_is_one_island():
    width, height = 100, 100
    hole = bytearray(width * height)
    for row in range(5, 90):
        hole[row * width + 5] = hole[row * width + 90] = 1
    hole[89 * width + 5 : 89 * width + 91] = b"\1" * 86
    assert islands(bytes(hole), width, height) == [Box(5, 5, 86, 85)]


def test_a_run_at_the_right_border_does_not_continue_at_the_left_one():
    width, height = 300, 40
    hole = bytearray(width * height)
    hole[width - 1] = 1
    hole[width] = 1
    assert islands(bytes(hole), width, height) == [Box(299, 0, 1, 1), Box(0, 1, 1, 1)]


def test_context_grows_with_the_hole_and_stops_at_borders():
    assert context_box(Box(500, 500, 300, 100), 1000, 1000) == Box(350, 350, 600, 400)
    assert context_box(Box(0, 990, 10, 10), 1000, 1000) == Box(0, 990 - MIN_CONTEXT, 10 + MIN_CONTEXT, 10 + MIN_CONTEXT)
    assert context_box(Box(5, 5, 1, 1), 1000, 1000, margin=2) == Box(3, 3, 5, 5)


def test_distant_islands_stay_separate_jobs():
    width, height = 2000, 1000
    hole = bytearray(width * height)
    hole[100 * width + 100] = hole[900 * width + 1900] = 1
    assert [job.target for job in plan_jobs(bytes(hole), width, height)] == [Box(100, 100, 1, 1), Box(1900, 900, 1, 1)]


def test_wrong_length_says_both_lengths():
    with pytest.raises(ValueError, match=r"4 × 3 px has 12 bytes, got 11"):
        islands(bytes(11), 4, 3)


def test_crop_copies_the_rows_of_the_box():
    raster = bytes(range(60))  # 5 × 4 px of 3 bytes
    assert crop(raster, 5, Box(1, 2, 2, 2), 3) == raster[33:39] + raster[48:54]
    assert crop(raster, 5, Box(0, 0, 5, 4), 3) == raster


def checkerboard(width, height):
    return (b"\0\1" * (width // 2) + b"\1\0" * (width // 2)) * (height // 2)


def dust(width, height):
    rng, hole = random.Random(0), bytearray(width * height)
    for _ in range(20_000):
        hole[rng.randrange(width * height)] = 255
    return bytes(hole)


@pytest.mark.parametrize("make", [lambda w, h: bytes(w * h), lambda w, h: b"\xff" * (w * h), checkerboard, dust])
def test_24_megapixels_take_no_time(make):
    width, height = 6000, 4000
    hole = make(width, height)
    start = time.process_time()
    plan_jobs(hole, width, height)
    assert time.process_time() - start < 2  # about 0.15 s; a loop over pixels takes 5 s and more
