"""How many tokens packs may hold: less after memory ran out repeatedly, and more again after a while."""

from hypothesis import given
from hypothesis import strategies as st

from service.engine.pack_bound import RECOVERY_S, PackBound


def test_one_pack_without_memory_changes_nothing():
    bound = PackBound(4096, least=1024)
    bound.out_of_memory(4000, 0.0)
    assert bound.tokens(0.0) == 4096


def test_a_second_one_soon_after_lowers_the_bound_to_three_quarters_of_what_failed():
    bound = PackBound(4096, least=1024)
    bound.out_of_memory(4000, 0.0)
    bound.out_of_memory(3000, RECOVERY_S - 1)
    assert bound.tokens(RECOVERY_S - 1) == 2250


def test_two_of_them_weeks_apart_change_nothing():
    bound = PackBound(4096, least=1024)
    for now_s in (0.0, 14 * 86_400.0):
        bound.out_of_memory(4000, now_s)
        assert bound.tokens(now_s) == 4096


def test_the_bound_rises_by_a_third_at_a_time():
    bound = PackBound(4096, least=1024)
    for _ in range(3):
        bound.out_of_memory(2000, 0.0)
    times_s = [0.0, RECOVERY_S - 1, RECOVERY_S, 2 * RECOVERY_S, 3 * RECOVERY_S, 1000 * RECOVERY_S]
    assert [bound.tokens(now_s) for now_s in times_s] == [1500, 1500, 2000, 2667, 3556, 4096]


def test_a_raised_bound_is_lowered_again_only_by_a_second_fault():
    bound = PackBound(4096, least=1024)
    for _ in range(2):
        bound.out_of_memory(2000, 0.0)
    bound.out_of_memory(2000, RECOVERY_S)
    assert bound.tokens(RECOVERY_S) == 2000
    bound.out_of_memory(2000, RECOVERY_S)
    assert bound.tokens(RECOVERY_S) == 1500


@given(
    st.integers(1, 4096),
    st.integers(0, 4096),
    st.lists(st.tuples(st.integers(1, 8192), st.floats(0, 3 * RECOVERY_S)), max_size=30),
)
def test_the_bound_stays_in_range_never_rises_at_a_fault_and_always_recovers(
    least: int, more: int, faults: list[tuple[int, float]]
):
    bound, now_s = PackBound(least + more, least=least), 0.0
    for tokens, passed_s in faults:
        before = bound.tokens(now_s)
        now_s += passed_s
        assert bound.tokens(now_s) >= before
        before = bound.tokens(now_s)
        bound.out_of_memory(tokens, now_s)
        assert least <= bound.tokens(now_s) <= before
    assert bound.tokens(now_s + 40 * RECOVERY_S) == least + more
