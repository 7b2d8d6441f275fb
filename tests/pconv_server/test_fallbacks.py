"""Out of memory, half precision out of range: right pixels or a clear error, and the server lives on."""

import numpy as np
import pytest
import torch
from pconv import PConvUNet, filling, tiles
from pconv_api import Box, Texture
from pconv_server.devices import Device
from pconv_server.engine import Engine
from pconv_server.errors import LimitError, NotFiniteError
from pconv_server.fallbacks import CPU, default_memory, window_side
from serving import picture, running

HOLE = np.zeros((200, 300), bool)
HOLE[60:70, 20:280] = True
IMAGE = picture(200, 300)


class Accelerator(Device):
    """Another name for the CPU: no accelerator is at hand."""

    @property
    def is_cuda(self):
        return False


GPU = Accelerator("cpu:0", "fp32")


@pytest.fixture
def small_windows(monkeypatch):
    """Several windows in small pictures."""
    monkeypatch.setattr(filling, "HALO", 16)
    monkeypatch.setattr(filling, "TILE", 128)
    monkeypatch.setattr(tiles, "TILE", 32)


@pytest.fixture
def fail_at(monkeypatch):
    """Let the given calls of a network, counted from 0, fail; returns the sizes that it was given."""
    forward = PConvUNet.forward

    def inject(error, when=lambda number, side: True):
        given = []

        def failing(self, image, hole):
            given.append(max(image.shape[-2:]))
            if when(len(given) - 1, given[-1]):
                raise error
            return forward(self, image, hole)

        monkeypatch.setattr(PConvUNet, "forward", failing)
        return given

    return inject


def upscaled(engine):
    return np.concatenate(list(engine.upscale(IMAGE[:70, :60])))


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError(),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_out_of_memory_at_any_window_makes_smaller_ones(small_windows, models, fail_at, number, error):
    wanted = Engine(CPU, models).inpaint(IMAGE, HOLE, texture=Texture.NETWORK)
    engine, told = Engine(CPU, models), []
    engine.notice = lambda code, text: told.append((code, text))
    fail_at(error, lambda call, side: call == number)
    filled = engine.inpaint(IMAGE, HOLE, texture=Texture.NETWORK)
    assert filled[~HOLE].tobytes() == IMAGE[~HOLE].tobytes()
    assert told == [("smaller-tiles", "cpu ran out of memory: the work goes on in tiles of 64 px")]
    assert np.abs(filled.astype(int) - wanted)[HOLE].mean() < 12  # of random weights; other windows, near the same


@pytest.mark.parametrize("number", range(6))
def test_out_of_memory_at_any_tile_of_an_enlargement_changes_no_pixel(small_windows, models, fail_at, number):
    wanted = upscaled(Engine(CPU, models))
    engine, told = Engine(CPU, models), []
    engine.notice = lambda code, text: told.append(code)
    fail_at(ERRORS[0], lambda call, side: call == number)
    result = upscaled(engine)
    assert told == ["smaller-tiles"]
    assert np.abs(result.astype(int) - wanted).max() <= 1  # rounding


def test_then_the_cpu_helps_out(small_windows, models, monkeypatch):
    devices, forward = [], PConvUNet.forward
    engine, told = Engine(GPU, models), []
    engine.notice = lambda code, text: told.append(code)

    def failing(self, image, hole):
        devices.append(current[0])
        if current[0] == "cpu:0":
            raise ERRORS[0]
        return forward(self, image, hole)

    current, network = [""], engine._network

    def noting(entry, device):
        current[0] = device.name
        return network(entry, device)

    monkeypatch.setattr(engine, "_network", noting)
    monkeypatch.setattr(PConvUNet, "forward", failing)
    filled = engine.inpaint(IMAGE, HOLE, texture=Texture.NETWORK)
    assert told == ["smaller-tiles", "cpu"]
    assert set(devices) == {"cpu:0", "cpu"}
    monkeypatch.undo()
    monkeypatch.setattr(filling, "HALO", 16)
    assert np.array_equal(filled, Engine(CPU, models, memory=1).inpaint(IMAGE, HOLE, texture=Texture.NETWORK))


def test_no_memory_at_all_is_a_sentence_and_the_next_job_runs(small_windows, models, fail_at):
    engine = Engine(CPU, models)
    given = fail_at(ERRORS[1])
    with pytest.raises(LimitError, match=r"out of memory, even in tiles of 64 px on the CPU.*can't allocate"):
        engine.inpaint(IMAGE, HOLE)
    assert len(given) == 2
    with pytest.raises(LimitError, match="tiles of 16 px"):
        upscaled(engine)
    fail_at(ERRORS[1], lambda call, side: False)
    assert (engine.inpaint(IMAGE, HOLE)[~HOLE] == IMAGE[~HOLE]).all()


def test_other_errors_are_not_taken_for_a_lack_of_memory(models, fail_at):
    given = fail_at(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        Engine(CPU, models).inpaint(IMAGE, HOLE)
    assert len(given) == 1


def test_what_half_precision_cannot_hold_is_computed_in_float32(models, monkeypatch):
    wanted = Engine(CPU, models).inpaint(IMAGE, HOLE)
    engine, told, forward = Engine(Device("cpu", "bf16"), models), [], PConvUNet.forward
    engine.notice = lambda code, text: told.append((code, text))

    def overflowing(self, image, hole):
        output = forward(self, image, hole)
        return output / 0 if next(self.parameters()).dtype == torch.bfloat16 else output

    monkeypatch.setattr(PConvUNet, "forward", overflowing)
    assert np.array_equal(engine.inpaint(IMAGE, HOLE), wanted)
    [(code, text)] = told
    assert code == "float32"
    assert "torch.bfloat16 was not enough" in text


def test_numbers_that_are_none_in_float32_too_are_an_error(models, monkeypatch):
    monkeypatch.setattr(PConvUNet, "forward", lambda self, image, hole: image * torch.nan)
    with pytest.raises(NotFiniteError, match="weights may be damaged"):
        Engine(CPU, models).inpaint(IMAGE, HOLE)


def test_too_little_memory_for_texture_keeps_the_networks_fill(models, monkeypatch):
    engine, told, calls = Engine(CPU, models), [], []
    engine.notice = lambda code, text: told.append(code)

    def failing(*arguments, **options):
        calls.append(1)
        raise ERRORS[1]

    monkeypatch.setattr("pconv_server.engine.add_texture", failing)
    filled = engine.inpaint(IMAGE, HOLE)
    assert np.array_equal(filled, engine.inpaint(IMAGE, HOLE, texture=Texture.NETWORK))
    assert (told, calls) == (["no-texture"], [1])


@pytest.mark.parametrize(("memory", "area"), [(700 << 10, 1 << 10), (1 << 40, 1 << 20), (None, 766958)])
def test_texture_is_searched_in_as_much_as_fits_the_memory(models, monkeypatch, memory, area):
    seen = []
    monkeypatch.setattr("pconv_server.engine.add_texture", lambda filled, *_, **options: seen.append(options) or filled)
    Engine(CPU, models, memory).inpaint(IMAGE, HOLE)
    assert [options["area"] for options in seen] == [area]


def test_a_finished_request_leaves_nothing_in_memory(models, config_home):
    import gc
    import weakref

    from pconv_server.client import Client
    from pconv_server.connection import Connection
    from pconv_server.service import Inpainting
    from serving import TOKEN, wait_for

    engine, seen = Engine(CPU, models), []
    call = Inpainting.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inpainting, "__call__", lambda self, *a: seen.append(weakref.ref(self)) or call(self, *a))
        with running([engine]) as box, Client(Connection(box["address"], TOKEN)) as client:
            client.inpaint((300, 200), [(Box(0, 0, 300, 200), IMAGE, HOLE)])
            wait_for(lambda: gc.collect() is not None and seen[0]() is None)


def test_the_client_hears_of_it_and_the_server_lives_on(small_windows, models, fail_at, config_home):
    from pconv_server.client import Client
    from pconv_server.connection import Connection
    from serving import TOKEN

    fail_at(ERRORS[0], lambda call, side: call == 1)
    with running([Engine(CPU, models)]) as box, Client(Connection(box["address"], TOKEN)) as client:
        told = []
        client.notice = told.append
        [filled] = client.inpaint((300, 200), [(Box(0, 0, 300, 200), IMAGE, HOLE)])
        assert told == ["cpu ran out of memory: the work goes on in tiles of 64 px"]
        assert filled[~HOLE].tobytes() == IMAGE[~HOLE].tobytes()
        assert client.is_serving()


def test_the_budget_decides_on_the_tiles(models, fail_at):
    given = fail_at(ERRORS[0], lambda call, side: False)
    image, hole = picture(900, 900), np.zeros((900, 900), bool)
    hole[100:104, 100:800] = True
    for memory, largest in ((None, 900), (32 << 20, 372), (1, 320)):
        del given[:]
        Engine(CPU, models, memory).inpaint(image, hole)
        assert max(given) == largest
    config = models.find("", "inpaint").info.config
    assert window_side(config, default_memory(CPU), torch.float16) > window_side(config, 1 << 28, torch.float32)
