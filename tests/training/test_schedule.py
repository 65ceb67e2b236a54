"""The training schedule: rates, stages and courses follow from the step's number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.learning.schedule import Budgets, Course, Schedule, Stage, Weights, courses
from training.train import RECIPES

WRITTEN = (16, 20)


def test_stages_follow_one_another() -> None:
    course = Course([Stage(2, Budgets(20, WRITTEN)), Stage(1, Budgets(30, WRITTEN))])
    assert [course.budgets(step).most for step in range(course.steps)] == [20, 20, 30]
    with pytest.raises(IndexError):
        course.budgets(3)


def test_each_course_counts_its_steps_from_zero() -> None:
    first, second = Course([Stage(2, Budgets(20, WRITTEN))]), Course([Stage(3, Budgets(30, WRITTEN))])
    schedule = Schedule((first, second))
    assert [schedule.at(step) for step in range(schedule.steps)] == [
        (first, 0), (first, 1), (second, 0), (second, 1), (second, 2)
    ]  # fmt: skip
    with pytest.raises(IndexError):
        schedule.at(5)


@given(st.integers(2, 2000), st.floats(0.1, 1.0))
def test_a_rate_rises_to_its_share_and_falls_to_nearly_nothing(steps: int, rate: float) -> None:
    course = Course([Stage(steps, Budgets(20, WRITTEN))], rate=rate)
    rates = [course.share_of_rate(step) for step in range(steps)]
    assert all(0 < share <= rate for share in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] <= rate * 2 / steps


def test_each_recipe_drops_most_tokens_at_first_and_none_at_the_end() -> None:
    for recipe in RECIPES.values():
        schedule = recipe.schedule
        (first, _), (last, _) = schedule.at(0), schedule.at(schedule.steps - 1)
        assert first.budgets(0) == Budgets(256, written=(64, 400), dropped=0.65)
        assert last.budgets(last.steps - 1) == Budgets(576, written=(64, 576))
        assert last.weights.sort > first.weights.sort


def test_courses_have_the_steps_that_were_asked_for() -> None:
    schedule = courses((3, 2), (5, 4))
    assert [course.steps for course in schedule.courses] == [5, 9]
    assert schedule.courses[0].weights == Weights()
