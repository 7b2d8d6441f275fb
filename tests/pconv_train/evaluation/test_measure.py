import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pconv_train.degrade import compress
from pconv_train.evaluation.measure import compose, luma, measure
from pconv_train.evaluation.methods import BUILDERS, Machine, Method, MethodError
from pconv_train.evaluation.pairs import UpscalePair, inpaint_pairs, upscale_pairs
from pconv_train.evaluation.perceptual import Perceptual, load_inception, load_perceptual
from pconv_train.metrics import seam, specks_percent
from PIL import Image
from torchvision.models import inception_v3

MACHINE = Machine(threads=1)


@pytest.fixture
def problem(photos):
    return inpaint_pairs([photos / "p0.png"], 32, 0)[4].load()


def test_the_truth_is_perfect(problem):
    figures = measure(problem, problem.target, ())
    assert figures.pop("specks") <= 1
    assert figures == {"l1": 0, "psnr": 100, "ssim": pytest.approx(1), "seam": 1}


def test_mean_color_is_worse_than_truth_in_every_figure(problem):
    restored = BUILDERS["mean color"](Method("m", "mean color"), MACHINE)(problem.image, problem.hole)
    figures = measure(problem, compose(problem, restored), ())
    assert figures["l1"] > 0
    assert figures["psnr"] < 40
    assert figures["ssim"] < 0.99
    assert figures["seam"] > 1.1


def test_the_membrane_continues_a_ramp(problem):
    """A plane is harmonic; what is around the hole decides, and nothing else."""
    ramp = np.repeat(np.arange(64, 192, 2, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    hole = np.zeros((64, 64), bool)
    hole[20:40, 24:40] = True
    restored = BUILDERS["membrane"](Method("m", "membrane"), MACHINE)(np.where(hole[..., None], 0, ramp), hole)
    assert np.abs(restored.astype(int) - ramp).max() <= 2
    assert (restored[~hole] == ramp[~hole]).all()


def test_known_pixels_are_put_back(problem):
    composed = compose(problem, np.full_like(problem.target, 7))
    assert (composed[~problem.hole] == problem.target[~problem.hole]).all()
    assert (composed[problem.hole] == 7).all()


def test_a_command_gets_picture_and_hole_and_gives_a_picture(problem, gray_command):
    restored = BUILDERS["command"](Method("gray", "command", gray_command), MACHINE)(problem.image, problem.hole)
    assert (restored[problem.hole] == 128).all()
    assert (restored[~problem.hole] == problem.target[~problem.hole]).all()


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 3), np.uint8), np.zeros((32, 32, 3), np.float32)])
def test_a_picture_of_another_kind_is_refused(problem, wrong):
    with pytest.raises(MethodError, match=r"instead of uint8 \(32, 32, 3\)"):
        compose(problem, wrong)


def test_the_input_does_not_betray_the_truth(problem):
    assert (problem.image[problem.hole] == 0).all()
    assert (problem.image[~problem.hole] == problem.target[~problem.hole]).all()


def test_seam_by_hand():
    target = torch.zeros(1, 3, 1, 4)
    restored = torch.tensor([0.0, 0.2, 0.2, 0.4]).expand(1, 3, 1, 4)
    hole = torch.tensor([0, 1, 1, 0]).expand(1, 1, 1, 4)
    level = 1 / 255  # edges: 0 → 0.2 and 0.2 → 0.4, none inside the hole
    assert seam(restored, target, hole).item() == pytest.approx((0.2 + level) / level)
    assert seam(restored.transpose(2, 3), target.transpose(2, 3), hole.transpose(2, 3)).item() == pytest.approx(52)
    assert seam(target, target, torch.zeros(1, 1, 1, 4)).isnan()


def test_specks_are_what_the_truth_is_not_as_rough_as():
    generator = torch.Generator().manual_seed(0)
    target = 0.5 + 0.02 * torch.randn(1, 3, 40, 40, generator=generator)
    hole = torch.zeros(1, 1, 40, 40)
    hole[..., 10:30, 10:30] = 1
    speckled = target.clone()
    speckled[..., 12:30:4, 12:30:4] += 0.4  # 25 of the 400 pixels; their neighbours' Laplacian grows by 0.4, too
    assert specks_percent(speckled, target, hole).item() == pytest.approx(100 * (25 + 96) / 400, abs=1)
    assert specks_percent(speckled, speckled, hole).item() <= 1
    outside = torch.where(hole > 0, target, torch.rand(target.shape, generator=generator))
    inner = F.avg_pool2d(hole, 3, 1, 1) == 1
    assert specks_percent(outside, target, inner) == specks_percent(target, target, inner), "outside must not count"
    assert specks_percent(target * 0 + 0.5, target, hole).item() == 0
    assert specks_percent(target, target, 0 * hole).isnan()


@pytest.mark.parametrize("kind", ["luma", "colour"])
def test_specks_of_luma_and_of_colour_count(kind):
    """Red up, green down in proportion to their luma: colour alone."""
    step = torch.tensor([0.2, 0.2, 0.2] if kind == "luma" else [0.2, -0.2 * 0.299 / 0.587, 0.0]).view(1, 3, 1, 1)
    target = torch.full((2, 3, 20, 20), 0.5)
    restored = target.clone()
    restored[1:, :, 10:11, 10:11] += step
    assert specks_percent(restored, target, torch.ones(2, 1, 20, 20)).tolist() == [0, pytest.approx(5 / 4)]


def test_luma_is_that_of_scikit_image():
    color = pytest.importorskip("skimage.color")
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    assert luma(picture, gray=False) == pytest.approx(color.rgb2ycbcr(picture)[..., 0], abs=1e-4)
    assert luma(np.full((1, 1, 3), 200, np.uint8), gray=True) == pytest.approx(200)


def test_perceptual_distance_is_the_package_s_own():
    found = load_perceptual("auto", "cpu")
    if not isinstance(found, Perceptual) or not found.name.startswith("ST-LPIPS"):
        pytest.skip(f"no ST-LPIPS: {found}")
    stlpips = pytest.importorskip("stlpips_pytorch.stlpips")
    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    a, b = torch.rand(2, 1, 3, 64, 64)
    assert found.distance(a, b) == pytest.approx(network(2 * a - 1, 2 * b - 1).item(), abs=1e-4)
    assert found.distance(a, a) == 0


def test_no_distance_is_a_reason_not_an_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "stlpips_pytorch", None)
    monkeypatch.setattr("pconv_train.evaluation.perceptual._TRUNK", "nothing")
    assert "st-lpips cannot be had" in load_perceptual("auto", "cpu")
    with pytest.raises(ValueError, match="st-lpips cannot be had"):
        load_perceptual("st-lpips", "cpu")


def test_inception_s_divergence_is_that_of_its_classes(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "m.inception_v3(weights=" in load_inception("cpu")
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False).eval()  # random, in place of the published weights
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)  # or hardly anything of the picture arrives at the end
    network.fc.weight.data *= 10
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "inception_v3_google-0cc3c7bd.pth")
    found, (a, b) = load_inception("cpu"), torch.rand(2, 1, 3, 80, 75)
    network.transform_input = True  # as the published weights have it
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        large = [F.interpolate(picture, (299, 299), mode="bilinear", antialias=True) for picture in (b, a)]
        p, q = (network((picture - mean) / std)[0].double().softmax(0) for picture in large)
    assert found.distance(a, b) == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-2)
    assert found.distance(a, b) > 1e-3
    assert found.distance(a, a) == 0


def test_nearest_enlargement_is_consistent(photos):
    problem = UpscalePair(photos / "p0.png", "set").load()
    assert problem.image.shape == (10, 12, 3)
    restored = BUILDERS["nearest"](Method("n", "nearest"), MACHINE)(problem.image, None)
    figures = measure(problem, compose(problem, restored), ())
    assert figures["consistency"] == pytest.approx(0, abs=1e-4)
    assert figures["psnr"] < measure(problem, problem.target, ())["psnr"] == 100


def test_sizes_are_cut_to_a_multiple_of_four(tmp_path):
    Image.new("L", (47, 38)).save(tmp_path / "odd.png")
    problem = UpscalePair(tmp_path / "odd.png", "set").load()
    assert problem.target.shape == (36, 44, 3)
    assert problem.gray


def test_photos_are_reduced_and_given_as_jpegs(photos):
    plain, asked = UpscalePair(photos / "p0.png", "set"), UpscalePair(photos / "p0.png", "set", 40, 50)
    problem = asked.load()
    assert problem.target.shape == (32, 40, 3)  # of 40×48
    reduced = Image.fromarray(problem.target).resize((10, 8), Image.Resampling.BICUBIC)
    assert np.array_equal(problem.image, compress(np.asarray(reduced), 50))
    assert not np.array_equal(problem.image, reduced)
    assert asked.identity[:3] == plain.identity != asked.identity
    assert UpscalePair(photos / "p0.png", "set", 4000).load().target.shape == plain.load().target.shape  # none enlarged


def test_a_cropped_jpeg_shows_the_same_with_blocks_that_begin_elsewhere(photos):
    whole, cropped = (UpscalePair(photos / "p0.png", "set", quality=50, cropped=crop) for crop in (False, True))
    assert np.array_equal(whole.load().target, cropped.load().target)
    assert not np.array_equal(whole.load().image, cropped.load().image)
    assert whole.identity != cropped.identity
    digest = hashlib.sha256((photos / "p0.png").read_bytes()).digest()
    left, top = 1 + digest[0] % 15, 1 + digest[1] % 15
    assert cropped.identity[-2:] == [left, top]
    reduced = UpscalePair(photos / "p0.png", "set").load().image
    assert np.array_equal(cropped.load().image, compress(reduced, 50, left, top))


@pytest.mark.parametrize(("name", "published"), [("set5", 28.42), ("set14", 26.00)])
def test_the_protocol_gives_the_published_bicubic_figures(shared_data, name, published):
    bicubic = BUILDERS["bicubic"](Method("b", "bicubic"), MACHINE)
    found = []
    for pair in upscale_pairs([shared_data / "eval" / name], None, 0):
        problem = pair.load()
        found.append(measure(problem, bicubic(problem.image, None), ())["psnr"])
    assert np.mean(found) == pytest.approx(published, abs=0.02)
