"""Dice: what the drawing modules ask of a random generator, and the sizes of pictures. Knows nothing of drawing."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
Size = tuple[int, int]
"""Width and height in pixels, as Pillow has them."""

_T = TypeVar("_T")


def between(rng: Rng, low: float, high: float) -> float:
    """Uniform in `[low, high)`."""
    return low + (high - low) * float(rng.random())


def log_between(rng: Rng, low: float, high: float) -> float:
    """Log-uniform in `[low, high)`, both positive."""
    return math.exp(between(rng, math.log(low), math.log(high)))


def whole(rng: Rng, low: int, high: int) -> int:
    """A whole number, both ends included; `low` where `high` is below it."""
    return low if high <= low else int(rng.integers(low, high + 1))


def happens(rng: Rng, probability: float) -> bool:
    return float(rng.random()) < probability


def pick(rng: Rng, items: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
    """One of `items`, evenly or by `weights`, which need not add up to one."""
    if weights is None:
        return items[int(rng.integers(len(items)))]
    left = float(rng.random()) * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        left -= weight
        if left < 0:
            return item
    return items[-1]


def size_of(area_pixels: float, aspect: float) -> Size:
    """The size of about `area_pixels` that is `aspect` times as wide as high."""
    return max(16, round(math.sqrt(area_pixels * aspect))), max(16, round(math.sqrt(area_pixels / aspect)))


def photo_size(rng: Rng) -> Size:
    """0.10 to 0.16 megapixels: mostly 3:2, 4:3, 16:9 and 1:1 both ways, and one in five anything from 1:3 to 3:1."""
    area = log_between(rng, 100_000, 160_000)
    if happens(rng, 0.2):
        return size_of(area, log_between(rng, 1 / 3, 3))
    aspect = pick(rng, (1.5, 4 / 3, 1.0, 16 / 9, 1.25)) * log_between(rng, 0.97, 1.03)
    return size_of(area, aspect if happens(rng, 0.65) else 1 / aspect)
