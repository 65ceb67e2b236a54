"""The size of an image that keeps its own: pure integers, sizes `(height, width)` in pixels.

Knows nothing of patches, of tokens or of who set the bounds.
"""

import math

from model.errors import BudgetError

# The reference refuses images that are longer than this many times their width; so do we.
MAX_ASPECT_RATIO = 200


def native_size(size: tuple[int, int], *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Each side rounded to a multiple of `factor`, ties to the even one; scaled only if the area leaves the bounds.

    The arithmetic of Qwen2-VL's `smart_resize` (Transformers, image_processing_qwen2_vl.py), in the same order of
    operations, so that the same floats are rounded. An image so long that a side stays at one factor may come out over
    `max_pixels`; a small one scaled up to `min_pixels` comes out over that by its rounding. Raises `BudgetError` for an
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
    """Raises `BudgetError` for an image that is over `MAX_ASPECT_RATIO` times as long as it is wide, or the reverse."""
    if max(size) / min(size) > MAX_ASPECT_RATIO:
        raise BudgetError(
            f"an image of {size[0]}×{size[1]} pixels is longer than {MAX_ASPECT_RATIO} times its other side, "
            f"which strategy={strategy} does not take",
            param="strategy",
        )
