"""How float vectors become 8-bit integers: one scale for all numbers of a vector, fixed or found by calibration.

One scale and no offset, so that cosines and dot products of the integers are those of the floats, up to rounding. A
scale for each number would change which vectors are near one another.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_INT8 = 127
"""-128 is left out: the negative of every value is a value too."""

FIXED_CLIP = 6.0
"""Leaves room: the largest number of a thousand pictures' vectors of packlight-tiny is 4.5 / sqrt(N). The recall hardly
depends on it there, but a clip that is too small for a model's largest numbers would cost much of it."""

# The best clip is looked for among so many, evenly spaced by their ratio.
_CANDIDATES = 64
_LEAST_CLIP = 1.0
_MOST_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Int8Scale:
    """Numbers of a unit vector of N numbers from `-clip / sqrt(N)` to `clip / sqrt(N)` become -127 to 127.

    Others are clipped. Numbers of a unit vector are about `1 / sqrt(N)`, whatever N is, so the same clip serves a
    vector that was cut and scaled to length 1 again. calibrated: the clip was found by `packlight calibrate`.
    """

    clip: float = FIXED_CLIP
    calibrated: bool = False

    def factor(self, width: int) -> float:
        """What the numbers of a vector of `width` numbers are multiplied by before they are rounded."""
        return LARGEST_INT8 * math.sqrt(width) / self.clip

    def scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whole numbers from -127 to 127, as float32. vectors: float32 `[E]` or `[B, E]`, of length 1."""
        scaled = np.rint(vectors * np.float32(self.factor(vectors.shape[-1])))
        clipped: NDArray[np.float32] = np.clip(scaled, -LARGEST_INT8, LARGEST_INT8)
        return clipped


def best_clip(vectors: NDArray[np.float32]) -> float:
    """The clip with the least squared error between vectors and what their integers stand for.

    vectors: float32 `[B, E]` of length 1. If there are very many, some thousands are looked at, spread evenly over all.
    """
    rows = vectors[:: -(-len(vectors) // _MOST_ROWS)]
    most = float(np.abs(rows).max()) * math.sqrt(rows.shape[1])

    def error(clip: float) -> float:
        scale = Int8Scale(clip)
        return float(np.square(scale.scaled(rows) / np.float32(scale.factor(rows.shape[1])) - rows).mean())

    candidates: list[float] = np.geomspace(_LEAST_CLIP, most, _CANDIDATES).tolist()
    return min(candidates, key=error)
