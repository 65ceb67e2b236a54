"""Cores that threads share: against a slow model in small steps, and what no sharing may break."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.simulate.cores import Cores, Lane
from loadtest.simulate.events import Events

_TASKS = st.lists(
    st.tuples(st.floats(0, 0.2), st.floats(0.01, 0.2), st.integers(1, 3)), min_size=1, max_size=6
)  # when it comes, seconds, threads


def ends(tasks, cores: int) -> list[float]:
    """When each task ends."""
    events = Events()
    shared, done = Cores(events, cores), [float("nan")] * len(tasks)

    def end(number: int) -> None:
        done[number] = events.now_s

    for number, (begins_s, seconds, threads) in enumerate(tasks):
        events.at(begins_s, lambda what: shared.run(*what[:3], threads=what[3]), (seconds, end, number, threads))
    events.run()
    assert shared.busy_s == pytest.approx(sum(seconds * threads for _, seconds, threads in tasks))
    return done


def ends_in_steps(tasks, cores: int, step_s: float = 1e-3) -> list[float]:
    left = np.array([seconds for _, seconds, _ in tasks])
    begins, threads = np.array([task[0] for task in tasks]), np.array([task[2] for task in tasks])
    done, now_s = np.full(len(tasks), np.nan), 0.0
    while np.isnan(done).any():
        running = (begins <= now_s) & np.isnan(done)
        left[running] -= step_s * min(1.0, cores / max(1, threads[running].sum()))
        now_s += step_s
        done[running & (left <= 0)] = now_s
    return done.tolist()


@settings(max_examples=25)
@given(_TASKS, st.integers(1, 3))
def test_threads_share_cores_evenly(tasks, cores):
    assert ends(tasks, cores) == pytest.approx(ends_in_steps(tasks, cores), abs=0.01)


def test_two_threads_on_one_core_take_twice_as_long():
    assert ends([(0.0, 1.0, 1), (0.0, 1.0, 1)], 1) == pytest.approx([2, 2])
    assert ends([(0.0, 1.0, 1), (0.0, 1.0, 1)], 2) == pytest.approx([1, 1])


def test_a_lane_lets_so_many_onto_the_cores():
    events = Events()
    done: list[tuple[str, float]] = []
    lane = Lane(Cores(events, 4), 2)
    for name in "abc":
        lane.submit(1.0, lambda name: done.append((name, events.now_s)), name)
    events.run()
    assert done == [("a", 1.0), ("b", 1.0), ("c", 2.0)]


def test_what_a_dead_host_ran_never_ends():
    events = Events()
    cores = Cores(events, 1)
    cores.run(1.0, lambda _: pytest.fail("it ended"))
    events.at(0.5, lambda _: cores.clear())
    events.run()
    cores.run(1.0, lambda _: None)
    events.run()
    assert events.now_s == pytest.approx(2.0)


def test_a_lane_that_is_cleared_by_a_task_forgets_those_that_end_with_it():
    events = Events()
    lane = Lane(Cores(events, 4), 2)
    done: list[str] = []
    lane.submit(1.0, lambda _: lane.clear())
    lane.submit(1.0, done.append, "of before")
    events.run()
    for name in "abc":
        lane.submit(1.0, done.append, name)
    events.run(events.now_s + 1.5)
    assert done == ["a", "b"]
