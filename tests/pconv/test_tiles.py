import pytest
import torch
from pconv import PConvUNet, PConvUNetConfig, upscale, upscale_tiles
from pconv.tiles import receptive_radius

torch.set_num_threads(1)


def network(config):
    torch.manual_seed(0)
    return PConvUNet(config).eval()


@pytest.mark.parametrize(
    "config",
    [
        PConvUNetConfig((8, 16), (5, 3)),
        PConvUNetConfig((4, 6, 8, 8), (7, 5, 3, 3)),
        PConvUNetConfig((5,), (3,)),
        PConvUNetConfig((8, 16), (5, 3), noise=True),
        PConvUNetConfig((8, 16), (5, 3), upsampling="bilinear"),
    ],
)
@pytest.mark.parametrize(("height", "width", "tile"), [(50, 61, 16), (1, 90, 24), (33, 7, 8), (40, 40, 64)])
def test_tiles_equal_the_whole_picture(config, height, width, tile):
    net = network(config)
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    hole = (torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(2)) < 0.3).float()
    for unknown in (None, hole):
        rows = list(upscale_tiles(net, image, 4, unknown, tile=tile))
        torch.testing.assert_close(torch.cat(rows, 2), upscale(net, image, 4, unknown), atol=1e-5, rtol=0)


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "binomial"])
def test_an_output_pixel_looks_no_further_than_the_radius(upsampling):
    config = PConvUNetConfig((4, 6, 8), (7, 5, 3), upsampling=upsampling)
    net, size = network(config), 160
    image, hole = torch.rand(1, 3, size, size), torch.zeros(1, 1, size, size)
    with torch.inference_mode():
        before = net(image, hole)
        image[..., 80, 80] += 1
        changed = (net(image, hole) != before).any(1)[0].nonzero()
    reach = (changed - 80).abs().max().item()
    assert reach <= receptive_radius(config) <= 2 * reach


def test_progress_rises_to_one_and_can_stop_the_work():
    net, image, seen = network(PConvUNetConfig((4,), (3,))), torch.rand(1, 3, 9, 9), []
    list(upscale_tiles(net, image, 4, tile=4, progress=seen.append))
    assert seen == sorted(seen)
    assert len(seen) == 9
    assert seen[-1] == 1

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(upscale_tiles(net, image, 4, tile=4, progress=stop))


def test_unknown_pixels_never_matter():
    net = network(PConvUNetConfig((8, 16), (5, 3)))
    image, hole = torch.rand(1, 3, 9, 11), torch.zeros(1, 1, 9, 11)
    hole[..., 2:5, 3:6] = 1
    other = torch.where(hole > 0, torch.full((), torch.nan), image)
    assert torch.equal(upscale(net, image, 4, hole), upscale(net, other, 4, hole))
