"""The training schedule: the learning rate, the budgets of views and the weights of losses at each step.

Pure: only the step's number counts. Two courses follow one another. The first uses views that have lost most of their
tokens, so budgets at which words can be read cost little (NaViT's token dropping, arXiv 2307.06304). The second uses
whole views, and gives the sort of a picture more weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_TOKENS = 16
_WARM_STEPS = 20
_FALLING = 0.6  # share of a course's steps in which the rate falls


@dataclass(frozen=True, slots=True)
class Budgets:
    """Token caps of views before any tokens are dropped. most: greatest cap of pictures without words; the least is 16.

    written: least and greatest cap of pictures with words. dropped: share of a view's tokens that are dropped. Small
    views lose fewer (`steps`).
    """

    most: int
    written: tuple[int, int]
    dropped: float = 0.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of loss terms. The contrasts of pictures and of tokens weigh 1 each (`losses`)."""

    same: float = 1.0
    sort: float = 0.2


@dataclass(frozen=True, slots=True)
class Stage:
    """steps: how many steps have these budgets."""

    steps: int
    budgets: Budgets


@dataclass(frozen=True, slots=True)
class Course:
    """Stages under one learning rate. rate: its highest value, as a share of the optimiser's own."""

    stages: Sequence[Stage]
    weights: Weights = Weights()
    rate: float = 1.0

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def budgets(self, step: int) -> Budgets:
        for stage in self.stages:
            if step < stage.steps:
                return stage.budgets
            step -= stage.steps
        raise IndexError(f"the step is {step + 1} past the last of the course")

    def share_of_rate(self, step: int) -> float:
        """Returns the share of the optimiser's rate.

        It rises over the first steps, and falls to nothing over the last three fifths.
        """
        return self.rate * min(1.0, (step + 1) / _WARM_STEPS, (self.steps - step) / (_FALLING * self.steps))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Courses, one after the other. Steps are numbered through all of them."""

    courses: Sequence[Course]

    @property
    def steps(self) -> int:
        return sum(course.steps for course in self.courses)

    def at(self, step: int) -> tuple[Course, int]:
        """Returns the course of a step, and the step's number within it. Raises `IndexError` past the last."""
        for course in self.courses:
            if step < course.steps:
                return course, step
            step -= course.steps
        raise IndexError(f"the step is {step + 1} past the last of the schedule")


def courses(cheap: tuple[int, int], dear: tuple[int, int]) -> Schedule:
    """Returns both courses. cheap, dear: how many steps each of their two stages takes.

    The second stage of the first course drops fewer tokens. The largest views come last.
    """
    first = [Stage(steps, Budgets(256, (64, 400), dropped)) for steps, dropped in zip(cheap, (0.65, 0.4), strict=True)]
    second = [Stage(dear[0], Budgets(144, written=(64, 400))), Stage(dear[1], Budgets(576, written=(64, 576)))]
    return Schedule((Course(first), Course(second, Weights(sort=0.5), rate=0.6)))
