"""From any mode or depth of a decoded picture to 8 bits a channel, without transparency."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def without_alpha(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, or L if it is gray, on white wherever it is transparent, as in Transformers >= 5.21."""
    if image.mode.startswith("I"):
        return _gray_of_16_bits(image)
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


def _gray_of_16_bits(image: Image.Image) -> Image.Image:
    """Gray by the highest 8 bits. Pillow itself would clip it at 255."""
    samples = np.asarray(image)
    gray = to_8_bits(samples, 16)
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray[samples == transparent] = 255
    return Image.fromarray(gray)


def to_8_bits(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The highest 8 bits of each unsigned sample. Fewer than 8 are scaled, so that the largest becomes 255."""
    if bits >= 8:
        return (samples >> (bits - 8)).astype(np.uint8, copy=False)
    top = (1 << bits) - 1
    return ((samples.astype(np.uint16) * 255 + top // 2) // top).astype(np.uint8)


def picture_of(
    colour: NDArray[np.uint8], mode: str, alpha: NDArray[np.uint8] | None = None, *, premultiplied: bool = False
) -> Image.Image:
    """A picture in mode L, RGB or RGBA.

    colour: `[height, width, channels]`, as many channels as `mode` has (L, RGB, CMYK, YCbCr or LAB). alpha:
    `[height, width]`; premultiplied, if the colours are multiplied by it.
    """
    size = (colour.shape[1], colour.shape[0])
    image = Image.frombytes(mode, size, np.ascontiguousarray(colour).reshape(-1).data)
    if mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if alpha is None:
        return image
    pixels = np.dstack([np.asarray(image.convert("RGB")), alpha])
    return Image.frombytes("RGBA", size, pixels.reshape(-1).data, "raw", "RGBa" if premultiplied else "RGBA")
