from dataclasses import replace

import pytest
import torch
from pconv import PConvUNet, PConvUNetConfig, fold_batch_norm, load_checkpoint, save_checkpoint
from pconv.layers import ResidualBlock
from pconv_train.warm_start import with_blocks

CONFIG = PConvUNetConfig((6, 8, 8), (5, 3, 3), noise=True)


def network(config=CONFIG):
    torch.manual_seed(0)
    return PConvUNet(config).eval()


def picture(side=40):
    hole = torch.zeros(1, 1, side, side)
    hole[..., 10:30, 12:28] = 1
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)), hole


def randomize(net):
    """Give the blocks something to do."""
    with torch.no_grad():
        for block in (b for stage in net.blocks for b in stage):
            block.last.weight.normal_(0, 0.1)
            block.last.bias.normal_(0, 0.1)
    return net


@pytest.mark.parametrize("partial", [True, False])
def test_a_network_that_gets_blocks_goes_on_as_it_was_and_learns(partial):
    before, (image, hole) = network(replace(CONFIG, partial=partial)), picture()
    deep = with_blocks(before, (0, 2))
    assert (before.config.blocks, deep.config.blocks) == ((), (0, 2))
    output = deep(image, hole)
    assert torch.equal(output, before(image, hole))
    output.square().mean().backward()
    assert all(block.last.weight.grad.abs().max() > 0 for block in deep.blocks[1])
    assert not torch.equal(randomize(deep)(image, hole), output)


@torch.no_grad()
def test_what_is_not_valid_stays_zero():
    block = ResidualBlock(4)
    block.last.weight.normal_()
    block.last.bias.fill_(1)
    valid = torch.zeros(1, 1, 6, 6)
    valid[..., :3, :] = 1
    features = torch.rand(1, 4, 6, 6) * valid
    assert (block(features, valid)[..., 3:, :] == 0).all()
    torch.testing.assert_close(block(features, valid)[..., :3, :], block(features, None)[..., :3, :])


@torch.no_grad()
def test_folded_and_saved_it_is_the_same(tmp_path):
    deep, (image, hole) = randomize(network(replace(CONFIG, blocks=(1, 2)))), picture()
    torch.testing.assert_close(fold_batch_norm(deep)(image, hole), deep(image, hole), atol=1e-4, rtol=0)
    save_checkpoint(tmp_path / "deep.safetensors", deep)
    assert torch.equal(load_checkpoint(tmp_path / "deep.safetensors")(image, hole), deep(image, hole))


@pytest.mark.parametrize("blocks", [(1, 1, 1), (-1,)])
def test_blocks_that_do_not_fit_are_refused(blocks):
    with pytest.raises(ValueError, match="at most 2 numbers of blocks"):
        replace(CONFIG, blocks=blocks)
