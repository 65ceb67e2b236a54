"""Which size an image is resized to, and which grid of patches that gives: pure integers.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first, everywhere.
Knows nothing of pixels' values, of packs, or of who is asking.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from model.errors import BudgetError

Strategy = Literal["naflex", "square"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# The search of the reference stops when its bracket is this narrow, and starts with this one.
_SCALE_EPS = 1e-5
_SCALE_BRACKET = (_SCALE_EPS / 10, 100.0)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that attend to one another, and to no others: one block of the mask."""

    grid: tuple[int, int]

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What will be done to one image, known before a pixel is decoded.

    `size` is the image's own size, `resized` the size it is resized to, both `(height, width)` in pixels.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    segments: tuple[Segment, ...]
    strategy: Strategy
    token_cap: int

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)


def resolve_token_cap(
    *,
    max_tokens: int | None,
    max_pixels: int | None,
    patch_size: int,
    default_max_tokens: int,
    max_image_tokens: int,
) -> int:
    """The most tokens one image may use: the smallest of what was asked for and `max_image_tokens`.

    With neither bound given, `default_max_tokens` stands in. Asking for more than the server allows is no error: a cap
    is a cap. Raises `BudgetError` for a bound under one patch.
    """
    if max_tokens is not None and max_tokens < 1:
        raise BudgetError(f"max_tokens is {max_tokens}; an image takes at least 1 token", param="max_tokens")
    if max_pixels is not None and max_pixels < patch_size**2:
        raise BudgetError(
            f"max_pixels is {max_pixels}; one patch of {patch_size}×{patch_size} pixels takes {patch_size**2}",
            param="max_pixels",
        )
    asked = [bound for bound in (max_tokens, max_pixels and max_pixels // patch_size**2) if bound is not None]
    return min(*(asked or [default_max_tokens]), max_image_tokens)


def plan_image(size: tuple[int, int], *, patch_size: int, token_cap: int, strategy: Strategy) -> ImagePlan:
    """The resized size and the segments of an image of `size` under `token_cap`.

    Raises `BudgetError` for an image so long that no scale of the reference's search meets the cap.
    """
    if strategy == "naflex":
        grid = naflex_grid(size[0], size[1], patch_size, token_cap)
        if grid[0] * grid[1] > token_cap:
            raise BudgetError(
                f"an image of {size[0]}×{size[1]} pixels cannot be scaled down to {token_cap} tokens",
                param="max_tokens",
            )
    else:
        side = math.isqrt(token_cap)
        grid = (side, side)
    return ImagePlan(
        size=size,
        resized=(grid[0] * patch_size, grid[1] * patch_size),
        segments=(Segment(grid),),
        strategy=strategy,
        token_cap=token_cap,
    )


@lru_cache(maxsize=4096)
def naflex_grid(height: int, width: int, patch_size: int, token_cap: int) -> tuple[int, int]:
    """The grid of SigLIP 2 NaFlex: aspect ratio kept, scaled up or down to fill `token_cap`.

    Same bisection in float64, on the same bracket, as Transformers' `get_image_size_for_max_num_patches`
    (image_processing_siglip2.py): an exact solution would differ from it where a breakpoint lies in the last bracket.
    """
    low, high = _SCALE_BRACKET
    while high - low >= _SCALE_EPS:
        scale = (low + high) / 2
        if _patches(height, scale, patch_size) * _patches(width, scale, patch_size) <= token_cap:
            low = scale
        else:
            high = scale
    return _patches(height, low, patch_size), _patches(width, low, patch_size)


def _patches(side: int, scale: float, patch_size: int) -> int:
    return max(1, math.ceil(side * scale / patch_size))


def share_request_tokens(
    sizes: Sequence[tuple[int, int]],
    token_caps: Sequence[int],
    *,
    patch_size: int,
    strategy: Strategy,
    max_request_tokens: int,
) -> list[int]:
    """Lowers the caps of a request's images together, the largest first, until their tokens fit `max_request_tokens`.

    The result is `min(cap, level)` for the highest level at which the tokens that each image would really use add up to
    no more than the limit: caps sink like water levels, and small ones are not touched before the large ones reach
    them. Raises `BudgetError` for less than one token an image.
    """
    if max_request_tokens < len(sizes):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; {len(sizes)} images take at least 1 token each",
            param="max_request_tokens",
        )

    def total(level: int) -> int:
        return sum(
            plan_image(size, patch_size=patch_size, token_cap=min(cap, level), strategy=strategy).tokens
            for size, cap in zip(sizes, token_caps, strict=True)
        )

    low, high = 1, max(token_caps, default=1)
    while low < high:
        level = (low + high + 1) // 2
        if total(level) <= max_request_tokens:
            low = level
        else:
            high = level - 1
    return [min(cap, low) for cap in token_caps]
