"""AnyRes: which layout of tiles suits an image, and the image's size on it. Pure integers.

Sizes and canvases are `(height, width)` in pixels, layouts `(rows, columns)` of tiles. Knows nothing of patches.
"""

import math
import re
from collections.abc import Sequence


def best_layout(size: tuple[int, int], layouts: Sequence[tuple[int, int]], tile_side: int) -> tuple[int, int]:
    """The layout that shows most of the image's pixels; among equals the smallest, then the first.

    LLaVA-NeXT's choice: `select_best_resolution` of Transformers (image_processing_utils.py). An enlarged image counts
    as its own pixels.
    """
    height, width = size

    def fit(layout: tuple[int, int]) -> tuple[int, int]:
        canvas_h, canvas_w = layout[0] * tile_side, layout[1] * tile_side
        scale = min(canvas_w / width, canvas_h / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - canvas_h * canvas_w

    return max(layouts, key=fit)


def fitted_size(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest size on `canvas` with the image's aspect ratio: `get_patch_output_size` of the same module."""
    scale_h, scale_w = canvas[0] / size[0], canvas[1] / size[1]
    if scale_w < scale_h:
        return min(math.ceil(size[0] * scale_w), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(size[1] * scale_h), canvas[1])


def parse_pinpoints(text: str) -> tuple[tuple[int, int], ...]:
    """Reads sizes such as `336x672,672x336`, heights first. Raises `ValueError` for anything else."""
    pinpoints = []
    for word in text.split(","):
        sides = re.fullmatch(r"\s*([0-9]{1,5})x([0-9]{1,5})\s*", word)
        if not sides:
            raise ValueError(f"{word.strip()[:40]!r} is not a pinpoint; sizes look like 336x672,672x336")
        pinpoints.append((int(sides[1]), int(sides[2])))
    return tuple(pinpoints)
