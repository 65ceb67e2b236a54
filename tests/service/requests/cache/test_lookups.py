"""A full server takes few bodies to look up, and all of them while pictures are known."""

import pytest

from service.requests.cache.lookups import Lookup, Lookups

MB = 10**6


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def let_in(lookups: Lookups, clock: Clock, *, size: int, known_in: int, seconds: int = 20, rate: int = 1000) -> int:
    """How many of `rate` requests a second come in, when one in `known_in` of them is known, or none if that is 0."""
    count = 0
    for number in range(seconds * rate):
        clock.now_s += 1 / rate
        if lookup := lookups.begin(size):
            count += 1
            if known_in and number % known_in == 0:
                lookup.found()
            lookup.end()
    return count


@pytest.mark.parametrize("size", [1000, 200_000, 4 * MB])
def test_while_none_is_known_a_second_brings_no_more_than_it_should(size: int) -> None:
    clock = Clock()
    lookups = Lookups(lambda: True, max_inflight_bytes=10**9, clock=clock)
    whole = let_in(lookups, clock, size=size, known_in=0) * (size + 256 * 1024)
    assert 0.9 * 20 <= whole / (32 * 1024**2) <= 1.1 * 20


def test_while_every_ninth_is_known_all_come_in() -> None:
    clock = Clock()
    assert (
        let_in(Lookups(lambda: True, max_inflight_bytes=10**9, clock=clock), clock, size=200_000, known_in=9) == 20_000
    )


def test_a_memory_that_is_empty_lets_nobody_in() -> None:
    assert Lookups(lambda: False, max_inflight_bytes=10**9).begin(1000) is None


def test_a_body_of_unknown_length_is_refused() -> None:
    assert Lookups(lambda: True, max_inflight_bytes=10**9).begin(0) is None


def test_slow_bodies_hold_a_part_of_the_bytes_only() -> None:
    lookups = Lookups(lambda: True, max_inflight_bytes=8 * MB, clock=Clock())
    first = lookups.begin(MB)
    assert isinstance(first, Lookup)
    assert lookups.begin(MB)
    assert lookups.begin(MB) is None
    first.end()
    assert lookups.begin(MB)
