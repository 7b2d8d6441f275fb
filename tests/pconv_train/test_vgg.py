from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from pconv_train.config import ConfigError
from pconv_train.vgg import load_vgg


def test_features_are_torchvision_s_pools(vgg_file):
    models = pytest.importorskip("torchvision.models")
    reference = models.vgg16(weights=None).features[:17].eval()
    reference.load_state_dict(
        {k.removeprefix("features."): v for k, v in safetensors.torch.load_file(vgg_file).items()}
    )
    image = torch.rand(2, 3, 32, 40)
    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    with torch.no_grad():
        found = load_vgg(vgg_file)(image)
        for pool, ours in zip((5, 10, 17), found, strict=True):
            torch.testing.assert_close(ours, reference[:pool](x), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_picture_but_not_the_weights(vgg_file):
    vgg = load_vgg(vgg_file)
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(x.sum() for x in vgg(image)).backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in vgg.parameters())


def test_state_dicts_of_torch_save_are_read_without_pickled_code(vgg_file, tmp_path):
    torch.save(safetensors.torch.load_file(vgg_file), tmp_path / "vgg.pth")
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_vgg(tmp_path / "vgg.pth")(image)[2], load_vgg(vgg_file)(image)[2])


def test_other_weights_are_refused(vgg_file, tmp_path):
    weights = safetensors.torch.load_file(vgg_file)
    del weights["features.12.bias"]
    safetensors.torch.save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match=r"features.12.bias should have shape \(256,\), found nothing"):
        load_vgg(tmp_path / "part.safetensors")


def test_no_download_says_both_ways(monkeypatch):
    models = pytest.importorskip("torchvision.models")

    def refuse(*_, **__):
        raise URLError("unreachable")

    monkeypatch.setattr(models.VGG16_Weights, "get_state_dict", refuse)
    with pytest.raises(ConfigError, match=r"run once with a network connection.*--vgg FILE"):
        load_vgg(None)
