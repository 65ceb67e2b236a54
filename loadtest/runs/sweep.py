"""Raises the rate step by step to find the knee: the highest rate at which the server still keeps up.

`judge` judges one step and `next_rate` picks the next; both are pure. An overloaded server answers later and later, and
the slope of its latency gives its capacity: at `r` requests a second, a server that does `c` falls behind by `r/c - 1`
seconds each second.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.runs.backlog import FALLING_BEHIND, latency_slope
from loadtest.runs.run import RunResult
from loadtest.runs.summary import Summary
from loadtest.sending.records import Records

_ERRORS = 0.01
# Beyond this share of failed requests, or this slope, a step needs no second measurement.
_SURELY_FAILED, _STEEP = 0.1, 0.25
_MOST_STEPS = 24


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a step was too much; an empty reason if it held. `capacity` is what the server did, if known (requests/s)."""

    reason: str = ""
    capacity: float | None = None
    sure: bool = True
    by_sender: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    rate: float
    summary: Summary
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Plan:
    start: float
    factor: float
    tolerance: float
    stop: float | None = None


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Steps in the order in which they ran. `knee` is none if no rate held."""

    url: str
    steps: Sequence[Step]
    knee: float | None
    ended: str
    last: RunResult


def judge(summary: Summary, records: Records) -> Verdict:
    """Did the server keep up?"""
    if not summary.held:
        return Verdict("the sender could not hold the rate", sure=False, by_sender=True)
    failed = summary.offered - summary.answered
    if failed > 1 + _ERRORS * summary.offered:
        names = ", ".join(f"{count} × {name}" for name, count in summary.errors.items())
        share = failed / summary.offered
        return Verdict(
            f"{share:.0%} of the requests failed ({names})", summary.answered_rate, sure=share > _SURELY_FAILED
        )
    slope = latency_slope(records)
    if slope > FALLING_BEHIND:
        capacity = summary.offered_rate / (1 + slope)
        return Verdict(f"latency grows by {slope:.2f} s every second", capacity, sure=slope > _STEEP)
    if summary.slo_ms is not None and summary.latency_ms.p99 > summary.slo_ms:
        return Verdict(f"p99 of {summary.latency_ms.p99:,.0f} ms is over the SLO of {summary.slo_ms:g} ms", sure=False)
    return Verdict()


def next_rate(steps: Sequence[Step], plan: Plan) -> tuple[float | None, str]:
    """The rate to try next, or none and the reason to stop."""
    if not steps:
        return plan.start, ""
    if steps[-1].verdict.by_sender:
        return None, "the sender could not hold the rate: the knee may lie higher (more --senders?)"
    if len(steps) >= _MOST_STEPS:
        return None, f"{_MOST_STEPS} steps were not enough"
    low, high = bracket(steps)
    if high is None:
        return _raise(low or plan.start, plan)
    if low is None:
        lower = min(step.rate for step in steps) / plan.factor
        if lower < plan.start / 64:
            return None, "overloaded at every rate that was tried"
        return lower, ""
    if high.rate / low <= 1 + plan.tolerance:
        return None, f"overloaded at {high.rate:.4g}/s: {high.verdict.reason}"
    return _between(low, high, steps, plan.tolerance), ""


def bracket(steps: Sequence[Step]) -> tuple[float | None, Step | None]:
    """The highest rate that held below the lowest overloaded step, and that step."""
    over = [step for step in steps if step.verdict.reason]
    high = min(over, key=lambda step: step.rate) if over else None
    held = [step.rate for step in steps if not step.verdict.reason and (high is None or step.rate < high.rate)]
    return max(held, default=None), high


def _raise(rate: float, plan: Plan) -> tuple[float | None, str]:
    if plan.stop is None:
        return rate * plan.factor, ""
    if rate >= plan.stop:
        return None, f"{plan.stop:g}/s held, and --to allows no more"
    return min(rate * plan.factor, plan.stop), ""


def _between(low: float, high: Step, steps: Sequence[Step], tolerance: float) -> float:
    """Near the capacity that the overloaded steps show, if it is well inside the bracket, otherwise the middle."""
    shown = [step.verdict.capacity for step in steps if step.verdict.capacity]
    margin = 1 + tolerance / 2
    if shown:
        guess = float(np.median(shown)) * 0.98
        if low * margin < guess < high.rate / margin:
            return guess
        # Just above the rate that held, where the knee should be. Not repeatedly, in case the guess was poor.
        if guess <= low * margin and sum(step.rate >= guess / margin for step in steps if not step.verdict.reason) <= 2:
            return low * (1 + 0.99 * tolerance)
    return math.sqrt(low * high.rate)


class Sweep:
    """Runs the steps. `run_at` loads the server at a rate and returns the result."""

    def __init__(self, plan: Plan, run_at: Callable[[float], RunResult], tell: Callable[[Step], None]) -> None:
        self._plan = plan
        self._run_at = run_at
        self._tell = tell

    def run(self) -> SweepResult:
        steps: list[Step] = []
        while True:
            rate, ended = next_rate(steps, self._plan)
            if rate is None:
                break
            step, last = self._step(rate)
            steps.append(step)
            if last.interrupted_at_s is not None:
                steps.pop()
                ended = "interrupted"
                break
        return SweepResult(last.url, steps, bracket(steps)[0], ended, last)

    def _step(self, rate: float) -> tuple[Step, RunResult]:
        """Measures one rate. A verdict that may be noise is measured again, and the milder of the two counts."""
        result = self._run_at(rate)
        step = Step(rate, result.summary, judge(result.summary, result.records))
        if not step.verdict.sure and result.interrupted_at_s is None:
            again = self._run_at(rate)
            verdict = judge(again.summary, again.records)
            if not verdict.reason or again.interrupted_at_s is not None:
                result, step = again, Step(rate, again.summary, verdict)
        self._tell(step)
        return step, result
