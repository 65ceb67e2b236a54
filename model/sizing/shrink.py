"""`native` of a model whose processor never enlarges a picture: large ones shrink, others keep their size.

Pure integers, sizes `(height, width)` in pixels. Knows nothing of tokens after merging or of who set the bounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shrink:
    """How a model's own processor bounds a picture.

    max_side: pixels of the longer side. max_patches: whole patches of a picture, None if only the side is bounded.
    multiple: both sides of a grid are rounded up to a multiple of so many patches. pads: the picture then lies on black
    at the left and top (Kimi); otherwise it is stretched (Pixtral).
    """

    max_side: int
    max_patches: int | None = None
    multiple: int = 1
    pads: bool = False

    def most_patches(self, patch_size: int) -> int:
        """Patches of a grid at most, rounded up."""
        side = -(-self.max_side // patch_size // self.multiple) * self.multiple
        if self.max_patches is None:
            return side**2
        # A side is scaled from less than one whole patch more, and then rounded up.
        rows, columns = side, min(side, -(-self.max_patches // side))
        return min(side**2, self.max_patches + (1 + self.multiple) * (rows + columns) + (1 + self.multiple) ** 2)


def shrunk_size(size: Size, shrink: Shrink, *, patch_size: int, token_cap: int, min_pixels: int | None) -> Size:
    """The size of the picture before its sides are rounded up.

    That of the model's own processor, if its grid has at most `token_cap` patches; otherwise that of the same processor
    with the highest lower bound at which it does (on the side, or on the patches if the model has one). The smallest
    picture may still be over the cap. min_pixels: a picture whose grid has a smaller area is enlarged, which no
    processor here does by itself.
    """
    own = shrink.max_patches or shrink.max_side

    def at(bound: int) -> Size:
        if shrink.max_patches is None:
            return within_side(size, bound)
        return within_patches(size, patch_size=patch_size, max_patches=bound, max_side=shrink.max_side)

    def fits(bound: int) -> bool:
        height, width = rounded_up(at(bound), patch_size * shrink.multiple)
        return height * width <= token_cap * patch_size**2

    picture = at(own if fits(own) else _highest(fits, own))
    height, width = rounded_up(picture, patch_size * shrink.multiple)
    if min_pixels is None or height * width >= min_pixels:
        return picture
    grow = math.sqrt(min_pixels / (size[0] * size[1]))
    return math.ceil(size[0] * grow), math.ceil(size[1] * grow)


def within_side(size: Size, max_side: int) -> Size:
    """Pixtral's arithmetic (Transformers, image_processing_pixtral.py), floats in the same order.

    It rounds the shorter side of a long picture down to 0 and then raises. Here that side keeps one pixel.
    """
    height, width = size
    ratio = max(height / max_side, width / max_side)
    if ratio <= 1:
        return size
    return max(1, math.floor(height / ratio)), max(1, math.floor(width / ratio))


def within_patches(size: Size, *, patch_size: int, max_patches: int, max_side: int) -> Size:
    """Kimi's `navit_resize` (Transformers, image_processing_kimi_k25.py), floats in the same order."""
    height, width = size
    patches = max(1, height // patch_size) * max(1, width // patch_size)
    scale = min(1.0, math.sqrt(max_patches / patches), max_side / height, max_side / width)
    return min(max(1, int(height * scale)), max_side), min(max(1, int(width * scale)), max_side)


def rounded_up(size: Size, factor: int) -> Size:
    """The smallest size of whole factors that holds this one."""
    return -(-size[0] // factor) * factor, -(-size[1] // factor) * factor


def _highest(fits: Callable[[int], bool], over: int) -> int:
    """The highest bound under `over` that fits, 1 if none does. What fits at a bound fits at all lower ones."""
    low = 1
    while over - low > 1:
        middle = (low + over) // 2
        low, over = (middle, over) if fits(middle) else (low, middle)
    return low
