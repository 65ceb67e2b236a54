"""The packs that a device has: whose turn it is, and where their time goes."""

import gc
import weakref
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest

from model.errors import DeviceOutOfMemory
from model.running.output import RunnerOutput
from service.engine.client import Job, TextJob
from service.engine.device import PackUnderWay
from service.engine.forward import JobPackOutput
from service.engine.lead import Lead
from service.engine.under_way import Submitted, UnderWay
from tests.service.engine.test_executor import Clock, Item


class Timed:
    """A device that works by itself, by a clock that its host moves: a pack takes a second a token."""

    depth = 2

    def __init__(self, clock: Clock, *, submit_s: float = 0.0) -> None:
        self._clock, self._submit_s = clock, submit_s
        self._free_s = 0.0

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        self._clock.now_s += self._submit_s
        self._free_s = max(self._free_s, self._clock.now_s) + sum(job.tokens for job in jobs)
        return Pack(self._clock, self._free_s, jobs)


class Pack:
    def __init__(self, clock: Clock, ends_s: float, jobs: Sequence[Job]) -> None:
        self._clock, self._ends_s, self._jobs = clock, ends_s, jobs

    def wait(self) -> JobPackOutput:
        self._clock.now_s = max(self._clock.now_s, self._ends_s)
        texts = RunnerOutput(np.ones((len(self._jobs), 4), np.float32), None, 0)
        return JobPackOutput(self._jobs, None, texts, busy_s=float(sum(job.tokens for job in self._jobs)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def text(tokens: int) -> Item:
    return Item(TextJob(np.ones(tokens, np.int32), token_cap=8, deadline_s=None))


def begun(packs: UnderWay, tokens: int) -> Submitted[Item]:
    pack = packs.begin([text(tokens)])
    pack.predicted_s = float(tokens)
    packs.submit(pack)
    return pack


def test_the_wait_for_the_pack_ahead_is_told_from_the_time_on_the_device(clock: Clock) -> None:
    packs = UnderWay(Timed(clock, submit_s=0.5), clock=clock)
    first, second = begun(packs, 8), begun(packs, 4)
    forwards = [packs.wait(first), packs.wait(second)]
    found = [(forward.began_s, forward.pack_s, forward.ahead_s, forward.forward_s) for forward in forwards]
    assert found == [(0.0, 0.5, 0.0, 8.0), (0.5, 0.5, 7.5, 4.0)]
    assert [forward.ended_s for forward in forwards] == [8.5, 12.5]


def test_a_pack_takes_from_the_others_what_the_host_takes_too_long_for(clock: Clock) -> None:
    packs = UnderWay(Timed(clock), clock=clock)
    first, second = begun(packs, 3), begun(packs, 3)
    assert [packs.wait(first).taken_s, packs.wait(second).taken_s] == [3.0, 3.0]
    third = begun(packs, 3)
    clock.now_s += 5
    assert packs.wait(third).taken_s == 5.0


def test_a_device_is_free_once_all_that_it_has_is_done(clock: Clock) -> None:
    packs = UnderWay(Timed(clock), clock=clock)
    assert packs.free_s(2.0) == 2.0
    first = begun(packs, 3)
    assert packs.free_s(1.0) == 3.0
    begun(packs, 4)
    assert packs.free_s(1.0) == 7.0
    # The first one takes longer than predicted.
    assert packs.free_s(6.0) == 10.0
    packs.wait(first)
    assert packs.free_s(4.0) == 7.0


def test_a_pack_runs_since_the_one_before_has_ended(clock: Clock) -> None:
    packs = UnderWay(Timed(clock), clock=clock)
    assert packs.running_since_s is None
    first, second = begun(packs, 3), begun(packs, 4)
    assert packs.running_since_s == 0.0
    packs.wait(first)
    assert packs.running_since_s == 3.0
    packs.wait(second)
    assert packs.running_since_s is None


@pytest.mark.parametrize(("tokens", "patience_s"), [(3, 60.0), (7, 70.0)])
def test_a_pack_is_late_after_a_least_time_and_ten_times_what_was_expected(
    clock: Clock, tokens: int, patience_s: float
) -> None:
    packs = UnderWay(Timed(clock), clock=clock)
    assert packs.late_s(1e9, least_s=60) is None
    begun(packs, tokens)
    assert packs.late_s(patience_s - 1, least_s=60) is None
    assert packs.late_s(patience_s, least_s=60) == patience_s


def test_a_pack_is_chosen_earlier_by_what_it_takes_the_host() -> None:
    lead = Lead()
    at_first_s = lead.seconds(1000)
    lead.observe(10_000, 0.004)
    lead.observe(100, 0.0001)
    assert 0.004 < lead.seconds(10_000) < 0.006
    assert at_first_s < lead.seconds(0) < lead.seconds(1000) < 0.002


def test_the_lead_forgets_a_pack_that_took_long_once() -> None:
    lead = Lead()
    lead.observe(100, 10.0)
    for _ in range(8):
        lead.observe(100, 0.001)
    assert lead.seconds(100) < 0.01


class Refusing(Timed):
    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        raise DeviceOutOfMemory("full")


def test_a_pack_that_could_not_be_submitted_is_not_kept(clock: Clock) -> None:
    """Not even until garbage is collected: its error has the frames that had memory of the device."""
    packs, given = UnderWay(Refusing(clock), clock=clock), text(4)
    assert isinstance(given.job, TextJob)
    kept = weakref.ref(given.job.ids)
    gc.disable()
    try:
        pack = packs.begin([given])
        packs.submit(pack)
        with suppress(DeviceOutOfMemory):
            packs.wait(pack)
        del pack, given
        assert kept() is None
    finally:
        gc.enable()
