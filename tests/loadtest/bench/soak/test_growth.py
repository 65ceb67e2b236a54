"""What counts as growth: slopes within a process's life and over the run."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench.servers.processes import ProcessUse
from loadtest.bench.soak.growth import growth, life_of_sum, lives_of, slope
from loadtest.bench.soak.records import Sample

HOUR_S = 3600.0


def through(values: Sequence[float], *, from_s: float = 0.0) -> list[tuple[float, float]]:
    """A value every ten seconds."""
    return [(from_s + 10.0 * place, value) for place, value in enumerate(values)]


def use(pid: int, megabytes: float, name: str = "http") -> ProcessUse:
    return ProcessUse(pid, name, int(megabytes * 1e6), 0, 10, 0.0, threads=3)


@given(st.floats(-1.0, 1.0), st.integers(0, 200))
def test_a_slope_is_that_of_the_points_however_wild_a_quarter_of_them_is(per_s: float, seed: int) -> None:
    points = [(0, float(at_s), per_s * at_s) for at_s in range(40)]
    for place in range(seed % 4, 40, 5):
        points[place] = (0, float(place), 1e6 * (-1) ** place)
    assert slope(points, same_life=True) == pytest.approx(per_s, abs=1e-6) or abs(per_s) < 1e-6


def test_a_value_that_jumps_and_comes_back_does_not_grow() -> None:
    found = growth({1: through([400.0, 900.0, 410.0] * 120)}, seconds=HOUR_S)
    assert (found.typical, found.in_life, found.over_run) == (400.0, 0.0, 0.0)


def test_what_grows_by_the_hour_is_found_under_such_jumps() -> None:
    leak = [400.0 + 20.0 * place / 360 + 300.0 * (place % 3 == 0) for place in range(360)]
    assert growth({1: through(leak)}, seconds=HOUR_S).most == pytest.approx(18.0, abs=1.0)


def test_a_leak_shows_in_lives_too_short_to_raise_the_whole() -> None:
    lives = {
        life: through([300.0 + 15.0 * place / 120 for place in range(120)], from_s=1200.0 * life) for life in range(3)
    }
    found = growth(lives, seconds=HOUR_S)
    assert found.in_life == pytest.approx(13.5, abs=1.5)


def test_each_life_heavier_than_the_last_is_growth_though_none_grows() -> None:
    lives = {life: through([300.0 + 10.0 * life] * 60, from_s=600.0 * life) for life in range(6)}
    found = growth(lives, seconds=HOUR_S)
    assert math.isnan(found.in_life)
    assert found.over_run == pytest.approx(50.0, abs=10.0)


def test_a_process_that_warms_up_after_its_start_does_not_grow() -> None:
    lives = {life: through([100.0] * 6 + [300.0] * 174, from_s=1800.0 * life) for life in range(2)}
    assert growth(lives, seconds=HOUR_S).most == 0.0


def test_too_little_says_nothing() -> None:
    assert math.isnan(growth({1: through([1.0])}, seconds=HOUR_S).most)
    assert math.isnan(growth({}, seconds=HOUR_S).typical)


def test_the_sum_leaves_out_moments_when_a_process_is_missing_or_new() -> None:
    samples = [Sample(10.0 * place, [use(1, 100), use(2, 200)]) for place in range(60)]
    samples += [Sample(600.0, [use(1, 100)])]
    samples += [Sample(610.0 + 10.0 * place, [use(1, 100), use(3, 50 if place < 5 else 200)]) for place in range(60)]
    (points,) = life_of_sum(samples, lambda each: each.memory_bytes / 1e6).values()
    assert {value for _, value in points} == {300.0}
    assert len(points) > 100


def test_processes_are_told_apart_by_their_names() -> None:
    samples = [Sample(0.0, [use(1, 100), use(2, 300, "engine")])]
    assert lives_of(samples, "engine", lambda each: each.memory_bytes / 1e6) == {2: [(0.0, 300.0)]}
