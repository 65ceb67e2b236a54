"""Memory that two processes share: no place is in two hands, and what nobody has is free."""

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from service.processes.exchange.slab import Slab, SlabError, SlabView

SIZE = 2**18
PAGE = 4096


class Places(RuleBasedStateMachine):
    """Takes and frees rows in any order."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.slab = Slab(SIZE)
        self.view = SlabView(self.slab.descriptor)
        self.live: dict[int, Any] = {}
        self.count = 0

    @rule(target=taken, tokens=st.integers(1, 120))
    def take(self, tokens: int) -> int:
        rows = self.slab.rows(tokens, 768)
        self.count += 1
        rows[...] = self.count % 251
        self.live[self.count] = rows
        return self.count

    @rule(number=consumes(taken))
    def free(self, number: int) -> None:
        del self.live[number]

    @rule(number=consumes(taken))
    def keep_a_part(self, number: int) -> None:
        self.live[number] = self.live[number][:1]

    @rule()
    def trim(self) -> None:
        self.slab.trim()

    @invariant()
    def each_has_what_was_written_to_it(self) -> None:
        for number, rows in self.live.items():
            assert (rows == number % 251).all()
            place = self.slab.place_of(rows)
            if place is not None:
                assert np.array_equal(self.view.rows(place, *rows.shape), rows)

    def teardown(self) -> None:
        self.live.clear()
        whole = self.slab.rows(SIZE // PAGE, PAGE)
        assert self.slab.place_of(whole) == 0
        del whole
        self.slab.close()


TestPlaces = Places.TestCase
TestPlaces.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_rows_for_which_there_is_no_room_are_in_other_memory() -> None:
    slab = Slab(PAGE)
    first, second = slab.rows(1, 10), slab.rows(1, 10)
    assert slab.place_of(first) == 0
    assert slab.place_of(second) is None
    slab.close()


def test_an_empty_slab_gives_memory_back() -> None:
    slab = Slab(32 * 2**20)
    rows = slab.rows(32, 2**20)
    rows[...] = 1
    slab.trim()
    assert os.fstat(slab.descriptor).st_blocks * 512 == 32 * 2**20
    del rows
    slab.trim()
    assert os.fstat(slab.descriptor).st_blocks * 512 == 8 * 2**20
    slab.close()


def test_the_memory_of_rows_outlives_its_slab() -> None:
    slab = Slab(PAGE)
    view = SlabView(slab.descriptor)
    rows = slab.rows(2, 3)
    rows[...] = 9
    seen = view.rows(0, 2, 3)
    slab.close()
    del slab, view
    assert rows.sum() == seen.sum() == 54


@pytest.mark.parametrize("place", [(-1, 1, 1), (PAGE, 1, 1), (0, 2, PAGE)])
def test_a_view_reads_nothing_outside(place: tuple[int, int, int]) -> None:
    slab = Slab(PAGE)
    with pytest.raises(SlabError):
        SlabView(slab.descriptor).rows(*place)
    slab.close()


def test_nobody_can_make_a_slab_smaller() -> None:
    slab = Slab(PAGE)
    with pytest.raises(PermissionError):
        os.ftruncate(slab.descriptor, 0)
    slab.close()
