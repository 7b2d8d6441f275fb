import shutil

import grpc
import numpy as np
import pytest
import torch
from pconv import CheckpointError, PConvUNet, PConvUNetConfig, save_checkpoint
from pconv_api import Box, Texture
from pconv_server.devices import Device
from pconv_server.engine import Engine
from pconv_server.errors import CancelledJobError, RequestError
from pconv_server.models import ModelFolder
from pconv_server.rasters import decode_hole, decode_image, encode_hole, encode_image, split, to_samples, to_tensor
from serving import CPU, blob, picture

FORMATS = [np.uint8, np.uint16, np.float32]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
class TestRasters:
    def test_images_survive_the_wire(self, dtype, channels):
        image = picture(channels=channels, dtype=dtype)
        raster = b"".join(split(encode_image(image)))
        number = {np.uint8: 1, np.uint16: 2, np.float32: 3}[dtype]
        assert decode_image(raster, 56, 40, channels, number).tobytes() == image.tobytes()

    def test_samples_survive_the_network_s_floats(self, dtype, channels):
        image = picture(channels=channels, dtype=dtype).clip(0, None)
        if dtype is np.float32:
            image = image.clip(0, 1)
        assert np.array_equal(to_samples(to_tensor(image), channels, image.dtype), image)

    def test_known_pixels_come_back_byte_for_byte(self, client, dtype, channels):
        image, hole = picture(channels=channels, dtype=dtype), blob()
        [filled] = client.inpaint((56, 40), [(Box(0, 0, 56, 40), image, hole)])
        assert filled.dtype == dtype
        assert filled[~hole].tobytes() == image[~hole].tobytes()
        assert (filled[hole] != image[hole]).mean() > 0.9

    def test_what_lies_under_the_hole_never_matters(self, client, dtype, channels):
        image, hole = picture(channels=channels, dtype=dtype), blob()
        other = image.copy()
        other[hole] = np.nan if dtype is np.float32 else 77
        box = Box(0, 0, 56, 40)
        assert np.array_equal(*[client.inpaint((56, 40), [(box, x, hole)])[0] for x in (image, other)])

    def test_server_and_engine_give_the_same_bytes(self, client, engine, dtype, channels):
        image, hole = picture(channels=channels, dtype=dtype), blob()
        [filled] = client.inpaint((56, 40), [(Box(0, 0, 56, 40), image, hole)])
        assert filled.tobytes() == engine.inpaint(image, hole).tobytes()
        large = np.concatenate(list(client.upscale(image)))
        assert large.shape == (160, 224, channels)
        assert large.tobytes() == np.concatenate(list(engine.upscale(image))).tobytes()


def test_holes_survive_the_wire():
    assert np.array_equal(decode_hole(encode_hole(blob()), 56, 40), blob())
    assert set(encode_hole(blob())) == {0, 255}


def test_each_box_is_a_job_of_its_own(client, engine):
    image, hole = picture(100, 120), np.zeros((100, 120), bool)
    hole[5:9, 5:9] = hole[70:80, 100:110] = True
    boxes = [Box(0, 0, 30, 20), Box(80, 60, 40, 40)]

    def cut(array, box):
        return array[box.y : box.bottom, box.x : box.right]

    together = client.inpaint((120, 100), [(box, cut(image, box), cut(hole, box)) for box in boxes])
    for box, filled in zip(boxes, together, strict=True):
        assert np.array_equal(filled, engine.inpaint(np.ascontiguousarray(cut(image, box)), cut(hole, box)))


def test_progress_rises_to_one(client):
    seen = []
    client.inpaint((56, 40), [(Box(0, 0, 56, 40), picture(), blob())], progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert client.last.model == "inpaint"
    assert client.finished.compute_seconds > 0


def test_texture_can_be_cancelled_and_its_progress_counts(engine):
    seen = {}
    for texture in Texture:
        seen[texture] = []
        engine.inpaint(picture(), blob(), "", seen[texture].append, texture=texture)
        assert seen[texture] == sorted(seen[texture])
        assert seen[texture][-1] == 1
    assert len(seen[Texture.PHOTO]) > len(seen[Texture.NETWORK]) + 20

    def cancel(fraction):
        if fraction > 0.7:
            raise CancelledJobError

    with pytest.raises(CancelledJobError):
        engine.inpaint(picture(), blob(), "", cancel, texture=Texture.PHOTO)


def test_a_hole_for_upscaling_is_unknown_to_the_network(client):
    image, hole = picture(), blob()
    other = image.copy()
    other[hole] = 99
    first, second = (np.concatenate(list(client.upscale(x, hole))) for x in (image, other))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.concatenate(list(client.upscale(image))))


def test_the_model_s_factor_counts(client):
    assert np.concatenate(list(client.upscale(picture(), model="twice"))).shape == (80, 112, 3)


def test_results_of_many_bands_arrive_whole(client):
    image = picture(300, 400)
    large = np.concatenate(list(client.upscale(image)))
    assert large.shape == (1200, 1600, 3)


def test_one_pixel_pictures_work(client):
    image, hole = picture(1, 2), np.array([[True, False]])
    [filled] = client.inpaint((2, 1), [(Box(0, 0, 2, 1), image, hole)])
    assert np.array_equal(filled[:, 1], image[:, 1])
    assert np.concatenate(list(client.upscale(picture(1, 1)))).shape == (4, 4, 3)


def test_the_server_says_what_it_is(client, weights):
    info = client.info()
    assert (info.protocol_version, info.limits.pixels, info.limits.queue) == (1, 400_000_000, 16)
    assert info.devices[0].name == "cpu"
    listed = {model.name: model for model in client.models()}
    assert set(listed) == {"inpaint", "upscale", "twice"}
    assert listed["twice"].factor == 2
    assert listed["inpaint"].bytes == (weights / "inpaint.safetensors").stat().st_size
    assert len(listed["inpaint"].sha256) == 64


def test_reflection_and_health_are_on(client):
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    assert client.is_serving()
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    request = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [reply] = stub.ServerReflectionInfo(request, metadata=client._metadata)
    assert "pconv_api.v1.PConv" in {service.name for service in reply.list_services_response.service}


def test_loopback_never_goes_through_a_proxy(client, server, monkeypatch):
    from pconv_server.client import Client
    from pconv_server.connection import Connection
    from serving import TOKEN

    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Client(Connection(server["address"], TOKEN)) as fresh:
        assert fresh.info(timeout=5).protocol_version == 1


def test_a_model_can_be_asked_for_the_moment_its_file_appears(client, weights, models):
    path = weights / "late.safetensors"
    image, hole = picture(), blob()
    parts = [(Box(0, 0, 56, 40), image, hole)]
    with pytest.raises(grpc.RpcError, match="there is no model 'late'"):
        client.inpaint((56, 40), parts, model="late")
    try:
        shutil.copy(weights / "inpaint.safetensors", path)
        first = client.inpaint((56, 40), parts, model="late")
        torch.manual_seed(9)
        save_checkpoint(path, PConvUNet(PConvUNetConfig((8, 16), (5, 3))))  # replaced under way: the new one counts
        second = client.inpaint((56, 40), parts, model="late")
        assert not np.array_equal(first, second)
    finally:
        path.unlink(missing_ok=True)


def test_a_users_model_hides_the_default_of_the_same_name(weights, tmp_path):
    shutil.copy(weights / "inpaint.safetensors", tmp_path)
    folder = ModelFolder(tmp_path, default=weights)
    assert folder.find("", "inpaint").path == tmp_path / "inpaint.safetensors"
    assert not folder.find("", "inpaint").is_default
    assert folder.find("", "upscale").is_default


def test_a_refinement_model_is_used_for_wide_holes_alone(weights, tmp_path):
    for path in weights.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    engine = Engine(CPU, ModelFolder(tmp_path))
    image, narrow, wide = picture(256, 256), np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    narrow[40:60, 20:200] = True
    wide[40:200, 40:200] = True
    before = [engine.inpaint(image, hole, texture=Texture.NETWORK) for hole in (narrow, wide)]
    torch.manual_seed(3)
    save_checkpoint(tmp_path / "refine.safetensors", PConvUNet(PConvUNetConfig((8, 16), (5, 3))), "refine")
    fractions = []
    after = [engine.inpaint(image, hole, progress=fractions.append, texture=Texture.NETWORK) for hole in (narrow, wide)]
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])
    assert np.array_equal(after[1][~wide], image[~wide])
    assert all(0 <= fraction <= 1 for fraction in fractions)
    shutil.copy(weights / "inpaint.safetensors", tmp_path / "refine.safetensors")
    with pytest.raises(RequestError, match="'refine' was trained to inpaint"):
        engine.inpaint(image, wide)


def test_sixteen_bits_are_used(engine):
    """A fill of a 16-bit picture has more than 256 levels."""
    image = np.broadcast_to(np.linspace(0, 65535, 400).astype(np.uint16)[None, :, None], (60, 400, 3)).copy()
    hole = np.zeros((60, 400), bool)
    hole[20:40, 20:380] = True
    filled = engine.inpaint(image, hole)[hole]
    between = filled[(filled > 0) & (filled < 65535)]  # a network without training often leaves [0, 1]
    assert between.size > 1000
    assert (between % 257 != 0).mean() > 0.9


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(models, engine):
    image, hole = picture(dtype=np.float32).clip(0, 1), blob()
    on_cpu = engine.inpaint(image, hole, texture=Texture.NETWORK)  # a search turns least differences into others
    for precision, tolerance in (("fp32", 1e-3), ("bf16", 0.1), ("fp16", 0.02)):
        gpu = Engine(Device("cuda:0", precision), models)
        filled = gpu.inpaint(image, hole, texture=Texture.NETWORK)
        assert np.abs(filled - on_cpu).max() < tolerance
        assert filled[~hole].tobytes() == image[~hole].tobytes()
        assert np.concatenate(list(gpu.upscale(image))).shape == (160, 224, 3)
        gpu.release()


def test_bf16_networks_run_and_keep_known_pixels(models, engine):
    image, hole = picture(dtype=np.float32).clip(0, 1), blob()
    filled = Engine(Device("cpu", "bf16"), models).inpaint(image, hole, texture=Texture.NETWORK)
    assert np.abs(filled - engine.inpaint(image, hole, texture=Texture.NETWORK)).max() < 0.1
    assert filled[~hole].tobytes() == image[~hole].tobytes()


def test_weights_whose_body_is_damaged_are_named(weights, tmp_path):
    data = bytearray((weights / "inpaint.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "bent.safetensors").write_bytes(data)
    engine = Engine(CPU, ModelFolder(tmp_path, default=tmp_path / "none"))
    with pytest.raises(RequestError, match=r"the model 'bent' cannot be used: .*damaged"):
        engine.inpaint(picture(), blob(), "bent")


def test_weights_that_do_not_fit_their_config_are_named(models, monkeypatch):
    def load(path):
        raise CheckpointError(f"{path} does not fit its config")

    monkeypatch.setattr("pconv_server.engine.load_checkpoint", load)
    with pytest.raises(RequestError, match=r"the model 'inpaint' cannot be used: .*does not fit its config"):
        Engine(CPU, models).inpaint(picture(), blob())


def test_a_hole_along_the_border_takes_no_more_windows_than_one_inside(models, monkeypatch):
    windows, image, hole = [], picture(340, 340), np.zeros((340, 340), bool)
    engine = Engine(CPU, models)
    hole[:12] = hole[-12:] = hole[:, :12] = hole[:, -12:] = True
    network = engine._network(models.find("", "inpaint"), CPU)
    network.register_forward_pre_hook(lambda _, arguments: windows.append(arguments))
    engine.inpaint(image, hole, texture=Texture.NETWORK)
    assert len(windows) == 1
