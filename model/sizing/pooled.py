"""The size of an image whose patches are pooled: aspect ratio kept, a budget of area filled from below.

Pure integers, sizes `(height, width)` in pixels. Knows nothing of patches, tokens or who set the budget.
"""

import math


def pooled_size(size: tuple[int, int], *, factor: int, max_area: int) -> tuple[int, int]:
    """Scales up or down to `max_area` and rounds each side down to a multiple of `factor`, but never to 0.

    The arithmetic of Gemma 4's `get_aspect_ratio_preserving_size` (Transformers, image_processing_gemma4.py) in the
    same order of operations. max_area: a multiple of `factor` squared. Both of the reference's refusals are then out of
    reach: two sides under one factor would need an area under its square, and a side of one factor leaves the other
    room for all the rest.
    """
    height, width = size
    scale = math.sqrt(max_area / (height * width))
    rounded_h, rounded_w = (math.floor(scale * side / factor) * factor for side in size)
    longest = max_area // factor
    if rounded_h == 0:
        return factor, min(width // height * factor, longest)
    if rounded_w == 0:
        return min(height // width * factor, longest), factor
    return rounded_h, rounded_w
