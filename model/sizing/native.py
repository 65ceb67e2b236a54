"""`native`: an image keeps its own size within bounds. Pure integers, sizes `(height, width)` in pixels.

Knows nothing of patches, tokens or who set the bounds.
"""

import math

from model.errors import BudgetError

# As in the reference.
MAX_ASPECT_RATIO = 200


def native_size(size: tuple[int, int], *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Rounds each side to a multiple of `factor`, ties to even. Scales only if the area leaves the bounds.

    The arithmetic of Qwen2-VL's `smart_resize` (Transformers, image_processing_qwen2_vl.py) in the same order of
    operations, so that the same floats are rounded. The result may be over `max_pixels` if a side of a long image stays
    at one factor, and over `min_pixels` by the rounding if a small image is scaled up. Raises `BudgetError` for an
    aspect ratio over 200.
    """
    check_aspect_ratio(size, "native")
    height, width = size
    rounded = round(height / factor) * factor, round(width / factor) * factor
    area = rounded[0] * rounded[1]
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return rounded


def check_aspect_ratio(size: tuple[int, int], strategy: str) -> None:
    """Raises `BudgetError` for an image whose longer side is over `MAX_ASPECT_RATIO` times the other."""
    if max(size) / min(size) > MAX_ASPECT_RATIO:
        raise BudgetError(
            f"one side of an image of {size[0]}×{size[1]} pixels is longer than {MAX_ASPECT_RATIO} times the other; "
            f"strategy={strategy} does not take it",
            param="strategy",
        )
