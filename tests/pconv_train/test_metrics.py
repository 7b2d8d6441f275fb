import numpy as np
import pytest
import torch
from pconv_train.metrics import l1_percent, psnr, ssim

skimage_metrics = pytest.importorskip("skimage.metrics", reason="the reference comes with the extra `eval`")


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    target = rng.random((2, 3, 40, 33))
    return np.clip(target + rng.normal(0, 0.1, target.shape), 0, 1), target


def test_metrics_agree_with_scikit_image(pair):
    restored, target = pair
    a, b = torch.from_numpy(restored), torch.from_numpy(target)
    for n in range(2):
        wanted = skimage_metrics.structural_similarity(
            restored[n], target[n], channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert ssim(a, b)[n].item() == pytest.approx(wanted, abs=1e-4)
        ratio = skimage_metrics.peak_signal_noise_ratio(target[n], restored[n], data_range=1)
        assert psnr(a, b)[n].item() == pytest.approx(ratio, abs=1e-4)
        assert l1_percent(a, b)[n].item() == pytest.approx(100 * np.abs(restored[n] - target[n]).mean(), rel=1e-6)


def test_equal_pictures_are_perfect():
    picture = torch.rand(1, 3, 16, 16)
    assert l1_percent(picture, picture).item() == 0
    assert psnr(picture, picture).item() == float("inf")
    assert ssim(picture, picture).item() == pytest.approx(1)


def test_ssim_of_a_picture_below_its_window_is_refused():
    with pytest.raises(ValueError, match="at least 11×11"):
        ssim(torch.rand(1, 3, 10, 40), torch.rand(1, 3, 10, 40))
