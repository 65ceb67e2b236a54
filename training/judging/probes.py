"""Changes after which a picture should still be found: crops, bars, rotation, worse files.

Each takes a picture in mode RGB and a random generator, and returns another in mode RGB. Knows nothing of encoders.
"""

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Probe = Callable[[Image.Image, np.random.Generator], Image.Image]

CROP_AREA = (0.25, 0.6)
"""Least and greatest share of the picture's area that a crop shows."""

_FILLS = ((0, 0, 0), (255, 255, 255), (128, 128, 128))


def crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Returns a crop in other colours, mirrored half of the time, from a JPEG of quality 30 to 90."""
    part = image.crop(crop_box(image.size, random))
    if random.random() < 0.5:
        part = ImageOps.mirror(part)
    return as_jpeg(recoloured(part, random), int(random.integers(30, 91)))


def crop_box(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Returns a box `(left, top, right, bottom)` of 25 to 60% of the area.

    Its aspect ratio is up to 1.25 times the picture's, or that much less.
    """
    width, height = size
    area = random.uniform(*CROP_AREA)
    stretch = _factor(random, 1.0, 1.25)
    part_w = max(1, min(width, round(width * math.sqrt(area * stretch))))
    part_h = max(1, min(height, round(height * math.sqrt(area / stretch))))
    left, top = int(random.integers(0, width - part_w + 1)), int(random.integers(0, height - part_h + 1))
    return left, top, left + part_w, top + part_h


def recoloured(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Scales brightness, contrast and saturation by 0.7 to 1.3 each, and rotates hues by up to 15 degrees."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(0.7, 1.3))
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(random.uniform(-15, 15) / 360 * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def squashed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Changes the aspect ratio by a factor of 1.2 to 1.5 either way, and keeps the area."""
    stretch = math.sqrt(_factor(random, 1.2, 1.5))
    size = max(1, round(image.width * stretch)), max(1, round(image.height / stretch))
    return image.resize(size, Image.Resampling.BICUBIC)


def letterboxed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Adds two equal bars above and below, or left and right, together a third to two thirds of the picture's area."""
    bars = random.uniform(1 / 3, 2 / 3)
    wide = random.random() < 0.5
    width = image.width + 2 * round(image.width * bars / 2) if wide else image.width
    height = image.height if wide else image.height + 2 * round(image.height * bars / 2)
    canvas = Image.new("RGB", (width, height), _fill(random))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def rotated(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Rotates the whole picture by 5 degrees either way, on a larger canvas of one colour."""
    angle = 5 if random.random() < 0.5 else -5
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_fill(random))


def recompressed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Returns the whole picture from a JPEG of quality 20."""
    return as_jpeg(image, 20)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Returns the picture as decoded from a JPEG file."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return read.convert("RGB")


def _factor(random: np.random.Generator, low: float, high: float) -> float:
    """Returns a factor from `low` to `high`, or its inverse, equally often."""
    factor = math.exp(random.uniform(math.log(low), math.log(high)))
    return factor if random.random() < 0.5 else 1 / factor


def _fill(random: np.random.Generator) -> tuple[int, int, int]:
    return _FILLS[int(random.integers(len(_FILLS)))]


PROBES: dict[str, Probe] = {
    "crop": crop,
    "squashed": squashed,
    "letterboxed": letterboxed,
    "rotated": rotated,
    "recompressed": recompressed,
}
