"""One image in every way that there is: what it costs, how it is shown, and what speaks for or against that.

Pure. Sizes are `(height, width)` in pixels. Knows no budget but the cap it is given, and makes no choice.
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
# By so much one side may be scaled more than the other before it is worth a word: rounding does that to any shape.
_NOTABLE_STRETCH = 1.15


@dataclass(frozen=True, slots=True)
class Seen:
    """How a plan shows its picture. scales: of height and width. shown: the part that is not cut off, from 0 to 1."""

    scales: tuple[float, float]
    shown: float

    @property
    def scale(self) -> float:
        return math.sqrt(self.scales[0] * self.scales[1])

    @property
    def stretch(self) -> float:
        return max(self.scales) / min(self.scales)

    @classmethod
    def of(cls, plan: ImagePlan, geometry: Geometry) -> "Seen":
        height, width = plan.size
        if plan.strategy == "anyres":
            fitted = fitted_size(plan.size, plan.resized)
            return cls((fitted[0] / height, fitted[1] / width), 1.0)
        fixed = geometry.fixed
        if fixed is None:
            return cls((plan.resized[0] / height, plan.resized[1] / width), 1.0)
        if fixed.resize == "squash":
            return cls((fixed.resize_side / height, fixed.resize_side / width), (fixed.side / fixed.resize_side) ** 2)
        scale = fixed.resize_side / min(height, width)
        return cls((scale, scale), fixed.side**2 / (height * scale * width * scale))


def option_of(name: str, plan: ImagePlan, geometry: Geometry, *, ms: float | None) -> Option:
    """An option of the loaded model."""
    return _option(name, plan, geometry, loaded=True, ms=ms, needs=None)


def named_options(size: tuple[int, int], cap: int, loaded: Geometry) -> list[Option]:
    """Every strategy of the named geometries, but for the loaded one: each as its own preprocessor does it.

    cap: for those that fill theirs.
    """
    return [
        _named_option(name, named, size, strategy, cap)
        for name, named in GEOMETRIES.items()
        if named.geometry != loaded
        for strategy in named.geometry.strategies
    ]


def _named_option(name: str, named: NamedGeometry, size: tuple[int, int], strategy: Strategy, cap: int) -> Option:
    geometry = named.geometry
    fills_its_cap = geometry.fixed is None and strategy in ("naflex", "square")
    try:
        budget = settle_budget(
            geometry=geometry,
            strategy=strategy,
            max_tokens=cap if fills_its_cap else None,
            max_pixels=None,
            min_pixels=None,
            default_max_tokens=named.default_max_tokens,
            max_image_tokens=_UNLIMITED_TOKENS,
        )
        plan = plan_image(size, geometry=geometry, budget=budget, strategy=strategy)
    except BudgetError as error:
        return Option(name, strategy, False, str(error), needs=named.checkpoint)
    return _option(name, plan, geometry, loaded=False, ms=None, needs=named.checkpoint)


def _option(
    name: str, plan: ImagePlan, geometry: Geometry, *, loaded: bool, ms: float | None, needs: str | None
) -> Option:
    seen = Seen.of(plan, geometry)
    return Option(
        geometry=name,
        strategy=plan.strategy,
        loaded=loaded,
        remark=remark(plan, seen),
        tokens=plan.tokens,
        segments=len(plan.segments),
        resized=plan.resized,
        scale=round(seen.scale, 4),
        stretch=round(seen.stretch, 3),
        shown=round(seen.shown, 3),
        ms=ms,
        needs=needs,
    )


def remark(plan: ImagePlan, seen: Seen) -> str:
    """What to know of an option, in a few words."""
    words = [sized(seen)]
    if seen.shown < 1:
        words.append(f"{1 - seen.shown:.0%} of the picture cut off")
    if seen.stretch >= _NOTABLE_STRETCH:
        words.append(f"squashed {seen.stretch:.1f} to 1")
    if len(plan.segments) > 1:
        tiles = len(plan.segments) - 1
        words.append(f"thumbnail and {tiles} tiles apart from one another")
    if plan.tokens > LENGTHS[-1]:
        words.append(f"{plan.tokens / LENGTHS[-1]:.1f} × {LENGTHS[-1]:,}, where published tables end")
    return ", ".join(words)


def sized(seen: Seen) -> str:
    if abs(seen.scale - 1) < 0.02:
        return "at its own size"
    return f"enlarged ×{seen.scale:.1f}" if seen.scale > 1 else f"at {seen.scale:.0%} of its size"
