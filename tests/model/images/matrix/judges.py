"""Other decoders, which judge what the cells claim to be seen: libvips, and imagecodecs as a third.

Each gives RGB uint8 `[h, w, 3]`, upright and on white, or None for a file that it does not read.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pyvips
from PIL import Image

from tests.model.images.matrix.drawing import Pixels, on_white, rgb

_CODECS: dict[str, Callable[[bytes], Any]] = {
    "PNG": imagecodecs.png_decode,
    "BMP": imagecodecs.bmp_decode,
    "GIF": imagecodecs.gif_decode,
    "WebP": imagecodecs.webp_decode,
    "AVIF": imagecodecs.avif_decode,
    "JPEG": imagecodecs.jpeg8_decode,
    "TIFF": imagecodecs.tiff_decode,
    "JPEG 2000": lambda data: Image.open(BytesIO(data)).convert(
        "RGBA"
    ),  # Pillow, since it is imagecodecs that Packlight reads it with
}
_READ_AS_STORED = {"b-w", "grey16", "srgb", "rgb", "rgb16"}


def by_libvips(data: bytes) -> Pixels | None:
    try:
        image = pyvips.Image.new_from_buffer(data, "").autorot()
        pixels = image.numpy()
    except pyvips.Error:
        return None
    if image.interpretation not in _READ_AS_STORED:  # CMYK, L*a*b*, more channels
        return None
    return _plain(pixels.reshape(image.height, image.width, image.bands))


def by_imagecodecs(data: bytes, format: str) -> Pixels | None:
    """Knows nothing of orientation."""
    try:
        pixels = np.asarray(_CODECS[format](data))
    except Exception:  # each codec has errors of its own
        return None
    if pixels.ndim == 4:
        pixels = pixels[0]
    return _plain(pixels.reshape(*pixels.shape[:2], -1))


def _plain(pixels: np.ndarray) -> Pixels | None:
    """`[h, w, 1 to 4]` of 8 or 16 bits."""
    if pixels.dtype != np.uint8:
        if pixels.dtype != np.uint16:
            return None
        # libvips and imagecodecs leave 10 and 12 bits where they are.
        bits = 16 if pixels.max() > 4095 else 12 if pixels.max() > 1023 else 10
        pixels = (pixels >> (bits - 8)).astype(np.uint8)
    if pixels.shape[-1] > 4:
        return None
    if pixels.shape[-1] in (2, 4):
        return on_white(pixels[..., :-1], pixels[..., -1])
    return rgb(pixels)
