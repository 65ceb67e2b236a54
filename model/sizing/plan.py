"""Which size an image is resized to, and which grid of patches that gives: pure integers.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first, everywhere.
Knows nothing of pixels' values, of packs, or of who is asking.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from model.errors import BudgetError
from model.sizing.anyres import best_layout
from model.sizing.budget import Budget, check_strategy
from model.sizing.geometry import Geometry, Strategy
from model.sizing.native import check_aspect_ratio, native_size

# The search of the reference stops when its bracket is this narrow, and starts with this one.
_SCALE_EPS = 1e-5
_SCALE_BRACKET = (_SCALE_EPS / 10, 100.0)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that attend to one another, and to no others: one block of the mask.

    An AnyRes image is a `thumbnail` and `tile`s, each of which has its place among the tiles; any other is one `image`.
    """

    grid: tuple[int, int]
    kind: Literal["image", "thumbnail", "tile"] = "image"
    row: int = 0
    column: int = 0

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What will be done to one image, known before a pixel is decoded.

    `size` is the image's own size, `resized` that of the canvas that is cut into patches, both `(height, width)` in
    pixels. Under `anyres` the canvas is that of the tiles together: the picture lies on it, its aspect ratio kept.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    segments: tuple[Segment, ...]
    strategy: Strategy
    budget: Budget

    @property
    def token_cap(self) -> int:
        return self.budget.token_cap

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each segment begins among the image's tokens, and where the last ends: `[S+1]`."""
        return tuple(accumulate((segment.tokens for segment in self.segments), initial=0))


def plan_image(size: tuple[int, int], *, geometry: Geometry, budget: Budget, strategy: Strategy) -> ImagePlan:
    """The resized size and the segments of an image of `size` under `budget`.

    Raises `BudgetError` for a strategy that the model lacks, for a side under one pixel, for an image so long that the
    strategy does not take it, and for a budget that this image cannot meet, however it is scaled.
    """
    check_strategy(strategy, geometry)
    for name, side in zip(("height", "width"), size, strict=True):
        if side < 1:
            raise BudgetError(f"{name} is {side}; an image has at least 1 pixel a side", param=name)
    if strategy == "anyres":
        return _plan_tiles(size, geometry, budget, _layouts_within(geometry, budget))
    if strategy == "native":
        resized = _native(size, geometry, budget)
    elif strategy == "square":
        resized = _square(size, geometry, budget)
    else:
        grid_h, grid_w = naflex_grid(*size, geometry.patch_size, budget.token_cap)
        resized = grid_h * geometry.patch_size, grid_w * geometry.patch_size
    segment = Segment((resized[0] // geometry.patch_size, resized[1] // geometry.patch_size))
    if segment.tokens > budget.token_cap:
        raise budget.refusal(
            f"an image of {size[0]}×{size[1]} pixels cannot be scaled down to {budget.token_cap} tokens by "
            f"strategy={strategy}: it takes {segment.tokens}"
        )
    return ImagePlan(size, resized, (segment,), strategy, budget)


def turn_plan(plan: ImagePlan, *, geometry: Geometry) -> ImagePlan:
    """The plan of the same picture with its sides swapped, which takes as many tokens.

    Under `anyres` that leaves only the layouts of as many tiles: one that suits the turned picture better need not cost
    the same, if the model's layouts are not symmetric.
    """
    size = plan.size[::-1]
    if plan.strategy != "anyres":
        return plan_image(size, geometry=geometry, budget=plan.budget, strategy=plan.strategy)
    tiles = len(plan.segments) - 1
    return _plan_tiles(
        size,
        geometry,
        plan.budget,
        [(rows, columns) for rows, columns in geometry.tile_layouts if rows * columns == tiles],
    )


def _native(size: tuple[int, int], geometry: Geometry, budget: Budget) -> tuple[int, int]:
    budget.check_min_pixels()
    factor = geometry.patch_size * geometry.native_factor
    # At least one factor squared, or a side of less than half a factor would be rounded away.
    least = min(geometry.native_min_pixels or factor**2, budget.max_area)
    return native_size(size, factor=factor, min_pixels=budget.min_pixels or least, max_pixels=budget.max_area)


def _square(size: tuple[int, int], geometry: Geometry, budget: Budget) -> tuple[int, int]:
    fixed = geometry.fixed
    if fixed:
        if fixed.resize == "shortest_edge":
            # The longer side grows in proportion before it is cut off: without a bound, by as much memory.
            check_aspect_ratio(size, "square")
        return fixed.side, fixed.side
    factor = geometry.native_factor
    side = max(math.isqrt(budget.token_cap) // factor, 1) * factor * geometry.patch_size
    return side, side


def _layouts_within(geometry: Geometry, budget: Budget) -> list[tuple[int, int]]:
    """The layouts whose tiles fit the cap together with a thumbnail. Raises `BudgetError` if none does."""
    layouts = zip(geometry.tile_layouts, geometry.layout_tokens, strict=True)
    within = [layout for layout, tokens in layouts if tokens <= budget.token_cap]
    if not within:
        raise budget.refusal(
            f"the smallest layout of strategy=anyres takes {min(geometry.layout_tokens)} tokens, its thumbnail among "
            f"them; the cap is {budget.token_cap}"
        )
    return within


def _plan_tiles(
    size: tuple[int, int], geometry: Geometry, budget: Budget, layouts: Sequence[tuple[int, int]]
) -> ImagePlan:
    assert geometry.tile_side, "a model with AnyRes has a tile"
    grid, side = geometry.tile_grid, geometry.tile_side
    rows, columns = best_layout(size, layouts, side)
    tiles = [Segment(grid, "tile", row, column) for row in range(rows) for column in range(columns)]
    return ImagePlan(size, (rows * side, columns * side), (Segment(grid, "thumbnail"), *tiles), "anyres", budget)


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
    budgets: Sequence[Budget],
    *,
    geometry: Geometry,
    strategy: Strategy,
    max_request_tokens: int,
) -> list[Budget]:
    """Lowers the caps of a request's images together, the largest first, until their tokens fit `max_request_tokens`.

    The result is `min(cap, level)` for the highest level at which the tokens that each image would really use add up to
    no more than the limit: caps sink like water levels, and small ones are not touched before the large ones reach
    them. An image that its own budget does not allow counts for nothing, and keeps that error for when it is planned.
    Raises `BudgetError` for less than one token an image, and where images cannot be lowered so far.
    """
    if max_request_tokens < len(sizes):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; {len(sizes)} images take at least 1 token each",
            param="max_request_tokens",
        )
    # Alike images are planned once.
    counts = Counter(zip(sizes, budgets, strict=True))
    sharing = {image: count for image, count in counts.items() if _tokens(*image, geometry, strategy) is not None}

    def lowered(budget: Budget, level: int) -> Budget:
        return budget.lowered(level, geometry.patch_size, bound="max_request_tokens")

    def used(level: int) -> list[tuple[int | None, int]]:
        return [
            (_tokens(size, lowered(budget, level), geometry, strategy), count)
            for (size, budget), count in sharing.items()
        ]

    def fits(level: int) -> bool:
        # What is too low for some image is no level to stop at, but the search for the highest may pass it.
        return sum(count * (tokens or 0) for tokens, count in used(level)) <= max_request_tokens

    def fits_if_filled(level: int) -> bool:
        return sum(count * min(budget.token_cap, level) for (_, budget), count in sharing.items()) <= max_request_tokens

    highest = max((budget.token_cap for _, budget in sharing), default=1)
    # No image takes more than its cap, and most nearly that: from where caps would fit, few levels need to be tried.
    low = _highest(fits_if_filled, 1, highest)
    step = 1 + low // 16
    while low + step < highest and fits(low + step):
        low, step = low + step, 2 * step
    level = _highest(fits, low, min(low + step, highest))
    if any(tokens is None for tokens, _ in used(level)):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; strategy={strategy} cannot lower these images to that",
            param="max_request_tokens",
        )
    return [
        lowered(budget, level) if (size, budget) in sharing else budget
        for size, budget in zip(sizes, budgets, strict=True)
    ]


def _highest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The highest of `low` to `high` that fits, where `low` is taken to fit, and below what fits all does."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _tokens(size: tuple[int, int], budget: Budget, geometry: Geometry, strategy: Strategy) -> int | None:
    """Tokens of the image under this budget; None if it cannot meet it."""
    try:
        return plan_image(size, geometry=geometry, budget=budget, strategy=strategy).tokens
    except BudgetError:
        return None
