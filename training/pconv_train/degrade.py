"""How small pictures come to be: what enlargement, and the refinement of a coarse fill, are given."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Rgb8 = NDArray[np.uint8]

MCU = 16  # px, the minimum coded unit of a JPEG with 4:2:0: 2 × 2 blocks of luma, one of each chroma (ITU-T T.81, A.2)


def degrade(target: Rgb8, factor: int, rng: np.random.Generator, blur: float = 0.0, jpeg: float = 0.1) -> Rgb8:
    """Reduce a picture as small pictures come to be: mostly bicubic, some area, a little noise, JPEG.

    Args:
        target: `(S, S, 3)` uint8; S divisible by `factor`.
        factor: Reduction.
        rng: Source of the mixture.
        blur: Standard deviation of a further blur of the reduced picture, px: what a coarse fill lacks.
        jpeg: Share that is compressed, with a quality of 60 to 95.

    Returns:
        `(S / factor, S / factor, 3)` uint8.
    """
    side = target.shape[0] // factor
    kind = Image.Resampling.BICUBIC if rng.random() < 0.8 else Image.Resampling.BOX
    small = Image.fromarray(target).resize((side, side), kind)  # Pillow reduces with antialiasing
    if blur > 0.3:
        small = small.filter(ImageFilter.GaussianBlur(blur))
    pixels = np.asarray(small)
    if rng.random() < 0.1:
        noise = rng.normal(0, rng.uniform(1, 4), pixels.shape)
        pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    if rng.random() < jpeg:
        pixels = compress(pixels, int(rng.integers(60, 96)), *rng.integers(MCU, size=2))
    return pixels


def compress(picture: Rgb8, quality: int, left: int = 0, top: int = 0) -> Rgb8:
    """Make a JPEG and decode it.

    Args:
        picture: `(H, W, 3)` uint8.
        quality: 1 to 100; chroma is subsampled 4:2:0.
        left: Pixels that were cropped off the JPEG's left, so that its blocks begin anywhere.
        top: … and off its top.

    Returns:
        `(H, W, 3)` uint8.
    """
    whole = np.pad(picture, ((top, 0), (left, 0), (0, 0)), "symmetric")
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))[top:, left:]
