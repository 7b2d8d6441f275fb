"""Pixels in real GIMP: nothing outside the selection changes, in the layer's own format."""

import numpy as np
import pytest
from cases import CURVES, DEPTHS, DTYPES, HEIGHT, WIDTH, case, native, photo, selection, to_encoded, to_linear

MATRIX = [
    case(f"{depth}-{curve}-{base}-{alpha}", precision=f"{depth}_{curve}", base=base, alpha=alpha)
    for depth in DEPTHS
    for curve in CURVES
    for base in ("RGB", "GRAY")
    for alpha in (False, True)
    if curve != "PERCEPTUAL" or (base == "RGB" and alpha)
]
SHAPES = [
    *(case(name, alpha=True) for name in ("islands", "islands-hidden", "corners", "borders")),
    case("icc", profile=True),
    case("icc-float", profile=True, precision="FLOAT_LINEAR", alpha=True),
    *(
        case(f"quadrant{x}{y}", offsets=[x, y], canvas=[WIDTH + 8, HEIGHT + 6], alpha=True)
        for x in (-9, 11)
        for y in (-7, 10)
    ),
    case("small-layer", size=[40, 30], offsets=[20, 14]),
    case("large-layer", size=[WIDTH + 30, HEIGHT + 20], offsets=[-13, -9]),
    case("soft"),
    case("soft-alpha", alpha=True),
    case("soft-float", precision="FLOAT_LINEAR"),
    case("text", extra="text", alpha=True),
    case("clear", alpha=True, selection=False),
    case("clear-partly", alpha=True, selection=False, offsets=[-3, -2]),
    case("borders-large", size=[WIDTH + 30, HEIGHT + 20], offsets=[-30, -22], settings={"grow": 9}),
    case("grow", settings={"grow": 3}),
    case("feather", settings={"feather": 6.0}),
    case("grow-offset", settings={"grow": 4, "feather": 3.0}, offsets=[-9, 5], precision="FLOAT_NON_LINEAR"),
]
OUTPUTS = [
    case("soft-new", settings={"output": "new"}, offsets=[4, -3]),
    case("soft-new-mask", settings={"output": "new-mask"}, offsets=[4, -3]),
    case("soft-here", offsets=[4, -3]),
    case("locked-new", extra="locked", settings={"output": "new"}),
    case("gray16-new", base="GRAY", precision="U16_NON_LINEAR", settings={"output": "new", "grow": 2}),
]
REFUSED = {
    "group": "group",
    "locked": "locked",
    "locked group": "locked",
    "mask": "layer mask is selected",
    "indexed": "indexed",
    "nothing": "Select one layer",
    "two": "Select one layer: 2",
    "floating": "floating selection",
}
DISTURBED = {
    "move": "moved",
    "resize": "resized",
    "delete": "deleted",
    "select": "selection was changed",
    "deselect": "selection was changed",
    "convert": "converted",
    "lock": "locked",
    "paint": "painted on",
    "close": "deleted",
}
MORE_REFUSALS = [
    case("nothing selected", selection=False),
    case("all", alpha=True),
    case("unknown model", settings={"model": "nobody"}),
    case("clear beyond the canvas", alpha=True, selection=False, offsets=[-6, 0]),
    case("beside", size=[10, 8], offsets=[-4, -4]),
    case("no address", settings={"server": "nowhere"}),
    case("no server", settings={"server": "127.0.0.1:9"}),
    case("not finite", extra="not finite", precision="FLOAT_LINEAR", spoiled=[33, 10]),
]
# GIMP's merge computes in float32: 0 · infinity is not a number, and what is no number spreads.
BRIGHT = [
    *(case(f"bright-{depth}", precision=f"{depth}_LINEAR", alpha=depth != "FLOAT") for depth in ("HALF", "FLOAT")),
    case("bright-new", precision="FLOAT_LINEAR", settings={"output": "new"}),
]
FAR = [
    case(f"{where}-{depth}", extra="not finite", precision=f"{depth}_LINEAR", spoiled=spoiled, settings={"context": 6})
    for depth in ("HALF", "FLOAT", "DOUBLE")
    for where, spoiled in (("within", [35, 28]), ("far", [2, 2]))
]
NEW_KINDS = [case(extra, extra=extra, size=[60, 50], canvas=[60, 50]) for extra in ("vector", "link")]
NEW_KINDS += [
    case(f"{extra} above", extra=extra, size=[60, 50], canvas=[60, 50], settings={"output": "new"})
    for extra in ("vector", "link")
]
ALL = [
    *MATRIX,
    *SHAPES,
    *OUTPUTS,
    *MORE_REFUSALS,
    *BRIGHT,
    *FAR,
    *(case(f"refuse {extra}", extra=extra) for extra in REFUSED),
    *(case(f"disturb {how}", disturb=how) for how in DISTURBED),
]


def stem(name):
    return name.split("-")[0]


def prepare(folder, cases):
    """Write what the cases need."""
    for one in cases:
        pixels = photo(*one["size"])
        if stem(one["name"]) == "bright":
            pixels[..., :3] = 6 * pixels[..., :3] - 2
        if one["name"] == "islands-hidden":
            pixels[pixels[..., 3] == 0, :3] = 0, 1, 0
        (folder / f"{one['name']}.in").write_bytes(pixels.tobytes())
        (folder / f"{one['name']}.sel").write_bytes(selection(stem(one["name"]), *one["canvas"]).tobytes())


@pytest.fixture(scope="module")
def results(gimp, version):
    cases = ALL + (NEW_KINDS if version != "3.0" else [])
    prepare(gimp.folder, cases)
    return gimp.run(cases)


def on_layer(values, one, size):
    """A selection of the canvas in the coordinates of the layer, 0 beyond the canvas."""
    out = np.zeros((size[1], size[0]), values.dtype)
    for y in range(size[1]):
        for x in range(size[0]):
            column, row = x + one["offsets"][0], y + one["offsets"][1]
            if 0 <= column < values.shape[1] and 0 <= row < values.shape[0]:
                out[y, x] = values[row, column]
    return out


def pair(folder, result, one):
    """Samples before and after, and the selection on the layer."""
    layer = next(layer for layer in result["layers"] if layer["name"] != "group")
    size = [layer["width"], layer["height"]]
    before, after = (native(folder / f"{one['name']}.{when}", result["format"], *size) for when in ("before", "after"))
    return before, after, on_layer(selection(stem(one["name"]), *one["canvas"]), one, size)


def assert_selection_is_as_it_was(folder, name):
    assert (folder / f"{name}.selafter").read_bytes() == (folder / f"{name}.selbefore").read_bytes()


@pytest.mark.parametrize("one", MATRIX + SHAPES, ids=lambda one: one["name"])
def test_outside_nothing_changes_and_inside_all_is_filled(gimp, results, one):
    result = results[one["name"]]
    assert (result["status"], result["message"]) == ("success", "")
    before, after, values = pair(gimp.folder, result, one)
    if not one["selection"]:
        x, y = -np.minimum(one["offsets"], 0)
        values = np.where(before[..., -1] == 0, 255, 0)
        values[:y] = values[:, :x] = 0  # beyond the canvas
    reach = one["settings"].get("grow", 0) + 2 * int(one["settings"].get("feather", 0))
    inside = grown(values > 0, reach)
    assert inside.any()
    assert before[~inside].tobytes() == after[~inside].tobytes()
    if one["extra"] != "text":
        assert (before[inside] != after[inside]).any(-1).mean() > (0.8 if not reach else 0.3)
    assert_selection_is_as_it_was(gimp.folder, one["name"])
    assert result["dirty"]
    assert max(result["progress"]) == 1
    assert len(result["layers"]) == 1
    if one["alpha"] and one["extra"] != "text":
        dtype = DTYPES[result["format"].split()[1]]
        opaque = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
        filled = after[values == 255][:, -1].astype(float)
        assert (abs(filled / opaque - 1) < 1e-6).all()  # GIMP merges in float32, which has not all of u32


def test_colours_hidden_under_transparency_do_not_show_in_the_fill(gimp, results):
    one, other = (next(one for one in SHAPES if one["name"] == name) for name in ("islands", "islands-hidden"))
    (before, after, values), (before_hidden, after_hidden, _) = (
        pair(gimp.folder, results[c["name"]], c) for c in (one, other)
    )
    assert (before != before_hidden).any()
    assert np.array_equal(after[values == 255], after_hidden[values == 255])


def grown(mask, reach):
    """Every pixel that is near one of the mask, at most."""
    for _ in range(reach):
        wide = np.pad(mask, 1)
        mask = np.any([wide[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)], axis=0)
    return mask


def test_growing_fills_more(gimp, results):
    one = next(one for one in SHAPES if one["name"] == "grow")
    before, after, values = pair(gimp.folder, results["grow"], one)
    changed = (before != after).any(-1)
    assert changed[grown(values > 0, 1)].mean() > 0.9
    assert not changed[~grown(values > 0, 3)].any()


def test_a_text_layer_becomes_pixels(results):
    assert results["text"]["rasterized"]


def full_strength(gimp):
    """The fill itself: the pixels of the new layer that has the selection as its mask."""
    layer = np.frombuffer((gimp.folder / "soft-new-mask.layer0").read_bytes(), np.float32)
    return layer.reshape(*box_of_fill()[2:][::-1], 4)


def box_of_fill():
    rows, columns = np.nonzero(on_layer(selection("soft"), {"offsets": [4, -3]}, [WIDTH, HEIGHT]))
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def test_soft_edges_are_blended_once_in_linear_light(gimp, results):
    one = next(one for one in OUTPUTS if one["name"] == "soft-here")
    before, after, values = pair(gimp.folder, results["soft-here"], one)
    x, y, width, height = box_of_fill()
    part = np.s_[y : y + height, x : x + width]
    share = values[part][..., None] / 255
    fill = full_strength(gimp)[..., :3]
    blend = 255 * to_encoded(to_linear(before[part] / 255) * (1 - share) + to_linear(fill) * share)
    assert abs(after[part].astype(float) - blend)[share[..., 0] > 0].max() <= 1
    bent = 255 * (before[part] / 255 * (1 - share) + fill * share)
    assert abs(bent - blend).max() > 3  # the test can tell


@pytest.mark.parametrize("name", ["soft-new", "soft-new-mask", "locked-new", "gray16-new"])
def test_a_new_layer_leaves_the_old_one_alone(gimp, results, name):
    one = next(one for one in OUTPUTS if one["name"] == name)
    result = results[name]
    assert (result["status"], result["message"]) == ("success", "")
    assert (gimp.folder / f"{name}.before").read_bytes() == (gimp.folder / f"{name}.after").read_bytes()
    assert_selection_is_as_it_was(gimp.folder, name)
    new, old = result["layers"]
    assert (new["name"], old["name"]) == ("photo Partial Conv Inpaint", "photo")
    assert new["mask"] == (name == "soft-new-mask")
    pixels = np.frombuffer((gimp.folder / f"{name}.layer0").read_bytes(), np.float32)
    pixels = pixels.reshape(new["height"], new["width"], 4)
    if name.startswith("soft"):
        x, y, width, height = box_of_fill()
        assert [new[key] for key in ("x", "y", "width", "height")] == [x + 4, y - 3, width, height]
        values = on_layer(selection("soft"), one, [WIDTH, HEIGHT])[y : y + height, x : x + width]
        if name == "soft-new":
            assert abs(pixels[..., 3] * 255 - values).max() <= 0.51
        else:
            mask = np.frombuffer((gimp.folder / f"{name}.mask0").read_bytes(), np.uint8)
            assert np.array_equal(mask.reshape(values.shape), values)
            assert (pixels[values > 0][:, 3] == 1).all()


@pytest.mark.parametrize("one", BRIGHT[:2] + FAR, ids=lambda one: one["name"])
def test_bright_colours_and_no_numbers_outside_are_kept(gimp, results, one):
    assert (results[one["name"]]["status"], results[one["name"]]["message"]) == ("success", "")
    before, after, values = pair(gimp.folder, results[one["name"]], one)
    assert before[values == 0].tobytes() == after[values == 0].tobytes()
    colours = after[values > 0][:, :3]
    assert np.isfinite(colours).all()
    assert (before[values == 0][:, :3] > 1).any() or one["extra"]
    assert (before[values > 0] != after[values > 0]).any(-1).mean() > 0.8


@pytest.mark.parametrize("extra", ["vector", "link"])
def test_vectors_and_links(gimp, results, version, extra):
    if version == "3.0":
        pytest.skip("of GIMP 3.2")
    for name, layers in ((extra, 1), (f"{extra} above", 2)):
        one, result = next(one for one in NEW_KINDS if one["name"] == name), results[name]
        assert (result["status"], result["message"], len(result["layers"])) == ("success", "", layers)
        assert result["rasterized"] == (layers == 1)
        old = result["layers"][-1]
        files = [(gimp.folder / f"{name}.{when}").read_bytes() for when in ("before", "after")]
        before, after = (native_of(data, result["format"], old) for data in files)
        inside = on_layer(selection("blob", *one["canvas"]), {"offsets": [old["x"], old["y"]]}, before.shape[1::-1])
        assert before[inside == 0].tobytes() == after[inside == 0].tobytes()
        assert (before[inside > 0] != after[inside > 0]).any() == (layers == 1)


def native_of(data, encoding, layer):
    return np.frombuffer(data, DTYPES[encoding.split()[1]]).reshape(layer["height"], layer["width"], -1)


@pytest.mark.parametrize("extra", REFUSED)
def test_what_cannot_be_filled_is_said_and_left_alone(gimp, results, extra):
    refused(gimp, results, f"refuse {extra}", REFUSED[extra])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing selected", "Nothing is selected"),
        ("all", "Everything is selected"),
        ("clear beyond the canvas", "Nothing is selected"),
        ("unknown model", "nobody"),
        ("beside", "does not touch the layer"),
        ("no address", "is no address"),
        ("no server", "pconv-server serve"),
        ("not finite", "finite"),
    ],
)
def test_what_is_wrong_is_said(gimp, results, name, words):
    refused(gimp, results, name, words)


def refused(gimp, results, name, words):
    result = results[name]
    assert result["status"] == "refused"
    assert words in result["message"]
    assert not result["dirty"]
    assert (gimp.folder / f"{name}.before").read_bytes() == (gimp.folder / f"{name}.after").read_bytes()
    assert_selection_is_as_it_was(gimp.folder, name)


@pytest.mark.parametrize("how", DISTURBED)
def test_the_user_may_edit_meanwhile(gimp, results, how):
    result = results[f"disturb {how}"]
    assert result["status"] == "refused"
    assert DISTURBED[how] in result["message"]
    if how in ("move", "select", "deselect", "lock"):
        name = f"disturb {how}"
        assert (gimp.folder / f"{name}.before").read_bytes() == (gimp.folder / f"{name}.after").read_bytes()
