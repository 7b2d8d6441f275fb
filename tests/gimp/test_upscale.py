"""Upscale in real GIMP: every size ×4, every pixel as `pconv` makes it, everything else as GIMP scales it."""

import numpy as np
import pytest
from cases import CURVES, DEPTHS, DTYPES, case, photo, selection, to_encoded, to_linear
from pconv_server.client import Client
from pconv_server.connection import Connection
from pconv_server.engine import Engine
from pconv_server.requests import Limits
from serving import CPU, TOKEN, running

SIZE = [26, 19]


def enlarging(name, **changes):
    return case(name, **{"operation": "upscale", "size": SIZE, "canvas": SIZE, "selection": False} | changes)


MATRIX = [
    enlarging(f"{depth}-{curve}-{base}-{alpha}", precision=f"{depth}_{curve}", base=base, alpha=alpha)
    for depth in DEPTHS
    for curve in CURVES
    for base in ("RGB", "GRAY")
    for alpha in (False, True)
    if curve == "NON_LINEAR" or (base == "RGB") == alpha
]
RICH = enlarging("rich", extra="rich", alpha=True, selection=True, size=[26, 30], offsets=[-6, 5], canvas=[40, 28])
ONE_LAYER = [
    enlarging("one", settings={"scope": "layer"}, offsets=[5, -3], canvas=[40, 28], extra="rich"),
    enlarging("two", settings={"scope": "layer"}, extra="two"),
    enlarging("a-group", settings={"scope": "layer"}, extra="group"),
]
OTHERS = [
    enlarging("script", procedure=True, alpha=True),
    enlarging("twice", settings={"model": "twice"}),
    enlarging("icc", profile=True),
    enlarging("text", extra="text", alpha=True),
    enlarging("bright", precision="FLOAT_LINEAR"),
    enlarging("effect", extra="effect"),
]
NEW_KINDS = [enlarging(extra, extra=extra, canvas=[60, 50]) for extra in ("vector", "link")]
REFUSED = {
    "locked": "locked",
    "locked group": "locked",
    "indexed": "indexed",
    "floating": "floating selection",
    "empty image": "no layer",
}
DISTURBED = {
    "move": "moved",
    "resize": "resized",
    "delete": "deleted",
    "convert": "converted",
    "lock": "locked",
    "paint": "painted on",
    "add": "added or removed",
    "close": "deleted",
}
ERRORS = {
    "unknown": (enlarging("unknown", settings={"model": "nobody"}), "nobody"),
    "no server": (enlarging("no server", settings={"server": "127.0.0.1:9"}), "pconv-server serve"),
    "mask": (enlarging("mask", extra="mask", settings={"scope": "layer"}), "layer mask is selected"),
    "nothing": (enlarging("nothing", extra="nothing", settings={"scope": "layer"}), "No layer is selected"),
    "long": (enlarging("long", size=[131_073, 1], canvas=[131_073, 1]), "at most 524288"),
    "clear": (enlarging("clear", alpha=True, size=[6, 6], canvas=[6, 6]), "transparent"),
    "not finite": (enlarging("not finite", extra="not finite", precision="FLOAT_LINEAR", spoiled=[3, 4]), "finite"),
}
ALL = [
    *MATRIX,
    RICH,
    *ONE_LAYER,
    *OTHERS,
    *(one for one, _ in ERRORS.values()),
    *(enlarging(f"refuse {extra}", extra=extra) for extra in REFUSED),
    *(enlarging(f"disturb {how}", disturb=how, size=[40, 19], canvas=[40, 19]) for how in DISTURBED),
]


def prepare(folder, cases):
    for one in cases:
        pixels = photo(*one["size"]) * (3 if one["name"] == "bright" else 1)
        (folder / f"{one['name']}.in").write_bytes(pixels.tobytes())
        (folder / f"{one['name']}.sel").write_bytes(selection("blob", *one["canvas"]).tobytes())


@pytest.fixture(scope="module")
def results(gimp, version):
    cases = ALL + (NEW_KINDS if version != "3.0" else [])
    prepare(gimp.folder, cases)
    return gimp.run(cases)


def samples(folder, name, when, layer, numbers, encoding):
    width, height = numbers[layer][:2]
    array = np.frombuffer((folder / f"{name}.{when}.{layer}").read_bytes(), DTYPES[encoding.split()[1]])
    return array.reshape(height, width, -1)


def split(array, encoding):
    """Colours and alpha, which may be None."""
    return (array[..., :-1], array[..., -1]) if encoding.split()[0].endswith("A") else (array, None)


def travelling(colours, encoding):
    """As the plug-in sends them: integers as they are, all else as sRGB floats."""
    model, component = encoding.split()
    if component in ("u8", "u16") and ("'" in model or "~" in model):
        return colours
    white = 1.0 if np.dtype(DTYPES[component]).kind == "f" else np.iinfo(DTYPES[component]).max
    values = colours.astype(float) / white
    return (values if "'" in model or "~" in model else to_encoded(values)).astype(np.float32)


def by_pconv(server, colours, alpha, model=""):
    """What the other door makes of it."""
    clear = None if alpha is None else alpha == 0
    hole = clear if clear is not None and clear.any() and not clear.all() else None
    with Client(Connection(server["address"], TOKEN)) as client:
        return np.concatenate(list(client.upscale(np.ascontiguousarray(colours), hole, model)))


def assert_enlarged(gimp, server, result, name, layer="photo", model=""):
    encoding = result["format"]
    before = samples(gimp.folder, name, "old", layer, result["before"], encoding)
    after = samples(gimp.folder, name, "new", layer, result["after"], encoding)
    colours, alpha = split(before, encoding)
    sent = travelling(colours, encoding)
    expected = by_pconv(server, sent, alpha, model)
    found, _ = split(after, encoding)
    assert found.shape == expected.shape
    if sent.dtype == colours.dtype and sent.dtype != np.float32:
        assert np.array_equal(found, expected)
    else:
        bend = (lambda values: values) if "'" in encoding or "~" in encoding else to_linear
        step = {"u8": 1.01 / 255, "half": 2e-3}.get(encoding.split()[1], 1e-4)
        assert abs(bend(travelling(found, encoding)) - bend(expected)).max() <= step


@pytest.mark.parametrize("one", [*MATRIX, OTHERS[0]], ids=lambda one: one["name"])
def test_pixels_are_those_of_pconv(gimp, server, results, one):
    result = results[one["name"]]
    assert (result["status"], result["message"]) == ("success", "")
    assert result["after"]["size"] == [4 * value for value in SIZE]
    assert result["after"]["photo"] == [*(4 * value for value in SIZE), 0, 0]
    assert_enlarged(gimp, server, result, one["name"])
    assert result["dirty"]


def test_everything_is_four_times_as_large(gimp, server, results):
    result = results["rich"]
    assert (result["status"], result["message"]) == ("success", "")
    before, after = result["before"], result["after"]
    for name in ("size", "resolution", "photo", "child0", "child1", "clear", "guides", "paths"):
        assert np.allclose(after[name], 4 * np.array(before[name])), name
    assert before["resolution"] == [72, 96]
    assert after["point"][-1] == 4 * before["point"][-1]
    assert len(after) == len(before)
    assert_enlarged(gimp, server, result, "rich")
    for layer in ("child0", "child1"):
        assert_enlarged(gimp, server, result | {"format": "R'G'B'A u8"}, "rich", layer)


def test_gimp_scales_what_is_no_colour(gimp, results):
    result = results["rich"]
    assert result["gimp"] == result["after"] | {"resolution": [72, 96]}
    for name in ("photo.mask", "channel", "selection", "clear"):
        mine, its = ((gimp.folder / f"rich.{when}.{name}").read_bytes() for when in ("new", "gimp"))
        assert mine == its, name
        assert any(mine) or name == "clear"
    for layer in ("photo", "child0"):
        arrays = [samples(gimp.folder, "rich", when, layer, result["after"], "R'G'B'A u8") for when in ("new", "gimp")]
        assert np.array_equal(arrays[0][..., 3], arrays[1][..., 3])


def test_progress_runs_once_over_all_layers(results):
    fractions = results["rich"]["progress"]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert len({fraction for fraction in fractions if fraction < 0.9}) > 2


def test_selected_layers_alone(gimp, server, results):
    one, two, group = (results[one["name"]] for one in ONE_LAYER)
    assert one["status"] == "refused"  # the one that is selected there has no pixels
    assert "transparent" in one["message"]
    for result, names in ((two, ("photo", "photo copy")), (group, ("photo",))):
        assert (result["status"], result["message"]) == ("success", "")
        assert result["after"]["size"] == SIZE
        for name in names:
            width, height, x, y = result["before"][name]
            grown = [4 * width, 4 * height, x + (width - 4 * width) // 2, y + (height - 4 * height) // 2]
            assert np.allclose(result["after"][name], grown, atol=1)
            assert_enlarged(gimp, server, result | {"format": "R'G'B' u8"}, "two" if names[1:] else "a-group", name)


def test_the_factor_is_the_model_s(gimp, server, results):
    assert results["twice"]["after"]["photo"] == [2 * SIZE[0], 2 * SIZE[1], 0, 0]
    assert_enlarged(gimp, server, results["twice"], "twice", model="twice")


def test_a_profile_bends_nothing(gimp, server, results):
    assert_enlarged(gimp, server, results["icc"], "icc")


def test_text_becomes_pixels_with_a_note(results, version):
    result = results["text"]
    assert result["status"] == "success"
    assert "“pconv”" in result["message"]
    assert "Now pixels" in result["message"]
    [name] = [name for name in result["after"] if name.startswith("pconv")]
    assert result["after"][name] == [4 * value for value in result["before"][name]]
    assert result["rasterized"]


@pytest.mark.parametrize("extra", ["vector", "link"])
def test_vectors_and_links_become_pixels(gimp, server, results, version, extra):
    if version == "3.0":
        pytest.skip("of GIMP 3.2")
    result = results[extra]
    assert (result["status"], "Now pixels" in result["message"]) == ("success", True)
    assert result["rasterized"]
    [name] = [name for name in result["after"] if (gimp.folder / f"{extra}.new.{name}").exists()]
    assert_enlarged(gimp, server, result, extra, name)


def test_effects_stay_above_the_pixels_with_a_note(gimp, server, results):
    assert "Layer effects keep their settings" in results["effect"]["message"]
    assert_enlarged(gimp, server, results["effect"], "effect")


def test_colours_beyond_white_are_kept(gimp, server, results):
    assert results["bright"]["status"] == "success"
    assert_enlarged(gimp, server, results["bright"], "bright")


@pytest.mark.parametrize("extra", REFUSED)
def test_what_cannot_be_enlarged_is_said_and_left_alone(gimp, results, extra):
    refused(gimp, results[f"refuse {extra}"], f"refuse {extra}", REFUSED[extra])


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_said(gimp, results, name):
    refused(gimp, results[name], name, ERRORS[name][1])


def refused(gimp, result, name, words):
    assert result["status"] == "refused"
    assert words in result["message"]
    assert not result["dirty"]
    assert result["before"] == result["after"]
    for old in gimp.folder.glob(f"{name}.old.*"):
        assert old.read_bytes() == old.with_name(old.name.replace(".old.", ".new.")).read_bytes()


@pytest.mark.parametrize("how", DISTURBED)
def test_the_user_may_edit_meanwhile(results, how):
    result = results[f"disturb {how}"]
    assert result["status"] == "refused"
    assert DISTURBED[how] in result["message"]
    if how not in ("close", "delete"):
        assert result["after"]["size"] == result["before"]["size"]


def test_too_large_is_refused_before_anything_is_computed(make_gimp, models):
    class Counting(Engine):
        calls = 0

        def upscale(self, *words):
            self.calls += 1
            return super().upscale(*words)

    engine = Counting(CPU, models)
    with running([engine], limits=Limits(pixels=26 * 19 - 1)) as box:
        gimp = make_gimp(box["address"])
        cases = [enlarging("large", extra="two", size=[10, 10]), enlarging("too large")]
        prepare(gimp.folder, cases)
        results = gimp.run(cases)
    assert results["large"]["status"] == "success"
    assert engine.calls == 2
    refused(gimp, results["too large"], "too large", "megapixels")
