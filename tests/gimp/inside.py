"""Runs inside of GIMP (python-fu-eval): builds the image of each case, runs the plug-in, and writes what came out.

Given: FOLDER, with cases.json. Pixels and selections come and go as raw files; test_*.py judge them.
"""
# ruff: noqa: F821 - python-fu-eval provides Gimp, Gegl, Babl, Gio

import json
import pathlib
import sys

FOLDER = pathlib.Path(FOLDER)
sys.path.insert(0, str(pathlib.Path(Gimp.directory()) / "plug-ins" / "pconv-inpaint"))
import loader  # noqa: E402

loader.use_vendored()
import failures  # noqa: E402
import inpainting  # noqa: E402
import wire  # noqa: E402

NOTHING = Gegl.AbyssPolicy.NONE
CODES = {"R'G'B'A float": 16, "Y u8": 1}


def rectangle(drawable):
    return Gegl.Rectangle.new(0, 0, drawable.get_width(), drawable.get_height())


def put(drawable, path, name):
    buffer = drawable.get_buffer()
    buffer.set(rectangle(drawable), name, (FOLDER / path).read_bytes())
    buffer.flush()
    drawable.update(0, 0, drawable.get_width(), drawable.get_height())


def dump(drawable, path, name=None):
    (FOLDER / path).write_bytes(bytes(drawable.get_buffer().get(rectangle(drawable), 1.0, name, NOTHING)))


def build(case):
    """An image with one layer, as the case says."""
    base = getattr(Gimp.ImageBaseType, case["base"])
    image = Gimp.Image.new_with_precision(*case["canvas"], base, getattr(Gimp.Precision, case["precision"]))
    kind = getattr(Gimp.ImageType, case["base"] + ("A" if case["alpha"] else "") + "_IMAGE")
    if case["profile"]:
        image.set_color_profile(Gimp.ColorProfile.new_rgb_adobe())
    layer = Gimp.Layer.new(image, "photo", *case["size"], kind, 100.0, Gimp.LayerMode.NORMAL)
    parent = None
    if case["extra"] in ("group", "locked group"):
        parent = Gimp.GroupLayer.new(image, "group")
        image.insert_layer(parent, None, 0)
    image.insert_layer(layer, parent, 0)
    layer.set_offsets(*case["offsets"])
    put(layer, case["name"] + ".in", "R'G'B'A float")
    if case["selection"]:
        put(image.get_selection(), case["name"] + ".sel", "Y u8")
    drawables = [layer]
    if case["extra"] == "group":
        drawables = [parent]
    elif case["extra"] == "locked group":
        parent.set_lock_content(True)
    elif case["extra"] == "locked":
        layer.set_lock_content(True)
    elif case["extra"] == "mask":
        mask = layer.create_mask(Gimp.AddMaskType.WHITE)
        layer.add_mask(mask)
        drawables = [mask]
    elif case["extra"] == "indexed":
        image.convert_indexed(Gimp.ConvertDitherType.NONE, Gimp.ConvertPaletteType.WEB, 8, False, False, "")
    elif case["extra"] == "text":
        image.remove_layer(layer)
        layer = Gimp.TextLayer.new(
            image, "pconv", Gimp.Font.get_by_name("DejaVu Sans") or Gimp.fonts_get_list("")[0], 18, Gimp.Unit.pixel()
        )
        image.insert_layer(layer, None, 0)
        drawables = [layer]
    elif case["extra"] == "nothing":
        drawables = []
    return image, layer, drawables


def disturb(image, layer, how):
    """What a user does while the server works."""
    if how == "move":
        layer.set_offsets(3, 3)
    elif how == "resize":
        layer.resize(layer.get_width() + 1, layer.get_height(), 0, 0)
    elif how == "delete":
        image.remove_layer(layer)
    elif how == "select":
        image.select_rectangle(Gimp.ChannelOps.REPLACE, 1, 1, 3, 3)
    elif how == "deselect":
        Gimp.Selection.none(image)
    elif how == "convert":
        image.convert_precision(Gimp.Precision.FLOAT_LINEAR)
    elif how == "lock":
        layer.set_lock_content(True)


def call_procedure(image, drawables, settings):
    """As a script does."""
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-pconv-inpaint")
    config = procedure.create_config()
    config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
    config.set_property("image", image)
    config.set_core_object_array("drawables", drawables)
    for name, value in settings.items():
        config.set_property(name, value)
    result = procedure.run(config)
    status = result.index(0)
    return status.value_nick, "" if status == Gimp.PDBStatusType.SUCCESS else str(result.index(1))


def call_directly(image, layer, drawables, case):
    """In this process, where a progress event can disturb."""
    news = []

    def progress(fraction):
        if case["disturb"] and not news:
            disturb(image, layer, case["disturb"])
        news.append(fraction)

    try:
        settings = inpainting.Settings(**case["settings"])
        inpainting.inpaint(image, drawables, settings, pathlib.Path(loader.FOLDER), wire.Events(progress=progress))
    except failures.Refusal as refusal:
        return "refused", str(refusal), news
    return "success", "", news


def run(case):
    name = case["name"]
    image, layer, drawables = build(case)
    dump(layer, name + ".before")
    dump(image.get_selection(), name + ".selbefore")
    image.clean_all()
    news = []
    if case["procedure"]:
        status, message = call_procedure(image, drawables, case["settings"])
    else:
        status, message, news = call_directly(image, layer, drawables, case)
    result = {"status": status, "message": message, "dirty": image.is_dirty(), "progress": news, "layers": []}
    if layer.is_valid() and layer.get_image():
        dump(layer, name + ".after")
        result["format"] = Babl.format_get_encoding(layer.get_format())
    dump(image.get_selection(), name + ".selafter")
    for index, other in enumerate(image.get_layers()):
        _, x, y = other.get_offsets()
        if not other.is_group():
            dump(other, f"{name}.layer{index}", "R'G'B'A float")
        mask = other.get_mask()
        if mask is not None:
            dump(mask, f"{name}.mask{index}", "Y u8")
        result["layers"].append(
            {
                "name": other.get_name(),
                "x": x,
                "y": y,
                "width": other.get_width(),
                "height": other.get_height(),
                "mask": mask is not None,
            }
        )
    if case["extra"] == "text":
        result["rasterized"] = not hasattr(layer, "is_rasterized") or layer.is_rasterized()
    image.delete()
    return result


results = {}
(FOLDER / "results.json").write_text("{}")
for case in json.loads((FOLDER / "cases.json").read_text()):
    results[case["name"]] = run(case)
    (FOLDER / "results.json").write_text(json.dumps(results))
