"""Images of all kinds, and what a user does to them meanwhile. For inside.py, in GIMP's Python."""

import array

from gi.repository import Gegl, Gimp, Gio


def rectangle(drawable):
    return Gegl.Rectangle.new(0, 0, drawable.get_width(), drawable.get_height())


def put(drawable, path, name):
    buffer = drawable.get_buffer()
    buffer.set(rectangle(drawable), name, path.read_bytes())
    buffer.flush()
    drawable.update(0, 0, drawable.get_width(), drawable.get_height())


def build(case, folder):
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
    put(layer, folder / (case["name"] + ".in"), "R'G'B'A float")
    if case["selection"]:
        put(image.get_selection(), folder / (case["name"] + ".sel"), "Y u8")
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
    elif case["extra"] == "effect":
        blur = Gimp.DrawableFilter.new(layer, "gegl:gaussian-blur", "soft")
        layer.append_filter(blur)
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
        layer = (
            vector_layer(image) if case["extra"] == "vector" else link_layer(image, folder / (case["name"] + ".xcf"))
        )
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


def link_layer(image, path):
    """A layer that follows a file."""
    other = Gimp.Image.new(40, 36, Gimp.ImageBaseType.RGB)
    pixels = Gimp.Layer.new(other, "pixels", 40, 36, Gimp.ImageType.RGB_IMAGE, 100.0, Gimp.LayerMode.NORMAL)
    other.insert_layer(pixels, None, 0)
    pixels.get_buffer().set(rectangle(pixels), "R'G'B' u8", bytes(range(240)) * 18)
    file = Gio.File.new_for_path(str(path))
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
