"""Plans a workload under a budget: what each group of images costs under every strategy, and which one to take.

Pure: no clock, no I/O, no tensor. Tokens come from the arithmetic of `/embed` itself, milliseconds from a fit to packs
that have run.
"""

import math
from collections.abc import Sequence
from functools import partial

from model.errors import BudgetError
from model.sizing.plan import ImagePlan
from service.engine.cost.fit import CostFit
from service.planning.answer import BudgetVerdict, Choice, GroupPlan, Option, Totals, WorkloadPlan
from service.planning.choice import CapRange, Chooser, ServedModel
from service.planning.options import named_options, option_of
from service.planning.pack_cost import PackCost, Taken, total_tokens
from service.planning.reasons import crossed, start_tokens, why
from service.planning.workload import Group, PlanRequest


class Planner:
    """Plans one request for one model."""

    def __init__(self, model: ServedModel, asked: PlanRequest, cost: CostFit | None = None) -> None:
        """Raises `BudgetError` for a strategy that the model lacks, and for milliseconds if no cost is known."""
        if asked.budget_ms is not None and cost is None:
            raise BudgetError("no packs have run yet to measure milliseconds; give budget_tokens", param="budget_ms")
        self._model, self._geometry, self._asked = model, model.geometry, asked
        self._chooser = Chooser(model, asked.strategy)
        self._cost = PackCost(model.limits.max_batch_tokens, cost)

    def plan(self) -> WorkloadPlan:
        groups = self._asked.workload
        ranges = [self._chooser.cap_range(group) for group in groups]
        level, verdict = self._level(ranges)
        plans = self._plans(ranges, level)
        answers = [self._answer(*of_group) for of_group in zip(groups, ranges, plans, strict=True)]
        return WorkloadPlan(self._model.name, verdict, self._totals(self._taken(plans)), answers, self._cost.fit)

    def _plans(self, ranges: Sequence[CapRange], level: int) -> list[ImagePlan | None]:
        pairs = zip(self._asked.workload, ranges, strict=True)
        return [self._chooser.lowered(group, caps, level) for group, caps in pairs]

    def _taken(self, plans: Sequence[ImagePlan | None]) -> Taken:
        return [(group, plan) for group, plan in zip(self._asked.workload, plans, strict=True) if plan]

    def _level(self, ranges: Sequence[CapRange]) -> tuple[int, BudgetVerdict]:
        """Caps are lowered like water levels: the highest level at which the workload fits its budget.

        Every image counts. If not even the lowest level fits, nothing is lowered.
        """
        asked = self._asked
        limit, verdict = asked.budget, partial(BudgetVerdict, asked.budget_tokens, asked.budget_ms)

        def spent(level: int) -> float:
            return self._spent(self._taken(self._plans(ranges, level)))

        def amount(value: float) -> str:
            return f"{value:,} tokens" if asked.budget_ms is None else f"{value:,.1f} ms"

        low, high = 1, max(caps.start_tokens for caps in ranges)
        most, least = spent(high), spent(low)
        if most <= limit:
            return high, verdict(True, f"the workload takes {amount(most)} of {amount(limit)}: no cap is lowered")
        if least > limit:
            single = all(caps.floor_tokens == 1 for caps in ranges if not caps.refusal)
            lowest = "not even 1 token an image fits" if single else "the workload cannot be lowered that far"
            images = sum(group.count for group, caps in zip(asked.workload, ranges, strict=True) if not caps.refusal)
            takes = f"{images:,} images take at least {amount(least)}, and the budget is {amount(limit)}"
            return high, verdict(False, f"{lowest}: {takes}; no cap is lowered")
        while low < high:
            level = (low + high + 1) // 2
            low, high = (level, high) if spent(level) <= limit else (low, level - 1)
        would = f"the workload would take {amount(most)}, and the budget is {amount(limit)}"
        return low, verdict(True, f"{would}: caps above {low:,} tokens are lowered to {low:,}")

    def _spent(self, taken: Taken) -> float:
        """In the budget's unit."""
        if self._asked.budget_ms is None:
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
            reason = why(group, plan, start=start, geometry=self._geometry, asked=self._asked.strategy)
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
