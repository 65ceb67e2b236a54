"""The effects of a camera: uneven light, colour casts, contrast, blur, grain. Knows nothing of the subject."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.drawing.chance import Rng, between, happens, log_between, pick


def develop(rng: Rng, image: Image.Image) -> Image.Image:
    """Returns the RGB image in its size with uneven light and other tones, sometimes blurred, often with grain."""
    if happens(rng, 0.35):
        image = image.filter(ImageFilter.BoxBlur(log_between(rng, 0.3, 1.6)))
    small = _light(rng, (image.height + 15) // 16, (image.width + 15) // 16)
    light = np.asarray(Image.fromarray(small).resize(image.size, Image.Resampling.BILINEAR))
    pixels = np.asarray(image).astype(np.float32)
    pixels *= light[..., None]
    if happens(rng, 0.7):
        _add_grain(rng, pixels)
    toned = np.clip(pixels, 0, 255).astype(np.uint8)
    return Image.fromarray(toned).point(_curves(rng))


def _light(rng: Rng, height: int, width: int) -> NDArray[np.float32]:
    """Returns float32 `[height, width]` around 1: a vignette and a slope, both often faint."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, slope = between(rng, 0, 2 * math.pi), between(rng, 0, 0.4) ** 1.5
    vignette = between(rng, 0, 0.35) if happens(rng, 0.4) else 0.0
    light = 1 + (x * math.cos(angle) + y * math.sin(angle)) * slope - vignette * (x * x + y * y - 0.4)
    return np.asarray(light, dtype=np.float32)


def _add_grain(rng: Rng, pixels: NDArray[np.float32]) -> None:
    """Adds noise to `[height, width, 3]` in place, the same in all channels or different in each."""
    height, width = pixels.shape[:2]
    strength = np.float32(log_between(rng, 0.7, 9))
    if happens(rng, 0.6):
        grain = rng.integers(-128, 128, (height, width, 1), dtype=np.int8)
    else:
        grain = rng.integers(-128, 128, (height, width, 3), dtype=np.int8)
    pixels += grain * (strength / np.float32(74))


def _curves(rng: Rng) -> list[int]:
    """Returns look-up tables for red, green and blue: exposure, contrast and a colour cast, which many lack."""
    gamma, contrast = log_between(rng, 0.7, 1.4), between(rng, 0.8, 1.35)
    lift = between(rng, 0, 24) if happens(rng, 0.3) else 0.0
    cast = pick(rng, (0.0, 0.03, 0.09), (3, 4, 2))
    x = np.arange(256, dtype=np.float32) / 255
    tables = []
    for _ in range(3):
        y = (x ** (gamma * between(rng, 1 - cast, 1 + cast)) - 0.5) * contrast + 0.5
        y = lift + y * between(rng, 1 - cast, 1 + cast) * (255 - lift)
        tables += [int(value) for value in np.clip(y, 0, 255)]
    return tables
