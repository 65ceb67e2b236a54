"""Two packs under way on a device that fails at random: what holds for every item, in whatever order things happen."""

import gc
import logging
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from model.errors import DeviceLost, DeviceOutOfMemory
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from service.engine.client import ImageJob, Job, JobResult
from service.engine.cost.fit import CostModel
from service.engine.delivery import Pending
from service.engine.device import PackUnderWay
from service.engine.engine import Engine
from service.engine.forward import JobPackOutput
from service.engine.outcomes import Outcome
from service.engine.under_way import EngineWatch
from service.errors import DeadlineExceeded, EngineFault, Unavailable
from service.metrics import Metrics
from tests.examples import many
from tests.service.engine.test_engine import FACTS, LIMITS, Counted
from tests.service.running import PATIENCE_S, until
from tests.service.threaded_device import ThreadedDevice

# What the first value of an image does to its pack.
RAISES, REFUSED, FULL_WHEN_SUBMITTED, NO_VECTOR, DIES, DIES_WHEN_SUBMITTED = range(250, 256)
FAULTS: Final = (RAISES, REFUSED, FULL_WHEN_SUBMITTED, NO_VECTOR)
DEATHS: Final = (DIES, DIES_WHEN_SUBMITTED)
# Every image has less, and the device has memory for a pack of so many.
LEAST_TOKENS = 8


class Scripted(Counted):
    """Runs a pack once it is let."""

    def __init__(self) -> None:
        self.most_tokens = LIMITS.max_batch_tokens
        self._free = threading.Semaphore(0)

    def let(self, packs: int) -> None:
        self._free.release(packs)

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        assert self._free.acquire(timeout=PATIENCE_S), "nobody let a pack run"
        if batch.tokens > self.most_tokens:
            raise DeviceOutOfMemory("full")
        if (batch.rows == DIES).any():
            raise DeviceLost("gone")
        if (batch.rows == RAISES).any():
            raise RuntimeError("a kernel failed")
        output = super().run(batch)
        output.pooled[batch.rows[batch.cu_seqlens[:-1], 0] == NO_VECTOR] = np.nan
        return output


class Device(ThreadedDevice):
    """Refuses some packs. faults: what the engine did that it must not."""

    def __init__(self, runner: Scripted) -> None:
        super().__init__(runner)
        self.faults: list[str] = []
        self._under_way: list[tuple[Any, bool]] = []

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        values = {int(job.rows[0, 0]) for job in jobs if isinstance(job, ImageJob)}
        if DIES_WHEN_SUBMITTED in values:
            raise DeviceLost("gone")
        if REFUSED in values:
            raise RuntimeError("a launch failed")
        if FULL_WHEN_SUBMITTED in values:
            raise DeviceOutOfMemory("full")
        alone = any(job.alone for job in jobs)
        self._under_way = [each for each in self._under_way if not each[0].waited]
        if len(self._under_way) >= self.depth:
            self.faults.append("too many packs under way")
        if self._under_way and (alone or any(other for _, other in self._under_way)):
            self.faults.append("something beside an item that is alone")
        if alone and len(jobs) > 1:
            self.faults.append("an item in the pack of one that is alone")
        pack = _Pack(super().submit(jobs))
        self._under_way.append((pack, alone))
        return pack


class _Pack:
    def __init__(self, pack: Any) -> None:
        self._pack = pack
        self.waited = False

    def wait(self) -> JobPackOutput:
        pack, self._pack = self._pack, None
        try:
            output: JobPackOutput = pack.wait()
            return output
        finally:
            self.waited = True
            # It keeps an error, whose frames keep it.
            pack.output = None


class Watch(EngineWatch):
    """open: packs that have begun and not ended."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.open: set[int] = set()
        self._last = 0

    def begins(self, number: int, names: Sequence[str], predicted_s: float | None) -> None:
        if number <= self._last:
            self.faults.append("packs began out of order")
        self._last = number
        self.open.add(number)

    def ends(self, number: int, *, succeeded: bool) -> None:
        if number not in self.open:
            self.faults.append("a pack ended twice, or did not begin")
        self.open.discard(number)


@dataclass(eq=False)
class Caller:
    """Receives what becomes of one item. left: it was dropped from the queue."""

    tokens: int
    value: int
    deadline_s: float | None
    left: bool = False
    outcomes: list[Outcome] = field(default_factory=list)

    def receive(self, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
        self.outcomes += [outcome for _, outcome in outcomes]

    @property
    def done(self) -> bool:
        return self.left or bool(self.outcomes)

    def is_right(self, *, died: bool) -> bool:
        first = self.outcomes[0]
        if len(self.outcomes) > 1 and not died:
            return False
        if isinstance(first, JobResult):
            return self.value < min(FAULTS) and first.pooled.tolist() == [[3 * self.tokens * self.value] * 4]
        if isinstance(first, DeadlineExceeded):
            return self.deadline_s is not None
        return died or (isinstance(first, EngineFault) and self.value in FAULTS)


class Engines(RuleBasedStateMachine):
    """One engine, from its start to its end.

    tokens_per_s: what it takes for the device's rate, whatever packs take by a clock that stands still. At a high one
    the second pack is chosen at once, at a low one when it is full or the first has ended.
    """

    tokens_per_s = 1e9

    def __init__(self) -> None:
        super().__init__()
        # Records would keep the errors that they tell of.
        logging.disable()
        gc.disable()
        self.now_s = 100.0
        self.runner, self.watch = Scripted(), Watch()
        self.device = Device(self.runner)
        cost = CostModel()
        cost.know_rate(10**12, 10**12 / self.tokens_per_s)
        self.engine = Engine(
            self.device, FACTS, LIMITS, metrics=Metrics(), cost=cost, watch=self.watch, clock=lambda: self.now_s
        )
        self.callers: list[Caller] = []
        self.items: list[Pending] = []
        self.rows: list[weakref.ref[Any]] = []
        self.died = False

    @rule(
        drawn=st.lists(
            st.tuples(
                st.integers(1, LEAST_TOKENS),
                st.sampled_from([1, 2, 3, 1, 2, 3, 1, 2, 3, *FAULTS, *DEATHS]),
                st.sampled_from([None, None, 0.0, 1.0, 5.0]),
                st.sampled_from([False, False, False, True]),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def add(self, drawn: list[tuple[int, int, float | None, bool]]) -> None:
        """Several at once, each with a receiver of its own."""
        for tokens, value, in_s, alone in drawn:
            deadline_s = None if in_s is None else self.now_s + in_s
            rows = np.full((tokens, 3), value, np.uint8)
            job = ImageJob(rows, ((tokens, 1),), tokens, deadline_s, False, alone)
            caller = Caller(tokens, value, deadline_s)
            try:
                self.items += self.engine.enqueue([job], caller)
            except Unavailable:
                assert self.died
                continue
            self.died = self.died or value in DEATHS
            self.callers.append(caller)
            self.rows.append(weakref.ref(rows))

    @rule(place=st.integers(0, 10))
    def leave(self, place: int) -> None:
        if place < len(self.items):
            self.callers[-1 - place].left |= self.engine.drop(self.items[-1 - place])

    @rule(packs=st.integers(1, 4))
    def let(self, packs: int) -> None:
        self.runner.let(packs)

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(tokens=st.sampled_from([LEAST_TOKENS, LIMITS.max_batch_tokens]))
    def memory_changes(self, tokens: int) -> None:
        """Each image fits by itself."""
        self.runner.most_tokens = tokens

    @invariant()
    def nothing_is_done_that_must_not_be(self) -> None:
        assert self.device.faults == self.watch.faults == []

    def teardown(self) -> None:
        """Each item was answered once, as it should be, and nothing of it is left, even without collecting garbage."""
        try:
            self._end()
        finally:
            logging.disable(logging.NOTSET)
            gc.enable()

    def _end(self) -> None:
        self.runner.let(1000)
        until(lambda: all(caller.done for caller in self.callers))
        assert self.engine.close(timeout_s=PATIENCE_S)
        self.nothing_is_done_that_must_not_be()
        for caller in self.callers:
            assert caller.left != bool(caller.outcomes)
            if not caller.left:
                assert caller.is_right(died=self.died), caller
        self.items.clear()
        if not self.died:
            assert not self.watch.open
            # The device's thread may still be about to let go of an error, whose frames keep rows.
            until(lambda: all(kept() is None for kept in self.rows))


class EnginesOfSlowDevices(Engines):
    tokens_per_s = 1.0


TestEngines = Engines.TestCase
TestEngines.settings = many(40)
TestEnginesOfSlowDevices = EnginesOfSlowDevices.TestCase
TestEnginesOfSlowDevices.settings = many(40)
