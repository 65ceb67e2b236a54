"""What sizing and resizing need to know of a model: its patch, and how its own processor resizes.

Plain values, so that the planner can also plan for models that are not loaded. Sides and areas are in pixels, sizes are
`(height, width)`. Knows nothing of weights, requests or normalising, which happens on the device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from model.sizing.shrink import Shrink

Strategy = Literal["naflex", "native", "square", "anyres"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# Filters by Pillow's names.
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

# LLaVA-NeXT's five layouts, in tiles and in its order: the first of equals is taken.
_LLAVA_NEXT_LAYOUTS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


@dataclass(frozen=True, slots=True)
class FixedInput:
    """How a model's own processor makes the square that the model takes.

    side: of the square. It need not be a multiple of the patch (SigLIP so400m/14 at 384): a side has
    `side // patch_size` patches, and the strips left over at the right and bottom are dropped, as the convolution does.
    resize: "squash" resizes to `resize_side` × `resize_side`; "shortest_edge" resizes the shorter side to `resize_side`
    and the longer in proportion. The square is then cut from the centre.
    """

    side: int
    resize: Literal["squash", "shortest_edge"]
    resize_side: int
    resample: Resample

    def __post_init__(self) -> None:
        if not 1 <= self.side <= self.resize_side:
            raise ValueError(f"a crop of {self.side} pixels a side does not lie within a resize to {self.resize_side}")


@dataclass(frozen=True, slots=True)
class Geometry:
    """A model as sizing sees it. Raises `ValueError` for values that do not go together.

    patch_size: P. strategies: those that the model takes, its default first. fixed: its one input, or None if it takes
    any grid. own_square: how the processor of a model of any grid makes a square; None if it makes none. resample: the
    filter of every resize, unless `fixed` or `own_square` has another. native_factor: patches a side that are merged
    into one token after the encoder, 1 without merging; both sides of a grid are multiples of it. native_min_pixels,
    native_max_pixels: the bounds of `native` if a request gives none (default: one factor squared, and none). shrink:
    how `native` sizes a picture, None for Qwen's arithmetic. tile_side: of an AnyRes tile. pinpoints: the sizes that
    AnyRes may tile (default: LLaVA-NeXT's five layouts). budgets: the only caps that the model was trained on, in
    tokens, ascending; empty if it takes any.
    """

    patch_size: int
    strategies: tuple[Strategy, ...]
    fixed: FixedInput | None = None
    own_square: FixedInput | None = None
    resample: Resample = "bilinear"
    native_factor: int = 1
    native_min_pixels: int | None = None
    native_max_pixels: int | None = None
    shrink: Shrink | None = None
    tile_side: int | None = None
    pinpoints: tuple[tuple[int, int], ...] = ()
    budgets: tuple[int, ...] = ()

    @classmethod
    def for_naflex(cls, patch_size: int, default_max_tokens: int, *, resample: Resample = "bilinear") -> Self:
        """A NaFlex model: takes any grid; its tile is the largest square within its default cap."""
        tile_side = math.isqrt(default_max_tokens) * patch_size
        strategies: tuple[Strategy, ...] = ("naflex", "native", "square", "anyres")
        return cls(patch_size, strategies, resample=resample, tile_side=tile_side)

    @classmethod
    def for_fixed(cls, patch_size: int, fixed: FixedInput) -> Self:
        """A model of one grid (SigLIP, CLIP): its input is also its tile."""
        return cls(patch_size, ("square", "anyres"), fixed=fixed, resample=fixed.resample, tile_side=fixed.side)

    @classmethod
    def for_own_square(cls, patch_size: int, own: FixedInput) -> Self:
        """A model that takes any grid, and whose own processor makes a square all the same (DINOv2, DINOv3)."""
        return cls(patch_size, ("naflex", "native", "square"), own_square=own, resample=own.resample)

    @classmethod
    def for_merging(cls, patch_size: int, factor: int, *, min_pixels: int, max_pixels: int) -> Self:
        """A model that merges `factor` patches a side into one token (Qwen's towers)."""
        return cls(
            patch_size,
            ("native", "square"),
            resample="bicubic",
            native_factor=factor,
            native_min_pixels=min_pixels,
            native_max_pixels=max_pixels,
        )

    @classmethod
    def for_shrinking(cls, patch_size: int, shrink: Shrink, *, factor: int = 1) -> Self:
        """A model whose processor never enlarges (Pixtral, Kimi), and that merges `factor` patches a side."""
        return cls(
            patch_size,
            ("native", "square"),
            resample="bicubic",
            native_factor=factor,
            native_max_pixels=shrink.most_patches(patch_size) * patch_size**2,
            shrink=shrink,
        )

    @classmethod
    def for_pooling(cls, patch_size: int, factor: int, *, budgets: tuple[int, ...]) -> Self:
        """A model that fills one of `budgets` and pools `factor` patches a side into one token (Gemma's)."""
        return cls(patch_size, ("naflex",), resample="bicubic", native_factor=factor, budgets=budgets)

    def __post_init__(self) -> None:
        if self.shrink and self.shrink.multiple % self.native_factor:
            raise ValueError(f"grids are multiples of {self.shrink.multiple}, and {self.native_factor} are merged")
        if min(self.patch_size, self.native_factor) < 1:
            raise ValueError(f"patch_size is {self.patch_size} and native_factor {self.native_factor}; both start at 1")
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies:
            raise ValueError(f"strategies are {self.strategies}; they are some of {', '.join(STRATEGIES)}")
        if self.fixed and not {*self.strategies} <= {"square", "anyres"}:
            raise ValueError(f"a model of one grid has no strategy but square and anyres, not {self.strategies}")
        if self.fixed and self.fixed.side < self.patch_size:
            raise ValueError(f"an input of {self.fixed.side} pixels a side has no patch of {self.patch_size}")
        if self.own_square and (self.fixed or self.native_factor > 1 or self.own_square.side < self.patch_size):
            raise ValueError("a square of its own is for a model of any grid that merges nothing, and holds a patch")
        if "anyres" in self.strategies:
            self._check_tiles()

    def _check_tiles(self) -> None:
        factor = self.patch_size * self.native_factor
        if self.fixed and self.tile_side != self.fixed.side:
            raise ValueError(f"the tile of a fixed model is its input, {self.fixed.side} pixels, not {self.tile_side}")
        if not self.tile_side or (not self.fixed and self.tile_side % factor):
            raise ValueError(f"the side of a tile is {self.tile_side}; it is a multiple of {factor} pixels")
        for height, width in self.pinpoints:
            if min(height, width) < 1 or height % self.tile_side or width % self.tile_side:
                raise ValueError(
                    f"a pinpoint is {height}x{width}; both sides are multiples of a tile's, {self.tile_side}"
                )

    @property
    def merged_tokens(self) -> int:
        """Tokens that become one output token."""
        return self.native_factor**2

    @property
    def grid_factor(self) -> int:
        """Both sides of a grid are multiples of it."""
        return self.shrink.multiple if self.shrink else self.native_factor

    def fills_cap(self, strategy: Strategy) -> bool:
        """Whether the strategy scales every image until it takes nearly all of its cap."""
        return self.fixed is None and strategy in ("naflex", "square")

    def cap_within(self, token_cap: int) -> int:
        """The largest cap up to `token_cap` that the model takes; 0 if there is none."""
        if not self.budgets:
            return token_cap
        return max((budget for budget in self.budgets if budget <= token_cap), default=0)

    def fixed_tokens(self, strategy: Strategy) -> int | None:
        """Tokens of every image under the strategy; None if they depend on the image or its cap."""
        return (self.fixed.side // self.patch_size) ** 2 if self.fixed and strategy == "square" else None

    def square_input(self, side: int) -> FixedInput | None:
        """How a picture becomes a square of `side` pixels: as the model's own processor makes one, at another scale if
        that is of another size. None if the picture is squashed."""
        own = self.fixed or self.own_square
        if own is None or own.side == side:
            return own
        return replace(own, side=side, resize_side=round(own.resize_side * side / own.side))

    @property
    def default_strategy(self) -> Strategy:
        """The strategy of a request that names none."""
        return self.strategies[0]

    @property
    def tile_grid(self) -> tuple[int, int]:
        """The grid of one AnyRes tile."""
        assert self.tile_side, "a model with AnyRes has a tile"
        return self.tile_side // self.patch_size, self.tile_side // self.patch_size

    def strips(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Grids of about so many tokens each, as narrow as the model takes them. For a model of one grid, as many of it
        as fit into the sum, and at least one."""
        if self.fixed:
            return [self.tile_grid] * max(1, sum(lengths) // math.prod(self.tile_grid))
        factor = self.native_factor
        return [(factor, max(1, tokens // factor**2) * factor) for tokens in lengths]

    @property
    def tile_layouts(self) -> tuple[tuple[int, int], ...]:
        """The layouts that AnyRes chooses from, as `(rows, columns)` of tiles; the first of equals is preferred."""
        if not self.pinpoints:
            return _LLAVA_NEXT_LAYOUTS
        assert self.tile_side, "pinpoints were checked against the tile"
        return tuple((height // self.tile_side, width // self.tile_side) for height, width in self.pinpoints)

    @property
    def layout_tokens(self) -> tuple[int, ...]:
        """Tokens of each of `tile_layouts`, thumbnail included."""
        tile_tokens = math.prod(self.tile_grid)
        return tuple((1 + rows * columns) * tile_tokens for rows, columns in self.tile_layouts)
