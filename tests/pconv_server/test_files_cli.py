import os
import subprocess
import sys

import numpy as np
import pytest
from pconv_api import plan_jobs
from pconv_server import engine, files_cli
from pconv_server.connection import Connection, write_connection
from pconv_server.pictures import Photo, read_photo, write_photo
from PIL import Image
from serving import CPU, TOKEN, blob, picture
from typer.testing import CliRunner


@pytest.fixture
def run(weights, config_home, tmp_path, monkeypatch):
    """Run `pconv` in a folder with a photo and a mask, in-process, in the precision of the `server` fixture."""
    monkeypatch.setattr(engine, "choose_devices", lambda: [CPU])
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture()).save("photo.png")
    Image.fromarray(blob().astype(np.uint8) * 255).save("mask.png")

    def run(*arguments, local=True):
        extra = ["--in-process", "--models", str(weights)] if local else []
        return CliRunner().invoke(files_cli.app, [str(argument) for argument in arguments] + extra)

    return run


def fine(result):
    assert result.exit_code == 0, result.output
    return result


def test_inpaint_fills_the_hole_and_nothing_else(run):
    fine(run("inpaint", "photo.png", "--hole", "mask.png", "-o", "out.png"))
    filled = read_photo_pixels("out.png")
    assert np.array_equal(filled[~blob()], picture()[~blob()])
    assert (filled[blob()] != picture()[blob()]).any(axis=1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_bytes_through_a_server_and_in_this_process(run, server, tmp_path, dtype, channels):
    alpha = np.full(
        (40, 56), {"u": np.iinfo(np.uint16).max if dtype is np.uint16 else 255, "f": 1}[np.dtype(dtype).kind]
    )
    photo = Photo(picture(channels=channels, dtype=dtype), alpha.astype(dtype) if channels == 3 else None)
    write_photo(tmp_path / "deep.tif", photo)
    write_connection(Connection(server["address"], TOKEN))
    for command in (["inpaint", "deep.tif", "--hole", "mask.png"], ["upscale", "deep.tif"]):
        fine(run(*command, "-o", "here.tif"))
        result = fine(run(*command, "-o", "there.tif", local=False))
        assert "in this process" not in result.output
        assert (tmp_path / "here.tif").read_bytes() == (tmp_path / "there.tif").read_bytes()
        (tmp_path / "here.tif").unlink()
        (tmp_path / "there.tif").unlink()
    fine(run("inpaint", "deep.tif", "--hole", "mask.png", "-o", "known.tif"))
    after = read_photo(tmp_path / "known.tif")
    assert after.pixels[~blob()].tobytes() == photo.pixels[~blob()].tobytes()


def test_texture_may_be_the_network_s_alone(run, server, tmp_path):
    write_connection(Connection(server["address"], TOKEN))
    Image.fromarray(np.tile(picture()[:8, :8], (5, 7, 1))).save("photo.png")  # patches that fit, which noise has not
    for texture in ("photo", "network"):
        command = ["inpaint", "photo.png", "--hole", "mask.png", "--texture", texture]
        fine(run(*command, "-o", f"{texture}-texture.png"))
        fine(run(*command, "-o", "there.png", "--force", local=False))
        assert (tmp_path / f"{texture}-texture.png").read_bytes() == (tmp_path / "there.png").read_bytes()
    fine(run("inpaint", "photo.png", "--hole", "mask.png", "-o", "default.png"))
    first, second, default = (
        read_photo_pixels(f"{name}.png") for name in ("photo-texture", "network-texture", "default")
    )
    assert np.array_equal(default, first)
    assert (first[blob()] != second[blob()]).any()
    assert np.array_equal(first[~blob()], second[~blob()])


def test_upscale_is_four_times_as_large_and_keeps_print_size(run, tmp_path):
    Image.fromarray(picture()).save("dpi.png", dpi=(100, 100))
    fine(run("upscale", "dpi.png", "-o", "large.png"))
    photo = read_photo(tmp_path / "large.png")
    assert photo.size == (224, 160)
    assert photo.dpi == pytest.approx((400, 400), rel=1e-3)


def test_opaque_alpha_stays_opaque_and_clear_colours_do_not_bleed(run, tmp_path):
    pixels, alpha = picture(), np.full((40, 56), 255, np.uint8)
    alpha[:, :20] = 0
    write_photo(tmp_path / "a.png", Photo(pixels, alpha))
    pixels[:, :20] = 0
    write_photo(tmp_path / "b.png", Photo(pixels, alpha))
    for name in "ab":
        fine(run("upscale", f"{name}.png", "-o", f"{name}4.png"))
    first, second = read_photo(tmp_path / "a4.png"), read_photo(tmp_path / "b4.png")
    assert np.array_equal(first.pixels, second.pixels)
    assert (first.alpha[:, 92:] == 255).all()
    assert (first.alpha[:, :68] == 0).all()


def test_clear_colours_do_not_bleed_into_a_fill(run, tmp_path):
    pixels, alpha = picture(), np.full((40, 56), 255, np.uint8)
    alpha[:, :11] = 0  # beside the hole
    for name in "ab":
        write_photo(tmp_path / f"{name}.png", Photo(pixels, alpha))
        fine(run("inpaint", f"{name}.png", "--hole", "mask.png", "-o", f"{name}-filled.png"))
        pixels = pixels.copy()
        pixels[:, :11] = 0
    first, second = (read_photo(tmp_path / f"{name}-filled.png") for name in "ab")
    assert np.array_equal(first.pixels[blob()], second.pixels[blob()])
    assert np.array_equal(second.pixels[~blob()], read_photo(tmp_path / "b.png").pixels[~blob()])
    assert np.array_equal(second.alpha, np.where(blob(), 255, alpha))


def test_the_hole_may_be_the_transparent_part(run, tmp_path):
    alpha = np.where(blob(), 0, 255).astype(np.uint8)
    alpha[30, 30] = 128  # half there is kept
    write_photo(tmp_path / "clear.png", Photo(picture(), alpha))
    fine(run("inpaint", "clear.png", "--hole", "alpha", "-o", "out.png"))
    after = read_photo(tmp_path / "out.png")
    assert np.array_equal(after.pixels[~blob()], picture()[~blob()])
    assert (after.alpha[blob()] == 255).all()
    assert after.alpha[30, 30] == 128
    assert "has no transparency" in run("inpaint", "photo.png", "--hole", "alpha", "-o", "no.png").output


def test_half_of_a_float_alpha_is_one_half(run, tmp_path):
    alpha = np.ones((40, 56), np.float32)
    alpha[10, 10:13] = 0.49, 0.5, 0.999
    photo = Photo(picture(dtype=np.float32), alpha)
    write_photo(tmp_path / "clear.tif", photo)
    fine(run("inpaint", "clear.tif", "--hole", "alpha", "-o", "out.tif"))
    changed = (read_photo_pixels("out.tif") != photo.pixels).any(axis=2)
    assert np.argwhere(changed).tolist() == [[10, 10]]


@pytest.mark.parametrize("local", [True, False])
def test_what_the_enlarged_picture_would_not_fit_is_refused_first(run, server, monkeypatch, local):
    write_connection(Connection(server["address"], TOKEN))
    Image.fromarray(picture(1, 4096)).save("wide.png")
    fine(run("upscale", "wide.png", "--model", "twice", "-o", "twice.webp", local=local))

    def compute(*_):
        raise RuntimeError("computed")

    monkeypatch.setattr(engine.Engine, "upscale", compute)
    result = run("upscale", "wide.png", "-o", "out.webp", local=local)
    assert result.exit_code == 1
    assert ".webp holds up to 16383 px a side, it would have 16384 × 4 px; choose .png or .tif" in result.output


def test_the_hole_may_be_a_rectangle(run):
    fine(run("inpaint", "photo.png", "--hole", "50,30,100,5", "-o", "out.png"))
    changed = (read_photo_pixels("out.png") != picture()).any(axis=2)
    ys, xs = changed.nonzero()
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (50, 30, 55, 34)
    assert (
        "within the picture of 56 × 40 px" in run("inpaint", "photo.png", "--hole", "56,0,1,1", "-o", "no.png").output
    )


@pytest.mark.parametrize("local", [True, False])
def test_islands_with_disjoint_contexts_are_filled_as_if_alone(run, server, tmp_path, local):
    write_connection(Connection(server["address"], TOKEN))
    photo = picture(height=260, width=400)
    Image.fromarray(photo).save("large.png")
    islands = [np.s_[0:12, 0:20], np.s_[100:130, 320:330], np.s_[255:, 90:104]]  # two at borders
    alone, together = photo.copy(), np.zeros(photo.shape[:2], np.uint8)

    def fill(mask):
        Image.fromarray(mask).save("islands.png")
        fine(run("inpaint", "large.png", "--hole", "islands.png", "-o", "out.png", "--force", local=local))
        return read_photo_pixels("out.png")

    for island in islands:
        mask = np.zeros_like(together)
        mask[island] = together[island] = 255
        alone[island] = fill(mask)[island]
    assert len(plan_jobs(together.tobytes(), 400, 260)) == 3
    assert np.array_equal(fill(together), alone)
    assert (alone != photo).any(axis=2)[together > 0].all()


def test_a_rotated_photo_is_filled_where_one_sees_the_hole(run, tmp_path):
    stored = np.rot90(picture()).copy()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it
    Image.fromarray(stored).save("turned.png", exif=exif)
    fine(run("inpaint", "turned.png", "--hole", "mask.png", "-o", "upright.png"))
    fine(run("inpaint", "photo.png", "--hole", "mask.png", "-o", "plain.png"))
    assert np.array_equal(read_photo_pixels("upright.png"), read_photo_pixels("plain.png"))


def test_nothing_is_overwritten_without_force(run, tmp_path):
    (tmp_path / "out.png").write_bytes(b"precious")
    result = run("inpaint", "photo.png", "--hole", "mask.png", "-o", "out.png")
    assert result.exit_code == 1
    assert "out.png exists; give --force" in result.output
    assert (tmp_path / "out.png").read_bytes() == b"precious"
    fine(run("inpaint", "photo.png", "--hole", "mask.png", "-o", "out.png", "--force"))
    assert read_photo_pixels("out.png").shape == (40, 56, 3)


def test_a_failing_file_does_not_stop_a_folder(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(picture()).save(folder / name)
    (folder / "b.png").write_bytes(b"not a picture")
    Image.fromarray(picture()).save(folder / "b2.png", dpi=(5e7, 5e7))  # PNG does not hold four times as much
    (folder / "notes.txt").write_text("ignored")
    result = run("upscale", "in", "-o", "out")
    assert result.exit_code == 1
    assert "2 of 4 pictures done" in result.output
    assert "b.png: cannot read" in result.output
    assert "b2.png: cannot write" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_globs_and_folders_of_masks(run, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("x1", "x2"):
        Image.fromarray(picture()).save(f"{name}.jpg", quality=100)
        Image.fromarray(blob().astype(np.uint8) * 255).save(masks / f"{name}.png")
    fine(run("inpaint", "x*.jpg", "--hole", "masks", "-o", "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x1.jpg", "x2.jpg"]
    assert run("upscale", "y*.jpg", "-o", "out").exit_code == 2
    assert run("upscale", "x1.jpg", "x2.jpg", "-o", "out.png").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.png", "--hole", "mask.png", "-o", "o.png"], "there is no picture at none.png"),
        (["photo.png", "--hole", "none.png", "-o", "o.png"], "there is no picture at none.png"),
        (["photo.png", "--hole", "mask.png", "-o", "o.xyz"], "unknown ending '.xyz'"),
        (["photo.png", "--hole", "mask.png", "-o", "o.png", "--model", "nonesuch"], "no model 'nonesuch'"),
        (["photo.png", "--hole", "0,0,56,40", "-o", "o.png"], "nothing is left to go by"),
        (["photo.png", "--hole", "small.png", "-o", "o.png"], "is 3 × 2 px, the picture 56 × 40 px"),
    ],
)
def test_mistakes_get_a_sentence_through_every_door(run, server, tmp_path, arguments, sentence):
    Image.fromarray(np.zeros((2, 3), np.uint8)).save("small.png")
    write_connection(Connection(server["address"], TOKEN))
    for local in (True, False):
        result = run("inpaint", *arguments, local=local)
        assert result.exit_code == 1, result.output
        assert sentence in result.output
        assert not (tmp_path / "o.png").exists()


def test_an_empty_hole_gives_the_same_picture(run):
    Image.fromarray(np.zeros((40, 56), np.uint8)).save("empty.png")
    fine(run("inpaint", "photo.png", "--hole", "empty.png", "-o", "same.png"))
    assert np.array_equal(read_photo_pixels("same.png"), picture())


def test_a_wrong_token_and_a_missing_server_get_a_sentence(run, server):
    write_connection(Connection(server["address"], "wrong"))
    result = run("upscale", "photo.png", "-o", "o.png", local=False)
    assert result.exit_code == 1
    assert "the token is not this server's" in result.output
    result = run("upscale", "photo.png", "-o", "o.png", "--server", "127.0.0.1:9", local=False)
    assert result.exit_code == 2
    assert "no server answers at 127.0.0.1:9; start one with: pconv-server serve" in result.output


def test_the_client_side_does_without_torch():
    code = (
        "import sys, pconv_server.client, pconv_server.doors, pconv_server.files_cli, pconv_server.cli;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def read_photo_pixels(path):
    from pathlib import Path

    return read_photo(Path(path)).pixels
