"""Plans an image: the size it is resized to, and the grids of patches that gives. Pure integers.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first, everywhere. Knows nothing of
pixel values, packs or callers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from model.errors import BudgetError
from model.sizing.anyres import best_layout
from model.sizing.budget import Budget, check_strategy
from model.sizing.geometry import Geometry, Strategy
from model.sizing.native import check_aspect_ratio, native_size
from model.sizing.pooled import pooled_size
from model.sizing.shrink import rounded_up, shrunk_size

# The reference's bisection starts with this bracket and stops when it is this narrow.
_SCALE_EPS = 1e-5
_SCALE_BRACKET = (_SCALE_EPS / 10, 100.0)
# A picture whose middle becomes a square is resized to no more, which is 200 MB. A shorter side of 579 pixels takes any
# ratio up to the largest.
_MOST_RESIZED_PIXELS = 2**26

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that attend to one another and to no others: one block of the mask.

    An AnyRes image is a `thumbnail` and some `tile`s, each with its row and column. Any other is one `image`.
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
    """How one image will be resized and cut, known before any pixel is decoded.

    `size` is the image's own size, `resized` the size of the canvas that is cut into patches, both `(height, width)` in
    pixels. Under `anyres` the canvas spans all tiles, and the picture lies on it with its aspect ratio kept; under
    `native` of a model that pads it may be larger than `picture_size`.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    segments: tuple[Segment, ...]
    strategy: Strategy
    budget: Budget
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        # A request asks for it seven times.
        object.__setattr__(self, "tokens", sum(segment.tokens for segment in self.segments))

    @property
    def token_cap(self) -> int:
        return self.budget.token_cap

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each segment begins among the image's tokens, and where the last one ends: `[S+1]`."""
        return tuple(accumulate((segment.tokens for segment in self.segments), initial=0))


def plan_image(size: Size, *, geometry: Geometry, budget: Budget, strategy: Strategy) -> ImagePlan:
    """The resized size and the segments of an image of `size` under `budget`. Raises what `resized_size` raises.

    A model with budgets of its own takes the largest of them within `budget`.
    """
    if within := geometry.cap_within(budget.token_cap):
        budget = budget.lowered(within, geometry.patch_size, bound=budget.bound)
    resized = resized_size(size, geometry=geometry, budget=budget, strategy=strategy)
    segments = _tiles(resized, geometry) if strategy == "anyres" else (Segment(_grid(resized, geometry)),)
    return ImagePlan(size, resized, segments, strategy, budget)


def resized_size(size: Size, *, geometry: Geometry, budget: Budget, strategy: Strategy) -> Size:
    """The size of the canvas that an image of `size` is resized to under `budget`.

    Raises `BudgetError` for a strategy that the model lacks, for a side under one pixel, for an image too long for the
    strategy, and for a budget that this image cannot meet at any scale.
    """
    check_strategy(strategy, geometry)
    if min(size) < 1:
        name, side = ("height", size[0]) if size[0] < 1 else ("width", size[1])
        raise BudgetError(f"{name} is {side}; an image has at least 1 pixel a side", param=name)
    if strategy == "anyres":
        return _tiled(size, geometry, _layouts_within(geometry, budget))
    if strategy == "native":
        resized = _native(size, geometry, budget)
    elif strategy == "square":
        resized = _square(size, geometry, budget)
    elif geometry.budgets:
        cap = geometry.cap_within(budget.token_cap)
        if not cap:
            least = geometry.budgets[0]
            raise budget.refusal(f"the model takes an image at {least} tokens or more; the cap is {budget.token_cap}")
        resized = pooled_size(
            size, factor=geometry.patch_size * geometry.native_factor, max_area=cap * geometry.patch_size**2
        )
    else:
        grid_h, grid_w = naflex_grid(*size, geometry.patch_size, budget.token_cap)
        resized = grid_h * geometry.patch_size, grid_w * geometry.patch_size
    tokens = canvas_tokens(resized, geometry=geometry, strategy=strategy)
    if tokens > budget.token_cap:
        raise budget.refusal(
            f"an image of {size[0]}×{size[1]} pixels cannot be scaled down to {budget.token_cap} tokens by "
            f"strategy={strategy}: it takes {tokens}"
        )
    return resized


def canvas_tokens(resized: Size, *, geometry: Geometry, strategy: Strategy) -> int:
    """Tokens of an image that was resized to `resized`."""
    if strategy != "anyres":
        return math.prod(_grid(resized, geometry))
    rows, columns = _layout(resized, geometry)
    return (1 + rows * columns) * math.prod(geometry.tile_grid)


def turn_plan(plan: ImagePlan, *, geometry: Geometry) -> ImagePlan:
    """The plan of the same picture with its sides swapped. It takes as many tokens.

    Under `anyres` it therefore chooses among layouts of as many tiles only. If the model's layouts are not symmetric,
    the one that suits the turned picture best may have another number.
    """
    size = plan.size[::-1]
    if plan.strategy != "anyres":
        return plan_image(size, geometry=geometry, budget=plan.budget, strategy=plan.strategy)
    rows, columns = _layout(plan.resized, geometry)
    layouts = [layout for layout in geometry.tile_layouts if math.prod(layout) == rows * columns]
    resized = _tiled(size, geometry, layouts)
    return ImagePlan(size, resized, _tiles(resized, geometry), plan.strategy, plan.budget)


def picture_size(size: Size, *, geometry: Geometry, budget: Budget) -> Size:
    """The size of an image's picture on its canvas, under `native` of a model with a `shrink`."""
    assert geometry.shrink, "another model's picture fills its canvas"
    return shrunk_size(
        size,
        geometry.shrink,
        patch_size=geometry.patch_size,
        token_cap=budget.token_cap,
        min_pixels=budget.min_pixels,
    )


def _native(size: Size, geometry: Geometry, budget: Budget) -> Size:
    budget.check_min_pixels()
    factor = geometry.patch_size * geometry.grid_factor
    if geometry.shrink:
        return rounded_up(picture_size(size, geometry=geometry, budget=budget), factor)
    # At least one factor squared; otherwise a side of less than half a factor would be rounded to 0.
    least = min(geometry.native_min_pixels or factor**2, budget.max_area)
    return native_size(size, factor=factor, min_pixels=budget.min_pixels or least, max_pixels=budget.max_area)


def _square(size: Size, geometry: Geometry, budget: Budget) -> Size:
    own = geometry.fixed or geometry.own_square
    if own and own.resize == "shortest_edge":
        # The longer side is resized in proportion before it is cut off, and would take memory without a bound.
        check_aspect_ratio(size, "square")
    if geometry.fixed:
        return geometry.fixed.side, geometry.fixed.side
    factor = geometry.grid_factor
    patches = max(math.isqrt(budget.token_cap) // factor, 1) * factor
    # Its own processor's square may have strips that fill no patch.
    side = own.side if own and own.side // geometry.patch_size == patches else patches * geometry.patch_size
    square = geometry.square_input(side)
    if square and square.resize == "shortest_edge":
        pixels = square.resize_side**2 * max(size) // min(size)
        if pixels > _MOST_RESIZED_PIXELS:
            raise budget.refusal(
                f"an image of {size[0]}×{size[1]} pixels is too long for a square of {side} pixels a side, cut from "
                f"{pixels:,} resized pixels; at most {_MOST_RESIZED_PIXELS:,} are resized to"
            )
    return side, side


def _layouts_within(geometry: Geometry, budget: Budget) -> list[tuple[int, int]]:
    """The layouts whose tiles fit the cap together with a thumbnail. Raises `BudgetError` if none does."""
    layout_tokens = geometry.layout_tokens
    layouts = zip(geometry.tile_layouts, layout_tokens, strict=True)
    within = [layout for layout, tokens in layouts if tokens <= budget.token_cap]
    if not within:
        raise budget.refusal(
            f"the smallest layout of strategy=anyres takes {min(layout_tokens)} tokens, its thumbnail among them; "
            f"the cap is {budget.token_cap}"
        )
    return within


def _tiled(size: Size, geometry: Geometry, layouts: Sequence[tuple[int, int]]) -> Size:
    assert geometry.tile_side, "a model with AnyRes has a tile"
    rows, columns = best_layout(size, layouts, geometry.tile_side)
    return rows * geometry.tile_side, columns * geometry.tile_side


def _layout(resized: Size, geometry: Geometry) -> tuple[int, int]:
    assert geometry.tile_side, "a model with AnyRes has a tile"
    return resized[0] // geometry.tile_side, resized[1] // geometry.tile_side


def _tiles(resized: Size, geometry: Geometry) -> tuple[Segment, ...]:
    """The thumbnail, then the tiles in rows."""
    rows, columns = _layout(resized, geometry)
    grid = geometry.tile_grid
    tiles = [Segment(grid, "tile", row, column) for row in range(rows) for column in range(columns)]
    return Segment(grid, "thumbnail"), *tiles


def _grid(resized: Size, geometry: Geometry) -> tuple[int, int]:
    return resized[0] // geometry.patch_size, resized[1] // geometry.patch_size


@lru_cache(maxsize=4096)
def naflex_grid(height: int, width: int, patch_size: int, token_cap: int) -> tuple[int, int]:
    """The grid of SigLIP 2 NaFlex: scaled up or down to fill `token_cap`, with the aspect ratio kept.

    The same float64 bisection of the same bracket as Transformers' `get_image_size_for_max_num_patches`
    (image_processing_siglip2.py). An exact solution would differ if a breakpoint lies in the last bracket.
    """
    low, high = _SCALE_BRACKET
    while high - low >= _SCALE_EPS:
        scale = (low + high) / 2
        if math.ceil(height * scale / patch_size) * math.ceil(width * scale / patch_size) <= token_cap:
            low = scale
        else:
            high = scale
    return math.ceil(height * low / patch_size), math.ceil(width * low / patch_size)
