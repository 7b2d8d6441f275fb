"""Runs inside of the GIMP of window.sh; WHAT names what is to be done. Given: FOLDER."""
# ruff: noqa: F821 - python-fu-eval provides Gimp, Gegl, Babl, Gio

import json
import os
import pathlib

image = Gimp.get_images()[0]
layer = image.get_layers()[0]
folder = pathlib.Path(FOLDER)
if WHAT == "select":
    image.select_ellipse(Gimp.ChannelOps.REPLACE, 120, 80, 90, 60)
elif WHAT == "stop_server":
    path = pathlib.Path(os.environ["PCONV_CONFIG_DIR"]) / "connection.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": "127.0.0.1:9"}))
else:
    rectangle = Gegl.Rectangle.new(0, 0, layer.get_width(), layer.get_height())
    pixels = bytes(layer.get_buffer().get(rectangle, 1.0, None, Gegl.AbyssPolicy.NONE))
    (folder / f"{WHAT}.raw").write_bytes(pixels)
    (folder / f"{WHAT}.json").write_text(json.dumps([len(image.get_layers()), not Gimp.Selection.is_empty(image)]))
(folder / "done").touch()
