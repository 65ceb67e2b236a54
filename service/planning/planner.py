"""Plans a workload under a budget: what each group of images costs under every strategy, and which one to take.

Pure: no clock, no I/O, no tensor. Tokens come from the arithmetic of `/embed` itself, milliseconds from a fit to packs
that have run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import BudgetError
from model.sizing.geometry import Strategy
from model.sizing.plan import ImagePlan
from service.engine.cost import CostFit
from service.planning.answer import BudgetVerdict, Choice, GroupPlan, Option, Totals, WorkloadPlan
from service.planning.choice import CapRange, Chooser, ServedModel
from service.planning.options import named_options, option_of
from service.planning.pack_cost import PackCost, Taken, total_tokens
from service.planning.reasons import crossed, start_tokens, why
from service.planning.workload import Group


@dataclass(frozen=True, slots=True)
class PlanBudget:
    """For the whole workload: tokens, or milliseconds of one device."""

    tokens: int | None = None
    ms: float | None = None

    @property
    def limit(self) -> float:
        limit = self.tokens if self.ms is None else self.ms
        assert limit is not None, "a workload is planned under one budget"
        return limit

    def amount(self, value: float) -> str:
        """In the budget's unit."""
        return f"{value:,.0f} tokens" if self.ms is None else f"{value:,.1f} ms"

    def verdict(self, message: str, *, fits: bool = True) -> BudgetVerdict:
        return BudgetVerdict(self.tokens, self.ms, fits, message)


class Planner:
    """Plans workloads for one model."""

    def __init__(self, model: ServedModel, *, strategy: Strategy | None = None, cost: CostFit | None = None) -> None:
        """strategy: the only one to consider. Raises `BudgetError` if the model lacks it."""
        self._model, self._geometry, self._insisted = model, model.geometry, strategy
        self._chooser = Chooser(model, strategy)
        self._cost = PackCost(model.limits.max_batch_tokens, cost)

    def plan(self, groups: Sequence[Group], budget: PlanBudget) -> WorkloadPlan:
        """Raises `BudgetError` for a budget in milliseconds if no cost is known."""
        if budget.ms is not None and self._cost.fit is None:
            raise BudgetError("no packs have run yet to measure milliseconds; give budget_tokens", param="budget_ms")
        ranges = [self._chooser.cap_range(group) for group in groups]
        level, verdict = self._level(groups, ranges, budget)
        plans = self._plans(groups, ranges, level)
        answers = [self._answer(*of_group) for of_group in zip(groups, ranges, plans, strict=True)]
        totals = self._totals(_taken(groups, plans))
        return WorkloadPlan(self._model.name, verdict, totals, answers, self._cost.fit)

    def _plans(self, groups: Sequence[Group], ranges: Sequence[CapRange], level: int) -> list[ImagePlan | None]:
        return [self._chooser.lowered(group, caps, level) for group, caps in zip(groups, ranges, strict=True)]

    def _level(
        self, groups: Sequence[Group], ranges: Sequence[CapRange], budget: PlanBudget
    ) -> tuple[int, BudgetVerdict]:
        """Caps are lowered like water levels: the highest level at which the workload fits its budget.

        Every image counts. If not even the lowest level fits, nothing is lowered.
        """

        def spent(level: int) -> float:
            return self._spent(_taken(groups, self._plans(groups, ranges, level)), budget)

        limit, amount = budget.limit, budget.amount
        low, high = 1, max(caps.start_tokens for caps in ranges)
        most, least = spent(high), spent(low)
        if most <= limit:
            return high, budget.verdict(f"the workload takes {amount(most)} of {amount(limit)}: no cap is lowered")
        if least > limit:
            single = all(caps.floor_tokens == 1 for caps in ranges if not caps.refusal)
            lowest = "not even 1 token an image fits" if single else "the workload cannot be lowered that far"
            images = sum(group.count for group, caps in zip(groups, ranges, strict=True) if not caps.refusal)
            takes = f"{images:,} images take at least {amount(least)}, and the budget is {amount(limit)}"
            return high, budget.verdict(f"{lowest}: {takes}; no cap is lowered", fits=False)
        while low < high:
            level = (low + high + 1) // 2
            low, high = (level, high) if spent(level) <= limit else (low, level - 1)
        return low, budget.verdict(
            f"the workload would take {amount(most)}, and the budget is {amount(limit)}: "
            f"caps above {low:,} tokens are lowered to {low:,}"
        )

    def _spent(self, taken: Taken, budget: PlanBudget) -> float:
        if budget.ms is None:
            return total_tokens(taken)
        ms = self._cost.ms(taken)
        assert ms is not None, "milliseconds are counted only if a cost is known"
        return ms

    def _totals(self, taken: Taken) -> Totals:
        images = sum(group.count for group, _ in taken)
        largest_cap = max((plan.token_cap for _, plan in taken), default=0)
        ms = self._cost.ms(taken)
        return Totals(
            images=images,
            tokens=total_tokens(taken),
            packs=self._cost.packs(taken),
            ms=None if ms is None else round(ms, 3),
            pad_to_longest=images * max((plan.tokens for _, plan in taken), default=0),
            pad_to_cap=None if self._geometry.fixed else sum(group.count * plan.token_cap for group, plan in taken),
            fixed_square=images * (self._geometry.fixed_tokens("square") or math.isqrt(largest_cap) ** 2),
        )

    def _answer(self, group: Group, caps: CapRange, plan: ImagePlan | None) -> GroupPlan:
        start = caps.start_tokens
        cap = plan.token_cap if plan else start
        lowered = cap < start
        filled = start_tokens(group, self._geometry) if self._geometry.fixed else cap
        reason = caps.refusal or ""
        if plan:
            reason = why(group, plan, start=start, geometry=self._geometry, asked=self._insisted)
        return GroupPlan(
            group=group,
            take=self._choice(plan) if plan else None,
            why=reason,
            start_tokens=start,
            lowered=lowered,
            crosses=crossed(group.task, start, cap) if lowered else None,
            options=[*self._own_options(group, cap), *named_options(group.size, filled, self._geometry)],
        )

    def _choice(self, plan: ImagePlan) -> Choice:
        parameters: dict[str, str | int] = {"strategy": plan.strategy}
        if self._geometry.fixed_tokens(plan.strategy) is None:
            parameters["max_tokens"] = plan.token_cap
        grid, segments = plan.segments[0].grid, len(plan.segments)
        ms = self._cost.image_ms(plan)
        return Choice(plan.strategy, parameters, plan.tokens, plan.token_cap, segments, grid, ms)

    def _own_options(self, group: Group, cap: int) -> list[Option]:
        """Every strategy of the served model under the group's cap."""
        name, options = self._model.name, []
        for strategy in self._geometry.strategies:
            try:
                plan = self._chooser.plan(group, strategy, cap)
                options.append(option_of(name, plan, self._geometry, ms=self._cost.image_ms(plan)))
            except BudgetError as error:
                options.append(Option(name, strategy, True, str(error)))
        return options


def _taken(groups: Sequence[Group], plans: Sequence[ImagePlan | None]) -> Taken:
    return [(group, plan) for group, plan in zip(groups, plans, strict=True) if plan]
