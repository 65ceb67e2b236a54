"""A workload and a budget into settings: what each group of images costs in every way, and which way to take.

Policy alone: no clock, no I/O, no tensor. Tokens come from the arithmetic that `/embed` itself does, milliseconds from
a fit to packs that have run.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from model.errors import BudgetError
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from service.engine.cost import CostFit
from service.limits import Limits
from service.planning.answer import BudgetVerdict, Choice, GroupPlan, Option, Totals, WorkloadPlan
from service.planning.options import Seen, named_options, option_of
from service.planning.quality import QUALITY
from service.planning.reasons import MOST_ENLARGEMENT, crossed, start_tokens, why
from service.planning.workload import Group

# A fixed model's tiles are worth their tokens where they show text so much larger, or its square shows so little.
_WORTHWHILE_SCALE = 1.5
_LEAST_SHOWN = 0.75


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is planned for, and the limits within which it is served."""

    name: str
    geometry: Geometry
    limits: Limits
    max_decode_pixels: int


@dataclass(frozen=True, slots=True)
class PlanBudget:
    """For the whole workload: tokens, or milliseconds of one device."""

    tokens: int | None = None
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Between which caps a group's images may be: what their task begins with, and the least that they can do with.

    refusal: why the model takes no such image at all.
    """

    start_tokens: int
    floor_tokens: int
    refusal: str | None = None


_Taken = Sequence[tuple[Group, ImagePlan]]


class Planner:
    """Plans workloads for one model, with one strategy or with all that it has."""

    def __init__(self, model: ServedModel, *, strategy: Strategy | None = None, cost: CostFit | None = None) -> None:
        """Raises `BudgetError` for a strategy that the model lacks."""
        self._model, self._geometry, self._limits, self._cost = model, model.geometry, model.limits, cost
        self._asked = strategy
        self._strategies = (strategy,) if strategy else model.geometry.strategies
        if strategy and strategy not in model.geometry.strategies:
            served = ", ".join(model.geometry.strategies)
            raise BudgetError(f"the model does not take strategy={strategy}; it takes {served}", param="strategy")

    def plan(self, groups: Sequence[Group], budget: PlanBudget) -> WorkloadPlan:
        """Raises `BudgetError` for a budget in milliseconds where no cost is known."""
        if budget.ms is not None and self._cost is None:
            raise BudgetError("milliseconds are known once packs have run; give budget_tokens", param="budget_ms")
        bounds = [self._bounds(group) for group in groups]
        level, verdict = self._settle(groups, bounds, budget)
        plans = self._plans(groups, bounds, level)
        taken = [(group, plan) for group, plan in zip(groups, plans, strict=True) if plan]
        answers = [self._answer(*of_group) for of_group in zip(groups, bounds, plans, strict=True)]
        return WorkloadPlan(self._model.name, verdict, self._totals(taken), answers, self._cost)

    # One group

    def _bounds(self, group: Group) -> _Bounds:
        asked = None if self._geometry.fixed else start_tokens(group, self._geometry)
        start = self._limits.budget(self._geometry, self._strategies[0], max_tokens=asked).token_cap
        most = self._model.max_decode_pixels
        if group.height * group.width > most:
            refusal = f"it has {group.height * group.width:,} pixels; at most {most:,} are decoded (max_decode_pixels)"
            return _Bounds(start, start, refusal)
        try:
            self._choose(group, start)
        except BudgetError as error:
            return _Bounds(start, start, str(error))
        return _Bounds(start, self._floor(group, start))

    def _floor(self, group: Group, start: int) -> int:
        """The lowest cap at which some strategy takes such an image, which `start` allows."""

        def taken(cap: int) -> bool:
            try:
                self._choose(group, cap)
            except BudgetError:
                return False
            return True

        if taken(1):
            return 1
        low, high = 2, start
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if taken(middle) else (middle + 1, high)
        return low

    def _choose(self, group: Group, cap: int) -> ImagePlan:
        """The plan to take of those that the strategies make under this cap. Raises `BudgetError` where none does.

        A model of any grid is best used as it was trained: its first strategy that can. A fixed model's way is its
        square, but for pictures of which that shows too little.
        """
        plans, refusals = [], []
        for strategy in self._strategies:
            try:
                plans.append(self._plan(group, strategy, cap))
            except BudgetError as error:
                refusals.append(error)
            if plans and not self._geometry.fixed:
                break
        if not plans:
            raise refusals[0]
        return plans[-1] if len(plans) > 1 and self._tiles_are_worth_it(group, *plans) else plans[0]

    def _plan(self, group: Group, strategy: Strategy, cap: int) -> ImagePlan:
        budget = self._limits.budget(self._geometry, strategy, max_tokens=cap)
        return plan_image(group.size, geometry=self._geometry, budget=budget, strategy=strategy)

    def _tiles_are_worth_it(self, group: Group, square: ImagePlan, tiled: ImagePlan) -> bool:
        one, other = Seen.of(square, self._geometry), Seen.of(tiled, self._geometry)
        if max(other.scales) > MOST_ENLARGEMENT:
            return False
        larger = min(other.scales) >= _WORTHWHILE_SCALE * min(one.scales)
        return one.shown < _LEAST_SHOWN or (larger and QUALITY[group.task].reads_text)

    # The budget

    def _plans(self, groups: Sequence[Group], bounds: Sequence[_Bounds], level: int) -> list[ImagePlan | None]:
        """What is taken where no cap is over `level` but those that can go no lower."""
        return [
            None if bound.refusal else self._lowered(group, bound, level)
            for group, bound in zip(groups, bounds, strict=True)
        ]

    def _lowered(self, group: Group, bound: _Bounds, level: int) -> ImagePlan:
        """Under the highest cap up to `level` that such an image takes: where patches are merged, a native size can
        miss a cap and meet a lower one."""
        for cap in range(min(bound.start_tokens, max(level, bound.floor_tokens)), bound.floor_tokens, -1):
            with suppress(BudgetError):
                return self._choose(group, cap)
        return self._choose(group, bound.floor_tokens)

    def _settle(
        self, groups: Sequence[Group], bounds: Sequence[_Bounds], budget: PlanBudget
    ) -> tuple[int, BudgetVerdict]:
        """The highest level of the caps, like that of water, at which the whole workload fits its budget.

        Every image counts, so a group weighs what it holds. Where not even the lowest level fits, nothing is lowered.
        """
        limit, unit = (budget.tokens, "tokens") if budget.ms is None else (budget.ms, "ms")
        assert limit is not None, "a workload is planned under one budget"

        def spent(level: int) -> float:
            plans = self._plans(groups, bounds, level)
            return self._spent([(group, plan) for group, plan in zip(groups, plans, strict=True) if plan], unit)

        low, high = 1, max(bound.start_tokens for bound in bounds)
        whole = spent(high)
        if whole <= limit:
            message = f"the workload takes {_amount(whole, unit)} of {_amount(limit, unit)}: nothing is lowered"
            return high, BudgetVerdict(budget.tokens, budget.ms, True, message)
        if (least := spent(low)) > limit:
            single = all(bound.floor_tokens == 1 for bound in bounds if not bound.refusal)
            lowest = "even 1 token an image does not fit" if single else "the workload cannot be lowered so far"
            images = sum(group.count for group, bound in zip(groups, bounds, strict=True) if not bound.refusal)
            message = (
                f"{lowest}: {images:,} images take at least {_amount(least, unit)}, and the budget is "
                f"{_amount(limit, unit)}; nothing is lowered"
            )
            return high, BudgetVerdict(budget.tokens, budget.ms, False, message)
        while low < high:
            level = (low + high + 1) // 2
            low, high = (level, high) if spent(level) <= limit else (low, level - 1)
        message = (
            f"the workload would take {_amount(whole, unit)}, and the budget is {_amount(limit, unit)}: "
            f"caps over {low:,} tokens are lowered to that"
        )
        return low, BudgetVerdict(budget.tokens, budget.ms, True, message)

    def _spent(self, taken: _Taken, unit: str) -> float:
        tokens = sum(group.count * plan.tokens for group, plan in taken)
        if unit == "tokens":
            return tokens
        assert self._cost, "milliseconds are only counted where a cost is known"
        squares = sum(group.count * _squares(plan) for group, plan in taken)
        return 1000 * self._cost.seconds(tokens, squares, self._packs(taken))

    def _packs(self, taken: _Taken) -> int:
        """Full packs of each group's images: what many at once come to."""
        return math.ceil(sum(group.count / self._images_a_pack(plan) for group, plan in taken))

    def _images_a_pack(self, plan: ImagePlan) -> int:
        return max(1, self._limits.max_batch_tokens // plan.tokens)

    def _ms(self, plan: ImagePlan) -> float | None:
        """One image's part of a full pack of such images."""
        if self._cost is None:
            return None
        return round(1000 * self._cost.seconds(plan.tokens, _squares(plan), 1 / self._images_a_pack(plan)), 3)

    # The answer

    def _totals(self, taken: _Taken) -> Totals:
        images = sum(group.count for group, _ in taken)
        fixed = self._geometry.fixed
        largest_cap = max((plan.token_cap for _, plan in taken), default=0)
        return Totals(
            images=images,
            tokens=sum(group.count * plan.tokens for group, plan in taken),
            packs=self._packs(taken),
            ms=round(self._spent(taken, "ms"), 3) if self._cost else None,
            pad_to_longest=images * max((plan.tokens for _, plan in taken), default=0),
            pad_to_cap=None if fixed else sum(group.count * plan.token_cap for group, plan in taken),
            fixed_square=images * (fixed.side // self._geometry.patch_size if fixed else math.isqrt(largest_cap)) ** 2,
        )

    def _answer(self, group: Group, bounds: _Bounds, plan: ImagePlan | None) -> GroupPlan:
        cap = plan.token_cap if plan else bounds.start_tokens
        lowered = cap < bounds.start_tokens
        filled = start_tokens(group, self._geometry) if self._geometry.fixed else cap
        return GroupPlan(
            group=group,
            take=self._choice(plan) if plan else None,
            why=why(group, plan, start=bounds.start_tokens, geometry=self._geometry, asked=self._asked)
            if plan
            else bounds.refusal or "",
            start_tokens=bounds.start_tokens,
            lowered=lowered,
            crosses=crossed(group.task, bounds.start_tokens, cap) if lowered else None,
            options=[*self._own_options(group, cap), *named_options(group.size, filled, self._geometry)],
        )

    def _choice(self, plan: ImagePlan) -> Choice:
        parameters: dict[str, str | int] = {"strategy": plan.strategy}
        if not (self._geometry.fixed and plan.strategy == "square"):
            parameters["max_tokens"] = plan.token_cap
        grid = plan.segments[0].grid
        return Choice(plan.strategy, parameters, plan.tokens, plan.token_cap, len(plan.segments), grid, self._ms(plan))

    def _own_options(self, group: Group, cap: int) -> list[Option]:
        """Every strategy of the loaded model, under the group's cap."""
        options = []
        for strategy in self._geometry.strategies:
            try:
                plan = self._plan(group, strategy, cap)
                options.append(option_of(self._model.name, plan, self._geometry, ms=self._ms(plan)))
            except BudgetError as error:
                options.append(Option(self._model.name, strategy, True, str(error)))
        return options


def _squares(plan: ImagePlan) -> int:
    return sum(segment.tokens**2 for segment in plan.segments)


def _amount(value: float, unit: str) -> str:
    return f"{value:,.0f} tokens" if unit == "tokens" else f"{value:,.1f} ms"
