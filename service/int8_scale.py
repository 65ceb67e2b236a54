"""How float vectors become 8-bit integers: one scale for all numbers of a vector, fixed or found by calibration.

One scale and no offset, so that cosines and dot products of the integers are those of the floats, up to rounding. A
scale for each number would change which vectors are near one another.
"""

import math
from dataclasses import dataclass

LARGEST_INT8 = 127
"""-128 is left out: the negative of every value is a value too."""

FIXED_CLIP = 4.5


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
