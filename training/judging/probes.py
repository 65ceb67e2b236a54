"""What is done to a picture to see whether it is found again: crops, bars, turns, and worse files.

Each takes a picture in mode RGB and a random generator, and gives another in mode RGB. Knows nothing of encoders.
"""

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Probe = Callable[[Image.Image, np.random.Generator], Image.Image]

CROP_AREA = (0.25, 0.6)
"""Least and greatest part of the picture's area that a crop shows."""

_FILLS = ((0, 0, 0), (255, 255, 255), (128, 128, 128))


def crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Another crop of the picture, in other colours, mirrored half the time, out of a JPEG of quality 30 to 90."""
    part = image.crop(crop_box(image.size, random))
    if random.random() < 0.5:
        part = ImageOps.mirror(part)
    return as_jpeg(recoloured(part, random), int(random.integers(30, 91)))


def crop_box(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """A box `(left, top, right, bottom)` of 25 to 60% of the area, its aspect ratio up to 1.25 times another."""
    width, height = size
    area = random.uniform(*CROP_AREA)
    stretch = _factor(random, 1.0, 1.25)
    part_w = max(1, min(width, round(width * math.sqrt(area * stretch))))
    part_h = max(1, min(height, round(height * math.sqrt(area / stretch))))
    left, top = int(random.integers(0, width - part_w + 1)), int(random.integers(0, height - part_h + 1))
    return left, top, left + part_w, top + part_h


def recoloured(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation times 0.7 to 1.3 each, and hues turned by up to 15 degrees."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(0.7, 1.3))
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(random.uniform(-15, 15) / 360 * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def squashed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The whole picture with its aspect ratio changed by a factor of 1.2 to 1.5, either way, and its area kept."""
    stretch = math.sqrt(_factor(random, 1.2, 1.5))
    size = max(1, round(image.width * stretch)), max(1, round(image.height / stretch))
    return image.resize(size, Image.Resampling.BICUBIC)


def letterboxed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The whole picture between two equal bars, above and below or left and right, of a third to two thirds of it."""
    bars = random.uniform(1 / 3, 2 / 3)
    wide = random.random() < 0.5
    width = image.width + 2 * round(image.width * bars / 2) if wide else image.width
    height = image.height if wide else image.height + 2 * round(image.height * bars / 2)
    canvas = Image.new("RGB", (width, height), _fill(random))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def rotated(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The whole picture turned by 5 degrees, either way, on a larger canvas of one colour."""
    angle = 5 if random.random() < 0.5 else -5
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_fill(random))


def recompressed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The whole picture out of a JPEG of quality 20."""
    return as_jpeg(image, 20)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """What a JPEG file of the picture shows."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return read.convert("RGB")


def _factor(random: np.random.Generator, low: float, high: float) -> float:
    """A factor from `low` to `high`, or one over it, as often."""
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
