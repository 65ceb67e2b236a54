"""How many bytes an upload reserves and when it is given up, as functions of the bytes received."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.bodies.pace import FIRST_BYTES, Upload

MB = 2**20


def upload(announced: int | None, *, copies: int = 1, most_held: int = 256 * MB, timeout_s: float = 20.0) -> Upload:
    return Upload(announced, copies, max_bytes=32 * MB, max_held_bytes=most_held, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("announced", "received", "held"),
    [
        (32 * MB, 0, FIRST_BYTES),
        (32 * MB, FIRST_BYTES // 8, FIRST_BYTES),
        (32 * MB, MB, 8 * MB),
        (32 * MB, 4 * MB, 32 * MB),
        (32 * MB, 32 * MB, 32 * MB),
        (100, 0, 100),
        (100, 100, 100),
        (None, 0, 0),
        (None, 12_345, 12_345),
    ],
)
def test_an_upload_reserves_eight_times_what_has_come_and_a_little_at_first(
    announced: int | None, received: int, held: int
) -> None:
    assert upload(announced).held_bytes(received) == held


def test_json_reserves_three_times_its_bytes_within_the_limit() -> None:
    assert upload(1000, copies=3).held_bytes(1000) == 3000
    assert upload(1000, copies=3, most_held=2000).held_bytes(1000) == 2000


SIZES = st.integers(0, 32 * MB)


@given(st.one_of(st.none(), SIZES), st.integers(1, 3), st.lists(SIZES, min_size=2, max_size=2), st.integers(0, 64 * MB))
def test_a_reservation_covers_what_has_come_and_never_shrinks(
    announced: int | None, copies: int, received: list[int], most_held: int
) -> None:
    if announced is not None:
        received = [min(size, announced) for size in received]
    few, many = sorted(received)
    made = upload(announced, copies=copies, most_held=most_held)
    assert made.held_bytes(few) >= few
    assert made.held_bytes(few) <= made.held_bytes(many)
    if announced is not None:
        assert made.held_bytes(many) <= max(announced * copies, FIRST_BYTES * copies)


@pytest.mark.parametrize(
    ("announced", "received", "limit_s"),
    [
        (32 * MB, 0, 5.0),
        (32 * MB, 8 * MB, 5.0),
        (32 * MB, 16 * MB, 10.0),
        (32 * MB, 32 * MB, 20.0),
        (0, 0, 20.0),
        (None, 0, 5.0),
        (None, FIRST_BYTES // 2, 10.0),
        (None, FIRST_BYTES, 20.0),
        (None, 32 * MB, 20.0),
    ],
)
def test_an_upload_behind_an_even_pace_is_given_up(announced: int | None, received: int, limit_s: float) -> None:
    assert upload(announced).limit_s(received) == limit_s


@given(st.one_of(st.none(), SIZES), SIZES, SIZES, st.floats(0.1, 1000))
def test_more_bytes_never_mean_less_time_and_no_time_is_over_the_limit(
    announced: int | None, one: int, other: int, timeout_s: float
) -> None:
    made = upload(announced, timeout_s=timeout_s)
    few, many = sorted((one, other))
    assert 0 < made.limit_s(few) <= made.limit_s(many) <= timeout_s


@given(st.integers(1, 32 * MB), st.floats(1.0, 100), st.integers(1, 50))
def test_an_even_upload_is_never_given_up(announced: int, timeout_s: float, steps: int) -> None:
    made = upload(announced, timeout_s=timeout_s)
    for step in range(steps):
        # The moment before the next piece arrives, with all the time that there is made use of.
        assert made.limit_s(announced * step // steps) >= timeout_s * step / steps - timeout_s / announced - 1e-9
