"""What is tried in GIMP: images, selections, settings; and the pictures and numbers to judge them by."""

import numpy as np

WIDTH, HEIGHT = 72, 56
DEPTHS = ("U8", "U16", "U32", "HALF", "FLOAT", "DOUBLE")
CURVES = ("LINEAR", "NON_LINEAR", "PERCEPTUAL")
DTYPES = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "half": np.float16, "float": np.float32, "double": float}


def case(name, **changes):
    """A case with everything as it mostly is."""
    ordinary = {
        "name": name,
        "operation": "inpaint",
        "base": "RGB",
        "alpha": False,
        "precision": "U8_NON_LINEAR",
        "size": [WIDTH, HEIGHT],
        "canvas": [WIDTH, HEIGHT],
        "offsets": [0, 0],
        "profile": False,
        "selection": True,
        "extra": "",
        "disturb": "",
        "procedure": False,
        "spoiled": [0, 0],
        "settings": {},
    }
    assert changes.keys() <= ordinary.keys()
    return ordinary | changes


def photo(width=WIDTH, height=HEIGHT, seed=0):
    """Something with structure and noise, `(height, width, 4)` float32; alpha has all values, 0 in a corner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [0.5 + 0.3 * np.sin(x / (5 + c) + c) * np.cos(y / (7 + c)) for c in range(3)]
    pixels = np.stack([*waves, 0.3 + 0.7 * x / width], -1) + rng.uniform(-0.05, 0.05, (height, width, 4))
    pixels[:6, :6, 3] = 0
    return pixels.clip(0, 1).astype(np.float32)


def selection(name, width=WIDTH, height=HEIGHT):
    """Values 0…255 of a selection as large as the canvas."""
    y, x = np.mgrid[:height, :width]
    hard = np.zeros((height, width), bool)
    if name == "islands":
        hard[4:10, 4:12] = hard[height - 9 : height - 2, width - 12 : width - 3] = True
    elif name == "corners":
        hard[:7, :9] = hard[:5, -8:] = hard[-6:, :7] = hard[-8:, -5:] = True
    elif name == "borders":
        hard[20:30, :6] = hard[22:31, -7:] = hard[:5, 30:40] = hard[-5:, 28:36] = True
    elif name == "all":
        hard[:] = True
    elif name == "soft":
        distance = np.hypot((x - 36) / 16, (y - 28) / 12)
        return (255 * (1.6 - distance).clip(0, 1)).astype(np.uint8)
    else:  # an irregular blob in the middle
        hard = (np.hypot(x - 34, y - 27) < 11) | ((abs(x - 45) < 8) & (abs(y - 30) < 3))
    return np.where(hard, 255, 0).astype(np.uint8)


def native(path, encoding, width, height):
    """A dump in the drawable's own format, `(height, width, samples)`."""
    array = np.frombuffer(path.read_bytes(), DTYPES[encoding.split()[1]])
    return array.reshape(height, width, -1)


def to_linear(encoded):
    """Of sRGB, elementwise."""
    encoded = np.asarray(encoded, float)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def to_encoded(linear):
    """The inverse of `to_linear`."""
    linear = np.asarray(linear, float)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055)
