"""Which strategy to take for one group of images under one cap. Pure."""

from contextlib import suppress
from dataclasses import dataclass

from model.errors import BudgetError
from model.sizing.budget import check_strategy
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from service.limits import Limits
from service.planning.options import Resizing
from service.planning.quality import QUALITY
from service.planning.reasons import MOST_ENLARGEMENT, start_tokens
from service.planning.workload import Group

# A fixed model's tiles are worth their tokens if they show text this much larger, or if the square shows this little.
_WORTHWHILE_SCALE = 1.5
_LEAST_SHOWN = 0.75


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that is planned for, and the limits that it is served within."""

    name: str
    geometry: Geometry
    limits: Limits
    max_decode_pixels: int


@dataclass(frozen=True, slots=True)
class CapRange:
    """The caps that a group can have: what its task starts with, and the lowest that some strategy takes.

    refusal: why the model cannot take such an image at all.
    """

    start_tokens: int
    floor_tokens: int
    refusal: str | None = None


class Chooser:
    """Chooses for one model among its strategies, or plans the one that a request insists on."""

    def __init__(self, model: ServedModel, insisted: Strategy | None) -> None:
        """Raises `BudgetError` for a strategy that the model lacks."""
        if insisted:
            check_strategy(insisted, model.geometry)
        self._geometry, self._limits, self._max_decode_pixels = model.geometry, model.limits, model.max_decode_pixels
        self._strategies = (insisted,) if insisted else model.geometry.strategies

    def cap_range(self, group: Group) -> CapRange:
        asked = None if self._geometry.fixed else start_tokens(group, self._geometry)
        start = self._limits.budget(self._geometry, self._strategies[0], max_tokens=asked).token_cap
        pixels, most = group.height * group.width, self._max_decode_pixels
        if pixels > most:
            return CapRange(start, start, f"it has {pixels:,} pixels; at most {most:,} are decoded (max_decode_pixels)")
        try:
            self.choose(group, start)
        except BudgetError as error:
            return CapRange(start, start, str(error))
        return CapRange(start, self._floor(group, start))

    def _floor(self, group: Group, start: int) -> int:
        """The lowest cap under which some strategy takes such an image. `start` is one."""
        if self._takes(group, 1):
            return 1
        low, high = 2, start
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._takes(group, middle) else (middle + 1, high)
        return low

    def _takes(self, group: Group, cap: int) -> bool:
        try:
            self.choose(group, cap)
        except BudgetError:
            return False
        return True

    def choose(self, group: Group, cap: int) -> ImagePlan:
        """The best plan under this cap. Raises `BudgetError` if no strategy has one.

        A model of any grid is best used as it was trained: the first strategy that can. A fixed model takes its square,
        unless tiles show much more.
        """
        plans, refusals = [], []
        for strategy in self._strategies:
            try:
                plans.append(self.plan(group, strategy, cap))
            except BudgetError as error:
                refusals.append(error)
            if plans and not self._geometry.fixed:
                break
        if not plans:
            raise refusals[0]
        return plans[-1] if len(plans) > 1 and self._tiles_are_worth_it(group, *plans) else plans[0]

    def plan(self, group: Group, strategy: Strategy, cap: int) -> ImagePlan:
        """Raises `BudgetError`."""
        budget = self._limits.budget(self._geometry, strategy, max_tokens=cap)
        return plan_image(group.size, geometry=self._geometry, budget=budget, strategy=strategy)

    def lowered(self, group: Group, caps: CapRange, level: int) -> ImagePlan | None:
        """The plan if no cap is above `level`, except those that cannot go so low. None for an image that is refused.

        Goes down cap by cap: where patches are merged, a native size can miss one cap and meet a lower one.
        """
        if caps.refusal:
            return None
        for cap in range(min(caps.start_tokens, max(level, caps.floor_tokens)), caps.floor_tokens, -1):
            with suppress(BudgetError):
                return self.choose(group, cap)
        return self.choose(group, caps.floor_tokens)

    def _tiles_are_worth_it(self, group: Group, square: ImagePlan, tiled: ImagePlan) -> bool:
        one, other = Resizing.of(square, self._geometry), Resizing.of(tiled, self._geometry)
        if max(other.scales) > MOST_ENLARGEMENT:
            return False
        larger = min(other.scales) >= _WORTHWHILE_SCALE * min(one.scales)
        return one.shown < _LEAST_SHOWN or (larger and QUALITY[group.task].reads_text)
