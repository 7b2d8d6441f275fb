"""Runs inside of GIMP (python-fu-eval): builds the image of each case, runs the plug-in, and writes what came out.

Given: FOLDER, with cases.json. Pixels and selections come and go as raw files; test_*.py judge them.
"""
# ruff: noqa: F821 - python-fu-eval provides Gimp, Gegl, Babl, Gio

import array
import json
import os
import pathlib
import sys
import time

FOLDER = pathlib.Path(FOLDER)
sys.path.insert(0, str(pathlib.Path(Gimp.directory()) / "plug-ins" / "pconv-inpaint"))
import loader  # noqa: E402

loader.use_vendored()
import failures  # noqa: E402
import inpainting  # noqa: E402
import layers  # noqa: E402
import upscaling  # noqa: E402
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
    elif case["extra"] == "floating":
        Gimp.edit_copy(drawables)
        drawables = [Gimp.edit_paste(layer, False)[0]]
    elif case["extra"] == "two":
        other = layer.copy()
        image.insert_layer(other, None, 0)
        other.set_offsets(-5, 30)
        drawables = [layer, other]
    elif case["extra"] == "empty image":
        image.remove_layer(layer)
        drawables = []
    elif case["extra"] in ("vector", "link"):
        image.remove_layer(layer)
        layer = vector_layer(image) if case["extra"] == "vector" else link_layer(image, case["name"])
        drawables = [layer]
    elif case["extra"] == "rich":
        drawables = enrich(image, layer)
    elif case["extra"] == "not finite":
        middle = Gegl.Rectangle.new(*case["spoiled"], 1, 1)
        layer.get_buffer().set(middle, "RGB float", array.array("f", [float("nan"), float("inf"), 2.0]).tobytes())
    return image, layer, drawables


def vector_layer(image):
    path = Gimp.Path.new(image, "path")
    path.bezier_stroke_new_ellipse(30, 25, 22, 17, 0)
    image.insert_path(path, None, 0)
    layer = Gimp.VectorLayer.new(image, path)
    image.insert_layer(layer, None, 0)
    layer.set_enable_fill(True)
    layer.set_enable_stroke(False)
    layer.refresh()
    return layer


def link_layer(image, name):
    """A layer that follows a file."""
    other = Gimp.Image.new(40, 36, Gimp.ImageBaseType.RGB)
    pixels = Gimp.Layer.new(other, "pixels", 40, 36, Gimp.ImageType.RGB_IMAGE, 100.0, Gimp.LayerMode.NORMAL)
    other.insert_layer(pixels, None, 0)
    pixels.get_buffer().set(rectangle(pixels), "R'G'B' u8", bytes(range(240)) * 18)
    file = Gio.File.new_for_path(str(FOLDER / f"{name}.xcf"))
    Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, other, file, None)
    other.delete()
    layer = Gimp.LinkLayer.new(image, file)
    image.insert_layer(layer, None, 0)
    layer.set_offsets(10, 8)
    return layer


def enrich(image, layer):
    """Put all into an image that there can be; returns the selected layers."""
    group = Gimp.GroupLayer.new(image, "group")
    image.insert_layer(group, None, 0)
    for number in range(2):
        child = Gimp.Layer.new(
            image, f"child{number}", 20 + number, 17, Gimp.ImageType.RGBA_IMAGE, 80.0, Gimp.LayerMode.MULTIPLY
        )
        image.insert_layer(child, group, 0)
        child.set_offsets(7 - 12 * number, 9)
        ramp = bytes((5 * x + 40 * number) % 256 for x in range(child.get_width() * 17 * 4))
        child.get_buffer().set(rectangle(child), "R'G'B'A u8", ramp)
    mask = layer.create_mask(Gimp.AddMaskType.WHITE)
    layer.add_mask(mask)
    mask.get_buffer().set(Gegl.Rectangle.new(3, 4, 10, 10), "Y u8", bytes(range(0, 200, 2)))
    clear = Gimp.Layer.new(image, "clear", 9, 8, Gimp.ImageType.RGBA_IMAGE, 100.0, Gimp.LayerMode.NORMAL)
    image.insert_layer(clear, None, 0)
    channel = Gimp.Channel.new(image, "channel", image.get_width(), image.get_height(), 50.0, Gegl.Color.new("red"))
    image.insert_channel(channel, None, 0)
    channel.get_buffer().set(Gegl.Rectangle.new(3, 4, 10, 10), "Y u8", bytes(range(0, 200, 2)))
    path = Gimp.Path.new(image, "path")
    path.bezier_stroke_new_moveto(3.0, 5.0)
    image.insert_path(path, None, 0)
    image.add_hguide(9)
    image.add_vguide(11)
    image.add_sample_point(3, 4)
    image.set_resolution(72.0, 96.0)
    layer.set_visible(False)
    return [clear]


def everything(image, name, when):
    """Pixels of all kinds go to files; returns numbers."""
    found = {"size": [image.get_width(), image.get_height()], "resolution": list(image.get_resolution())[-2:]}
    for layer in layers.leaves(image.get_layers()):
        dump(layer, f"{name}.{when}.{layer.get_name()}")
        place = list(layer.get_offsets())[-2:]
        found[layer.get_name()] = [layer.get_width(), layer.get_height(), *place]
        if layer.get_mask():
            dump(layer.get_mask(), f"{name}.{when}.{layer.get_name()}.mask")
    for channel in image.get_channels():
        dump(channel, f"{name}.{when}.{channel.get_name()}")
    dump(image.get_selection(), f"{name}.{when}.selection")
    guide, found["guides"] = 0, []
    while guide := image.find_next_guide(guide):
        found["guides"].append(image.get_guide_position(guide))
    found["guides"].sort()
    found["paths"] = [list(path.stroke_get_points(path.get_strokes()[0])[1])[2:4] for path in image.get_paths()]
    point = image.find_next_sample_point(0)
    found["point"] = list(image.get_sample_point_position(point)) if point else []
    return found


def scaled_by_gimp(image, drawables, case, factor):
    """What GIMP alone makes of it."""
    copy = image.duplicate()
    Gimp.context_push()
    Gimp.context_set_interpolation(Gimp.InterpolationType.CUBIC)
    copy.scale(factor * copy.get_width(), factor * copy.get_height())
    Gimp.context_pop()
    found = everything(copy, case["name"], "gimp")
    copy.delete()
    return found


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
    elif how == "paint":
        layer.get_buffer().set(Gegl.Rectangle.new(30, 3, 1, 1), "R'G'B' u8", b"\x07\x08\x09")
        layer.update(30, 3, 1, 1)
    elif how == "add":
        image.insert_layer(layer.copy(), None, 0)
    elif how == "close":
        image.delete()


def call_procedure(image, drawables, settings, operation):
    """As a script does."""
    procedure = Gimp.get_pdb().lookup_procedure(f"plug-in-pconv-{operation}")
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
    news, notices = [], []

    def progress(fraction):
        if case["disturb"] and not news:
            disturb(image, layer, case["disturb"])
        news.append(fraction)

    module = {"inpaint": inpainting, "upscale": upscaling}[case["operation"]]
    events = wire.Events(progress=progress, notice=notices.append)
    try:
        settings = module.Settings(**case["settings"])
        getattr(module, case["operation"])(image, drawables, settings, pathlib.Path(loader.FOLDER), events)
    except failures.Refusal as refusal:
        return "refused", str(refusal), news
    return "success", "".join(notices), news


def run(case):
    name = case["name"]
    image, layer, drawables = build(case)
    if layer.is_valid():
        dump(layer, name + ".before")
    dump(image.get_selection(), name + ".selbefore")
    result = {}
    if case["operation"] == "upscale":
        result["before"] = everything(image, name, "old")
        if case["extra"] == "rich":
            result["gimp"] = scaled_by_gimp(image, drawables, case, 4)
    image.clean_all()
    news = []
    if case["procedure"]:
        status, message = call_procedure(image, drawables, case["settings"], case["operation"])
    else:
        status, message, news = call_directly(image, layer, drawables, case)
    result |= {"status": status, "message": message, "progress": news, "layers": []}
    if not image.is_valid():
        return result | {"before": None}
    result["dirty"] = image.is_dirty()
    if case["operation"] == "upscale":
        result["after"] = everything(image, name, "new")
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
    if case["extra"] in ("text", "vector", "link"):
        result["rasterized"] = not hasattr(layer, "is_rasterized") or layer.is_rasterized()
    image.delete()
    return result


def measure(job):
    """Let the procedure fill the same hole of a large photo again and again."""
    image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(str(FOLDER / job["file"])))
    image.select_ellipse(Gimp.ChannelOps.REPLACE, *job["box"])
    for number in range(job["rounds"]):
        start = time.monotonic()
        status, message = call_procedure(image, image.get_layers(), {}, "inpaint")
        seconds = time.monotonic() - start
        if status != "success":
            raise RuntimeError(message)
        path = FOLDER / f"round{number}.part"
        path.write_text(json.dumps(seconds))
        path.rename(path.with_suffix(".json"))
        while path.with_suffix(".json").exists():  # until it is noted
            time.sleep(0.02)
    image.delete()


results = {}
(FOLDER / "results.json").write_text("{}")
for case in json.loads((FOLDER / "cases.json").read_text()):
    results[case["name"]] = run(case)
    (FOLDER / "results.json").write_text(json.dumps(results))
if "SPEED" in os.environ:
    measure(json.loads(os.environ["SPEED"]))
