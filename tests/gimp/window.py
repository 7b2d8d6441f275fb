"""Runs inside of the GIMP of window.sh; WHAT names what is to be done. Given: FOLDER."""
# ruff: noqa: F821 - python-fu-eval provides Gimp, Gegl, Babl, Gio

import json
import os
import pathlib

image = Gimp.get_images()[0]
layer = image.get_layers()[0]
folder = pathlib.Path(FOLDER)
if WHAT == "select":
    for mast in (
        [198, 116, 206, 116, 212, 230, 217, 374, 161, 374, 184, 230],
        [442, 116, 452, 116, 466, 230, 483, 374, 432, 374, 436, 230],
    ):
        image.select_polygon(Gimp.ChannelOps.ADD, mast)
elif WHAT == "edit":
    layer.invert(False)
elif WHAT == "stop_server":
    path = pathlib.Path(os.environ["PCONV_CONFIG_DIR"]) / "connection.json"
    path.rename(folder / "running.json")
    path.write_text(json.dumps({"address": "127.0.0.1:9", "token": ""}))
else:
    rectangle = Gegl.Rectangle.new(0, 0, layer.get_width(), layer.get_height())
    pixels = bytes(layer.get_buffer().get(rectangle, 1.0, None, Gegl.AbyssPolicy.NONE))
    (folder / f"{WHAT}.raw").write_bytes(pixels)
    numbers = {
        "layers": len(image.get_layers()),
        "selection": list(Gimp.Selection.bounds(image))[1:],
        "image": [image.get_width(), image.get_height()],
        "layer": [layer.get_width(), layer.get_height(), *list(layer.get_offsets())[-2:]],
        "resolution": list(image.get_resolution())[-2:],
    }
    (folder / f"{WHAT}.json").write_text(json.dumps(numbers))
(folder / "done").touch()
