from dataclasses import replace

import pytest
import torch
from pconv import PConvUNet, PConvUNetConfig, fold_batch_norm, load_checkpoint, save_checkpoint
from pconv.noise import PERIOD, random_map, stronger_numbers
from pconv_train.warm_start import with_noise, with_options, with_smooth_noise

CONFIG = PConvUNetConfig((6, 8, 8), (5, 3, 3))


def network(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return PConvUNet(config).eval()


def picture(side=40):
    hole = torch.zeros(1, 1, side, side)
    hole[..., 10:30, 12:28] = 1
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)), hole


@pytest.mark.parametrize("partial", [True, False])
@torch.no_grad()
def test_numbers_are_the_same_in_use_and_new_in_training(partial):
    noisy, (image, hole) = network(replace(CONFIG, noise=True, partial=partial)), picture()
    assert torch.equal(noisy(image, hole), noisy(image, hole))
    assert not torch.equal(noisy.train()(image, hole), noisy(image, hole))
    torch.manual_seed(3)
    first = noisy(image, hole)
    torch.manual_seed(3)
    assert torch.equal(noisy(image, hole), first)


@torch.no_grad()
def test_stronger_numbers_are_those_of_stronger_weights():
    noisy, (image, hole) = network(replace(CONFIG, noise=True)), picture()
    plain = noisy(image, hole)
    with stronger_numbers(2):
        stronger = noisy(image, hole)
    assert torch.equal(noisy(image, hole), plain)
    for stage in noisy.decoder[:-1]:
        stage.noise_strength *= 2
    assert torch.equal(noisy(image, hole), stronger)
    assert not torch.equal(stronger, plain)


@torch.no_grad()
def test_a_network_trained_without_numbers_goes_on_as_it_was():
    before, (image, hole) = network(), picture()
    noisy = with_noise(before)
    assert noisy.config.noise
    assert not before.config.noise
    assert not torch.equal(noisy(image, hole), before(image, hole))
    for name, parameter in noisy.named_parameters():
        if name.endswith("noise_strength"):
            parameter.zero_()
    torch.testing.assert_close(noisy(image, hole), before(image, hole), atol=1e-5, rtol=0)
    assert with_noise(noisy) is noisy


@pytest.mark.parametrize("training", [True, False])
def test_smooth_numbers_are_as_strong_and_without_the_finest_waves(training):
    torch.manual_seed(4)
    side = 64
    rough, smooth = (
        random_map(torch.zeros(1, 1, side, side), side, training, smooth)[0, 0] for smooth in (False, True)
    )
    assert smooth.shape == rough.shape
    assert smooth.std() == pytest.approx(1, abs=0.1)
    power = torch.fft.fft2(smooth).abs()
    assert power[: side // 4, : side // 4].mean() > 1.3 * side  # white noise has 0.9 of it
    if not training:  # what repeats has no seam: no wave of two places is left at all
        assert power[side // 2].max() < 1e-3
        assert power[:, side // 2].max() < 1e-3
        assert torch.fft.fft2(rough).abs()[side // 2].mean() > 0.5 * side
        twice = random_map(torch.zeros(1, 1, side, 2 * side), side, training, True)[0, 0]
        assert torch.equal(twice, torch.cat([smooth, smooth], 1))


@torch.no_grad()
def test_smooth_numbers_are_those_of_the_decoder_and_travel_with_the_checkpoint(tmp_path):
    rough, (image, hole) = network(replace(CONFIG, noise=True)), picture()
    smooth = with_options(rough, smooth_noise=True)
    assert not torch.equal(smooth(image, hole), rough(image, hole))
    assert all(torch.equal(value, rough.state_dict()[name]) for name, value in smooth.state_dict().items())
    save_checkpoint(tmp_path / "smooth.safetensors", smooth)
    assert torch.equal(load_checkpoint(tmp_path / "smooth.safetensors")(image, hole), smooth(image, hole))
    for net in (rough, smooth):
        for stage in net.decoder[:-1]:
            stage.noise_strength.zero_()
    assert torch.equal(smooth(image, hole), rough(image, hole))


@torch.no_grad()
def test_numbers_made_smooth_are_stronger_once():
    rough = network(replace(CONFIG, noise=True))
    smooth = with_smooth_noise(rough)
    assert smooth.config == replace(rough.config, smooth_noise=True)
    assert with_smooth_noise(smooth) is smooth
    before, after = rough.state_dict(), smooth.state_dict()
    strengths = [name for name in before if name.endswith("noise_strength")]
    assert strengths
    for name in before:
        torch.testing.assert_close(after[name], (1.3 if name in strengths else 1) * before[name], rtol=1e-6, atol=0)


@torch.no_grad()
def test_the_fourth_channel_says_how_strong_the_numbers_of_the_result_are():
    noisy, (image, hole) = with_noise(network()), picture()
    before = noisy(image, hole)
    noisy.decoder[-1].conv.bias[3] = 1
    grain = (noisy(image, hole) - before) / torch.tensor(CONFIG.std).view(1, 3, 1, 1)
    torch.testing.assert_close(grain[:, 0], grain[:, 2], atol=1e-5, rtol=0)
    assert grain.mean().abs() < 0.1
    assert 0.9 < grain.std() < 1.1


@torch.no_grad()
def test_folded_and_saved_it_is_the_same(tmp_path):
    noisy, (image, hole) = network(replace(CONFIG, noise=True)), picture()
    for stage in noisy.decoder[:-1]:
        stage.norm.running_mean.normal_()
        stage.norm.weight.uniform_(0.5, 2)
    folded = fold_batch_norm(noisy)
    assert folded.config.noise
    torch.testing.assert_close(folded(image, hole), noisy(image, hole), atol=1e-4, rtol=0)
    save_checkpoint(tmp_path / "noisy.safetensors", noisy)
    assert torch.equal(load_checkpoint(tmp_path / "noisy.safetensors")(image, hole), noisy(image, hole))


@pytest.mark.parametrize("fold", [False, True])
@torch.no_grad()
def test_what_is_not_valid_stays_zero(fold):
    noisy = network(replace(CONFIG, noise=True))
    stage = (fold_batch_norm(noisy) if fold else noisy).decoder[0]
    sources = [torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 8, 8)]
    valid = torch.zeros(1, 1, 8, 8)
    valid[..., :2] = 1
    features, known = stage(sources, [torch.zeros(1, 1, 8, 8), valid])
    assert (features[..., 3:] == 0).all()
    assert (known[..., 3:] == 0).all()
    assert (features[..., :2] != 0).any()


@torch.no_grad()
def test_windows_that_start_a_period_later_see_the_same_numbers():
    noisy, side = network(replace(CONFIG, noise=True)), 3 * PERIOD
    image, hole = torch.rand(1, 3, side, side), torch.zeros(1, 1, side, side)
    whole = noisy(image, hole)[..., PERIOD + 64 :, PERIOD + 64 :]
    window = noisy(image[..., PERIOD:, PERIOD:], hole[..., PERIOD:, PERIOD:])[..., 64:, 64:]
    torch.testing.assert_close(window, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("partial", [True, False])
@torch.no_grad()
def test_blocks_do_not_see_the_numbers_of_their_own_stage(partial):
    config = replace(CONFIG, noise=True, partial=partial, blocks=(1, 2))
    noisy = network(config)
    stage, blocks = noisy.decoder[0], list(noisy.blocks[0])
    for block in blocks:
        torch.nn.init.normal_(block.last.weight)
    sources = torch.rand(1, 8, 12, 12), torch.rand(1, 8, 12, 12)
    valids = [torch.ones(1, 1, 12, 12) for _ in sources]
    changes = []
    for strength in (0.0, 5.0):
        stage.noise_strength.fill_(strength)
        changes.append(stage(sources, valids, blocks=blocks)[0] - stage(sources, valids)[0])
    assert changes[0].abs().mean() > 0.1
    torch.testing.assert_close(changes[1], changes[0], atol=1e-4, rtol=0)
