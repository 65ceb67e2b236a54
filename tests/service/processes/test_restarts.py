"""When a process that has died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from service.processes.restarts import Restarts


def test_what_has_done_its_work_is_started_at_once_however_often_it_dies():
    restarts = Restarts()
    assert [restarts.delay_s(was_useful=True) for _ in range(100)] == [0.0] * 100


def test_what_never_does_its_work_is_started_later_and_later_up_to_half_a_minute():
    restarts = Restarts()
    assert [restarts.delay_s(was_useful=False) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.lists(st.booleans(), max_size=30))
def test_one_useful_life_makes_up_for_all_that_was_before(lives: list[bool]):
    restarts = Restarts()
    for useful in lives:
        restarts.delay_s(was_useful=useful)
    assert restarts.delay_s(was_useful=True) == 0
    assert restarts.delay_s(was_useful=False) == 0.5
