"""From any mode of a decoded picture to 8 bits a channel, without transparency."""

import numpy as np
from PIL import ExifTags, Image

from model.errors import UnsupportedFormat
from model.images.pillow import tiff_tags


def without_alpha(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, or L if it is gray, on white wherever it is transparent, as in Transformers >= 5.21.

    Raises `UnsupportedFormat` for samples of more than 16 bits.
    """
    if image.mode.startswith("I"):
        return _to_8_bits(image)
    if image.mode in ("La", "RGBa"):  # premultiplied; Pillow converts these only to LA and RGBA
        image = image.convert(image.mode.upper())
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        if image.mode in ("RGB", "L"):
            return image
        return image.convert("L" if image.mode == "1" else "RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    # The same pixels as from `Image.alpha_composite`, in half the memory.
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def _to_8_bits(image: Image.Image) -> Image.Image:
    """The highest 8 of 12 or 16 bits of gray, as Pillow does for colour. Pillow itself would clip gray at 255."""
    samples = np.asarray(image)
    if samples.dtype.itemsize > 2 and (samples.min() < 0 or samples.max() > 0xFFFF):
        raise UnsupportedFormat("samples of more than 16 bits are not read; convert the image to 8 bits a channel")
    # Pillow scales narrower samples up to 16 bits for every format but TIFF.
    bits = min(16, *tiff_tags(image).get(ExifTags.Base.BitsPerSample, (16,)))
    gray = (samples >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray[samples == transparent] = 255
    return Image.fromarray(gray)
