from collections import Counter

import numpy as np
import pytest
import torch
from pconv import place_pixels
from pconv.wide import wide_parts
from pconv_train.data import (
    UPSCALE_JPEG,
    CropDataset,
    CropSettings,
    DataError,
    StreamSampler,
    find_photos,
    fixed_samples,
    hold_out,
    make_sample,
    random_crop,
)
from pconv_train.degrade import compress, degrade
from PIL import Image


def test_photos_are_found_in_subfolders_by_pattern(photos):
    (photos / "notes.txt").write_text("no picture")
    names = [path.name for path in find_photos(photos)]
    assert len(names) == 8
    assert [p.name for p in find_photos(photos, include=("*.png",))] == [n for n in names if n.endswith("png")]
    assert [p.name for p in find_photos(photos, exclude=("p0*", "p1*"))] == [n for n in names if n[1] not in "01"]


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no picture in"):
        find_photos(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        find_photos(tmp_path / "missing")


def test_held_out_photos_depend_on_names_alone(photos):
    paths = find_photos(photos)
    training, held = hold_out(paths, 3)
    assert sorted(training + held) == sorted(paths)
    assert hold_out(paths[::-1], 3)[1] == held


@pytest.mark.parametrize("task", ["inpaint", "upscale", "refine"])
def test_sample_depends_on_seed_and_number_alone(photos, task):
    settings = CropSettings(task, 32, seed=5)
    first, second = CropDataset(find_photos(photos), settings), CropDataset(find_photos(photos), settings)
    _ = [second[number] for number in range(20)]  # another history
    assert all(torch.equal(a, b) for a, b in zip(first[13], second[13], strict=True))
    other = CropDataset(find_photos(photos), CropSettings(task, 32, seed=6))
    assert not all(torch.equal(a, b) for a, b in zip(first[13], other[13], strict=True))


def test_an_epoch_takes_each_photo_once(photos, monkeypatch):
    taken = Counter()
    monkeypatch.setattr(
        "pconv_train.data.random_crop",
        lambda path, size, *_: taken.update([path]) or np.zeros((size, size, 3), np.uint8),
    )
    dataset = CropDataset(find_photos(photos), CropSettings("inpaint", 16, seed=0))
    for number in range(16):
        dataset[number]
    assert set(taken.values()) == {2}
    assert len(taken) == 8


def test_broken_files_are_reported_once_and_skipped(photos, capsys):
    for path in find_photos(photos)[:3]:
        path.write_bytes(b"not a picture")
    dataset = CropDataset(find_photos(photos), CropSettings("inpaint", 16, seed=0))
    for number in range(32):
        assert dataset[number][2].shape == (3, 16, 16)
    assert capsys.readouterr().out.count("skipped") == 3


def test_broken_photos_that_are_held_out_are_named_and_left_out(photos, capsys):
    settings, found = CropSettings("inpaint", 16, seed=0), find_photos(photos)
    whole = fixed_samples(found, settings)
    found[2].write_bytes(found[2].read_bytes()[:200])
    left = fixed_samples(found, settings)
    assert f"skipped {found[2]}" in capsys.readouterr().out
    assert all(
        torch.equal(a, b)
        for one, two in zip(whole[:2] + whole[3:], left, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_files_that_pillow_only_writes_are_no_photos(photos):
    (photos / "letter.pdf").write_bytes(b"%PDF-1.4")
    assert len(find_photos(photos)) == 8


def test_only_broken_files_are_an_error(photos):
    for path in find_photos(photos):
        path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="none of the 8 pictures can be read"):
        CropDataset(find_photos(photos), CropSettings("inpaint", 16, seed=0))[0]


@pytest.mark.parametrize("seed", range(8))
def test_upscale_input_is_the_lattice_of_the_paper(photos, seed):
    target = np.asarray(Image.open(find_photos(photos)[0]).convert("RGB").resize((32, 32)))
    image, hole, wanted = make_sample(target, CropSettings("upscale", 32, 0), np.random.default_rng(seed))
    small = degrade(target, 4, np.random.default_rng(seed), jpeg=UPSCALE_JPEG)
    placed, lattice = place_pixels(torch.from_numpy(small.copy()).permute(2, 0, 1)[None], 4)
    assert torch.equal(image, placed[0])
    assert torch.equal(hole.float(), lattice[0])
    assert torch.equal(wanted.permute(1, 2, 0), torch.from_numpy(target.copy()))


def test_a_share_of_small_pictures_are_jpegs(photos):
    with Image.open(find_photos(photos)[0]) as file:
        target = np.asarray(file.convert("RGB").resize((32, 32)))
    shares = {}
    for jpeg in (0.0, 0.4, 1.0):
        pairs = [[degrade(target, 4, np.random.default_rng(seed), jpeg=j) for j in (0.0, jpeg)] for seed in range(100)]
        shares[jpeg] = sum(not np.array_equal(*pair) for pair in pairs) / 100
    assert shares[0.0] == 0
    assert shares[0.4] == pytest.approx(0.4, abs=0.1)
    assert shares[1.0] == 1


def test_the_blocks_of_a_cropped_jpeg_begin_earlier():
    grays = np.random.default_rng(0).integers(0, 256, (5, 6, 1), np.uint8)
    part = np.kron(grays, np.ones((16, 16, 3), np.uint8))[11:, 5:]  # a JPEG is wrong where its blocks straddle these
    error = [np.abs(compress(part, 50, *crop).astype(int) - part).mean() for crop in ((5, 11), (0, 0), (11, 5))]
    assert error[0] < 0.3 * min(error[1:])


def test_blocks_begin_anywhere_in_training(monkeypatch):
    crops = set()
    monkeypatch.setattr("pconv_train.degrade.compress", lambda picture, quality, *crop: crops.add(crop) or picture)
    for seed in range(400):
        degrade(np.zeros((32, 32, 3), np.uint8), 4, np.random.default_rng(seed), jpeg=1)
    assert {left for left, _ in crops} == {top for _, top in crops} == set(range(16))
    assert len(crops) > 100


def test_refine_input_is_true_outside_the_hole_and_a_lattice_inside():
    target = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    settings = CropSettings("refine", 64, 0, hole_ratio=(0.3, 0.6))
    image, hole, wanted = make_sample(target, settings, np.random.default_rng(4))
    kept = hole[0] == 0
    exact = (image == wanted).all(0)
    assert 0.2 < hole.float().mean() < 0.6
    assert (kept & ~exact).any()  # lattice pixels of the reduced picture
    assert exact[kept].float().mean() > 0.5  # true pixels
    lattice = kept & ~exact
    rows, columns = torch.where(lattice)
    assert ((rows % 2 == 1) & (columns % 2 == 1)).all()


def test_inpaint_input_is_the_target():
    target = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image, hole, wanted = make_sample(target, CropSettings("inpaint", 32, 0), np.random.default_rng(0))
    assert torch.equal(image, wanted)
    assert 0.01 < hole.float().mean() <= 0.6


@pytest.mark.parametrize("narrow", [True, False])
def test_wide_parts_of_holes_can_be_left_to_a_reduced_picture(narrow):
    target = np.zeros((256, 256, 3), np.uint8)
    settings = CropSettings("inpaint", 256, 0, hole_ratio=(0.4, 0.6), narrow=narrow)
    holes = [make_sample(target, settings, np.random.default_rng(seed))[1] for seed in range(30)]
    wide = [bool(wide_parts(hole[None] > 0).any()) for hole in holes]
    assert any(wide) is not narrow
    assert all(hole.any() for hole in holes)


def test_easy_samples_come_first_and_their_holes_grow(photos):
    easy = CropDataset(find_photos(photos), CropSettings("inpaint", 64, seed=5, curriculum=400))
    plain = CropDataset(find_photos(photos), CropSettings("inpaint", 64, seed=5))
    middle = torch.zeros(1, 64, 64, dtype=torch.uint8)
    middle[:, 28:36, 28:36] = 1
    assert torch.equal(easy[0][1], middle)
    areas = [easy[number][1].sum().item() for number in range(400)]
    assert np.mean(areas[:80]) < 0.6 * np.mean(areas[280:])
    assert all(torch.equal(a, b) for a, b in zip(easy[400], plain[400], strict=True))
    assert all(torch.equal(easy[number][0], easy[number][2]) for number in range(20))


def test_easy_samples_are_drawn_edges_and_photographs(photos, monkeypatch):
    photo = np.full((64, 64, 3), 77, np.uint8)
    monkeypatch.setattr("pconv_train.data.random_crop", lambda *_: photo)
    samples = CropDataset(find_photos(photos), CropSettings("inpaint", 64, seed=5, curriculum=200))
    taken = [(samples[number][2] == 77).all().item() for number in range(200)]
    assert 0.3 < np.mean(taken) < 0.5


def test_edges_are_a_share_of_all_samples_and_each_cell_of_a_large_one_has_a_hole(photos, monkeypatch):
    photo = np.full((128, 128, 3), 77, np.uint8)
    monkeypatch.setattr("pconv_train.data.random_crop", lambda *_: photo)
    mixed = CropDataset(find_photos(photos), CropSettings("inpaint", 128, seed=5, curriculum_share=0.3))
    drawn = [sample for sample in (mixed[number] for number in range(200)) if (sample[2] != 77).any()]
    assert 40 < len(drawn) < 80
    for _, hole, _ in drawn:
        assert all(hole[0, y : y + 64, x : x + 64].any() for y in (0, 64) for x in (0, 64))


def test_crops_cover_one_to_max_scale_times_the_size(tmp_path):
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.repeat(ramp[None, :, None], 300, 0).repeat(3, 2)
    Image.fromarray(pixels).save(tmp_path / "ramp.png")
    spans = []
    for seed in range(60):
        crop = random_crop(tmp_path / "ramp.png", 32, 4.0, np.random.default_rng(seed)).astype(int)
        spans.append(abs(crop[0, -1, 0] - crop[0, 0, 0]) / (255 / 400) / 31)
    assert 0.8 < min(spans) < 1.3
    assert 3.2 < max(spans) < 4.3


def test_a_photo_smaller_than_the_crop_is_enlarged(tmp_path):
    Image.new("L", (10, 20), 77).save(tmp_path / "tiny.png")
    crop = random_crop(tmp_path / "tiny.png", 32, 2.0, np.random.default_rng(0))
    assert crop.shape == (32, 32, 3)
    assert (crop == 77).all()


def test_large_jpegs_are_decoded_reduced_and_still_cover_the_same(tmp_path):
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    pixels = np.repeat(ramp[None, :, None], 1600, 0).repeat(3, 2)
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    for seed in range(5):
        a, b = (
            random_crop(tmp_path / name, 64, 16.0, np.random.default_rng(seed)).astype(int)
            for name in ("large.jpg", "large.png")
        )
        assert abs(a - b).mean() < 2


def test_mask_files_replace_generated_holes(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    settings = CropSettings("inpaint", 32, 0, hole_files=(tmp_path / "mask.png",))
    for seed in range(8):  # some mirrored, some not
        _, hole, _ = make_sample(np.zeros((32, 32, 3), np.uint8), settings, np.random.default_rng(seed))
        assert 0.01 < hole.float().mean() <= 0.6
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="is white the hole"):
        make_sample(np.zeros((32, 32, 3), np.uint8), settings, np.random.default_rng(0))


def test_processes_share_the_stream_without_overlap():
    alone = list(StreamSampler(start=3, steps=2, batch=6))
    first = list(StreamSampler(3, 2, 3, rank=0, world=2))
    second = list(StreamSampler(3, 2, 3, rank=1, world=2))
    assert alone == list(range(18, 30))
    assert first == [18, 19, 20, 24, 25, 26]
    assert sorted(first + second) == alone


def test_validation_samples_are_fixed(photos):
    settings = CropSettings("inpaint", 32, seed=1)
    first, second = (fixed_samples(find_photos(photos), settings) for _ in range(2))
    assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize(("task", "size"), [("paint", 32), ("inpaint", 30), ("inpaint", 4)])
def test_unusable_settings_are_refused(task, size):
    with pytest.raises(DataError):
        CropSettings(task, size, 0)
