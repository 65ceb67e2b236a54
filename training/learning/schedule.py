"""What training does at each step: how large it steps, what views may cost, and what weighs how much in the loss.

Pure: a step's number is all that counts. Two courses follow one another. The first learns what pictures are from views
that have lost most of their tokens, and so cost little at budgets that words can be made out at (NaViT's token
dropping, arXiv 2307.06304); the second shows views whole, and holds of which sort a picture is more firmly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_TOKENS = 16
_WARM_STEPS = 20
_FALLING = 0.6  # of the steps of a course


@dataclass(frozen=True, slots=True)
class Budgets:
    """Token caps of views before any are dropped, from 16 to `most`.

    written: least and most of what has words on it; None: as all others. dropped: what part of a view's tokens is left
    out, but for views that few would be left of (`steps`).
    """

    most: int
    written: tuple[int, int] | None = None
    dropped: float = 0.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Of terms of the loss beside the contrasts of pictures and of tokens, which count 1 each: see `losses`."""

    same: float = 1.0
    sort: float = 0.2


@dataclass(frozen=True, slots=True)
class Stage:
    """steps: how many are alike in their budgets."""

    steps: int
    budgets: Budgets


@dataclass(frozen=True, slots=True)
class Course:
    """Stages from a full rate, a share of the optimiser's own, to none."""

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
        raise IndexError(f"the course has no such step, by {step + 1}")

    def share_of_rate(self, step: int) -> float:
        """Of the optimiser's rate: it rises over the first steps, and falls to nothing over the last three fifths."""
        return self.rate * min(1.0, (step + 1) / _WARM_STEPS, (self.steps - step) / (_FALLING * self.steps))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Courses, one after the other; steps are counted through."""

    courses: Sequence[Course]

    @property
    def steps(self) -> int:
        return sum(course.steps for course in self.courses)

    def at(self, step: int) -> tuple[Course, int]:
        """The course that the step falls into, and its number there. Raises `IndexError` past the last."""
        for course in self.courses:
            if step < course.steps:
                return course, step
            step -= course.steps
        raise IndexError(f"the schedule has no such step, by {step + 1}")


def courses(cheap: tuple[int, int], dear: tuple[int, int]) -> Schedule:
    """Both, by how many steps each of their stages takes. The second stage of the first drops fewer tokens; the largest
    views come last."""
    first = [Stage(steps, Budgets(256, (64, 400), dropped)) for steps, dropped in zip(cheap, (0.65, 0.4), strict=True)]
    second = [Stage(dear[0], Budgets(144, written=(64, 400))), Stage(dear[1], Budgets(576, written=(64, 576)))]
    return Schedule((Course(first), Course(second, Weights(sort=0.5), rate=0.6)))
