"""One image under every strategy of every geometry: what it costs, how it is resized, and a remark on that.

Pure. Sizes are `(height, width)` in pixels. Chooses nothing, and knows no budget but the cap it is given.
"""

import math
from dataclasses import dataclass

from model.errors import BudgetError
from model.sizing.anyres import fitted_size
from model.sizing.budget import settle_budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from service.planning.answer import Option
from service.planning.geometries import GEOMETRIES, NamedGeometry
from service.planning.quality import LENGTHS

# A model that is not served here has no limit but its own.
_UNLIMITED_TOKENS = 2**40
# Rounding to patches stretches any image a little. From this ratio on it is worth a remark.
_NOTABLE_STRETCH = 1.15


@dataclass(frozen=True, slots=True)
class Resizing:
    """What resizing does to a picture. scales: of height and width. shown: the part not cropped, from 0 to 1."""

    scales: tuple[float, float]
    shown: float

    @property
    def scale(self) -> float:
        return math.sqrt(self.scales[0] * self.scales[1])

    @property
    def stretch(self) -> float:
        return max(self.scales) / min(self.scales)

    @classmethod
    def of(cls, plan: ImagePlan, geometry: Geometry) -> "Resizing":
        height, width = plan.size
        square = geometry.square_input(plan.resized[0]) if plan.strategy == "square" else None
        if square is None:
            resized = fitted_size(plan.size, plan.resized) if plan.strategy == "anyres" else plan.resized
            return cls((resized[0] / height, resized[1] / width), 1.0)
        if square.resize == "squash":
            shown = (square.side / square.resize_side) ** 2
            return cls((square.resize_side / height, square.resize_side / width), shown)
        scale = square.resize_side / min(height, width)
        return cls((scale, scale), square.side**2 / (height * scale * width * scale))


def option_of(
    name: str, plan: ImagePlan, geometry: Geometry, *, ms: float | None = None, needs: str | None = None
) -> Option:
    """needs: the checkpoint to serve, for a geometry that is not loaded."""
    resizing = Resizing.of(plan, geometry)
    return Option(
        geometry=name,
        strategy=plan.strategy,
        loaded=needs is None,
        remark=remark(plan, resizing),
        tokens=plan.tokens,
        segments=len(plan.segments),
        grid=plan.segments[0].grid,
        resized=plan.resized,
        scale=round(resizing.scale, 4),
        stretch=round(resizing.stretch, 3),
        shown=round(resizing.shown, 3),
        ms=ms,
        needs=needs,
    )


def named_options(size: tuple[int, int], cap: int, loaded: Geometry) -> list[Option]:
    """Every strategy of the named geometries except the loaded one, each as its own preprocessor does it.

    cap: for the strategies that fill theirs.
    """
    return [
        _named_option(name, named, size, strategy, cap)
        for name, named in GEOMETRIES.items()
        if named.geometry != loaded
        for strategy in named.geometry.strategies
    ]


def _named_option(name: str, named: NamedGeometry, size: tuple[int, int], strategy: Strategy, cap: int) -> Option:
    geometry = named.geometry
    try:
        budget = settle_budget(
            geometry=geometry,
            strategy=strategy,
            max_tokens=cap if geometry.fills_cap(strategy) else None,
            max_pixels=None,
            min_pixels=None,
            default_max_tokens=named.default_max_tokens,
            max_image_tokens=_UNLIMITED_TOKENS,
        )
        plan = plan_image(size, geometry=geometry, budget=budget, strategy=strategy)
    except BudgetError as error:
        return Option(name, strategy, False, str(error), needs=named.checkpoint)
    return option_of(name, plan, geometry, needs=named.checkpoint)


def remark(plan: ImagePlan, resizing: Resizing) -> str:
    """What to know of an option, in a few words."""
    words = [_scaled(resizing.scale)]
    if resizing.shown < 1:
        words.append(f"{1 - resizing.shown:.0%} of the picture cropped")
    if resizing.stretch >= _NOTABLE_STRETCH:
        words.append(f"squashed {resizing.stretch:.1f}:1")
    if len(plan.segments) > 1:
        words.append(f"a thumbnail and {len(plan.segments) - 1} tiles as segments of their own")
    if plan.tokens > LENGTHS[-1]:
        words.append(f"{plan.tokens / LENGTHS[-1]:.1f} × the longest length published ({LENGTHS[-1]:,})")
    return ", ".join(words)


def _scaled(scale: float) -> str:
    if abs(scale - 1) < 0.02:
        return "at its own size"
    return f"enlarged ×{scale:.1f}" if scale > 1 else f"at {scale:.0%} of its size"
