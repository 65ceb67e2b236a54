"""Random choices for the drawing modules, and the sizes of pictures. Knows nothing of drawing."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
Size = tuple[int, int]
"""Width and height in pixels, in Pillow's order."""

_T = TypeVar("_T")


def between(rng: Rng, low: float, high: float) -> float:
    """Returns a uniform number in `[low, high)`."""
    return low + (high - low) * float(rng.random())


def log_between(rng: Rng, low: float, high: float) -> float:
    """Returns a log-uniform number in `[low, high)`. Both bounds are positive."""
    return math.exp(between(rng, math.log(low), math.log(high)))


def integer(rng: Rng, low: int, high: int) -> int:
    """Returns a uniform whole number from `low` to `high`, both included, or `low` if `high` is less."""
    return low if high <= low else int(rng.integers(low, high + 1))


def happens(rng: Rng, probability: float) -> bool:
    return float(rng.random()) < probability


def pick(rng: Rng, items: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
    """Returns one of `items`, evenly or by `weights`, which need not add up to one."""
    if weights is None:
        return items[int(rng.integers(len(items)))]
    left = float(rng.random()) * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        left -= weight
        if left < 0:
            return item
    return items[-1]


def size_of(area_pixels: float, aspect: float) -> Size:
    """Returns a size of about `area_pixels` that is `aspect` times as wide as high."""
    return max(16, round(math.sqrt(area_pixels * aspect))), max(16, round(math.sqrt(area_pixels / aspect)))


def photo_size(rng: Rng) -> Size:
    """Returns a size of 0.10 to 0.16 megapixels.

    Most are about 3:2, 4:3, 16:9, 5:4 or 1:1, and two in three of these are wide. One in five has any ratio from 1:3 to
    3:1.
    """
    area = log_between(rng, 100_000, 160_000)
    if happens(rng, 0.2):
        return size_of(area, log_between(rng, 1 / 3, 3))
    aspect = pick(rng, (1.5, 4 / 3, 1.0, 16 / 9, 1.25)) * log_between(rng, 0.97, 1.03)
    return size_of(area, aspect if happens(rng, 0.65) else 1 / aspect)
