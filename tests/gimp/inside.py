"""Runs inside of GIMP (python-fu-eval): builds the image of each case, runs the plug-in, and writes what came out.

Given: FOLDER, with cases.json, and HERE. Pixels and selections come and go as raw files; test_*.py judge them.
"""
# ruff: noqa: F821 - python-fu-eval provides Gimp, Gegl, Babl, Gio

import json
import os
import pathlib
import sys
import time

FOLDER = pathlib.Path(FOLDER)
sys.path.insert(0, str(pathlib.Path(Gimp.directory()) / "plug-ins" / "pconv-inpaint"))
sys.path.insert(0, HERE)
import loader  # noqa: E402

loader.use_vendored()
import failures  # noqa: E402
import inpainting  # noqa: E402
import layers  # noqa: E402
import upscaling  # noqa: E402
import wire  # noqa: E402
from scenes import build, disturb, rectangle  # noqa: E402


def dump(drawable, name, kind=None):
    pixels = drawable.get_buffer().get(rectangle(drawable), 1.0, kind, Gegl.AbyssPolicy.NONE)
    (FOLDER / name).write_bytes(bytes(pixels))


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
    image, layer, drawables = build(case, FOLDER)
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
compiled = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
compiled = [
    path for path in compiled if path.endswith((".so", ".pyd")) and "/gi/" not in path and "/cairo/" not in path
]
(FOLDER / "compiled.json").write_text(json.dumps([path for path in compiled if "lib-dynload" not in path]))
