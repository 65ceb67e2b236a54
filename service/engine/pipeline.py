"""The packs between the queue and the answers: how many are under way, when the next is due, and what wakes whom.

A device has as many threads as it takes packs at once. Each chooses a pack, submits it, waits for it and answers its
items; one at a time chooses and submits. So a lone item is handed from thread to thread no more often than with one
pack under way, and while one thread waits for the device, the other is there for the next pack. Where the queue fills a
pack, a thread submits it before it answers the last one's items.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from model.errors import DeviceLost
from service.engine.canary.rule import Vectors
from service.engine.canary.turns import Canary
from service.engine.client import JobResult
from service.engine.delivery import CanaryItem, Pending, deliver
from service.engine.executor import PackExecutor
from service.engine.lead import Lead
from service.engine.outcomes import NoVector, Outcome
from service.engine.under_way import Submitted

Pack = Submitted[Pending]
Heeds = Literal["all", "full", "device"]
"""What wakes a thread that waits: any arrival; an arrival that fills the next pack, or the device; only the device."""


_NOT_FINITE: Vectors = np.full((1, 1), np.nan, np.float32)


class Pipeline:
    """One device's packs. All methods but `submit`, `finish` and `run_alone` are called under the lock."""

    def __init__(self, executor: PackExecutor, canary: Canary | None = None) -> None:
        self._executor, self._canary = executor, canary
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        # What the thread heeds that has waited last. Threads that wait at the same time wait for the same, or for the
        # device.
        self._heeds: Heeds = "all"
        self._waiting = 0
        self._lead = Lead()
        self._under_way: list[Pack] = []
        self._unanswered: list[Pack] = []  # those under way, and those whose answers are being made
        self._submitting = self._alone = self._recovering = False
        # Those that need the device for themselves: packs that have failed, and `run_alone`. Nothing is chosen then.
        self._exclusive = 0

    @property
    def idle(self) -> bool:
        return not (self._under_way or self._exclusive)

    def due_in_s(self, now_s: float, tokens: int, *, full: bool) -> float:
        """Seconds until the next pack is to be chosen. Infinite if the device must get on first.

        tokens: of that pack, if it were chosen now. full: nothing is gained by choosing it later.
        """
        if self._submitting or self._alone or self._exclusive or len(self._under_way) >= self._executor.depth:
            return math.inf
        if full or not self._under_way:
            return 0.0
        return max(0.0, self._executor.under_way.free_s(now_s) - self._lead.seconds(tokens) - now_s)

    def wait(self, seconds: float | None, *, heeds: Heeds) -> bool:
        """False if nothing has happened in that time."""
        self._heeds = heeds
        self._waiting += 1
        try:
            return self._changed.wait(seconds)
        finally:
            self._waiting -= 1

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until the device has got on so far."""
        while not condition():
            self.wait(None, heeds="device")

    def arrived(self, *, full: bool) -> None:
        """Items are queued. full: they fill the next pack, and perhaps the one after it."""
        # Nobody waits while the device has all that it takes, and looking for whom to wake takes longer than queueing.
        if not self._waiting:
            return
        if full and self._heeds != "device":
            self._changed.notify_all()
        elif self._heeds == "all":
            self._changed.notify()

    def wake_all(self) -> None:
        self._changed.notify_all()

    def _device_got_on(self) -> None:
        if self._heeds != "all":
            self._changed.notify_all()

    def begin(self, items: Sequence[Pending]) -> Pack:
        """A pack that has been chosen. An item that is `alone` waits here until nothing else is under way: if the
        device dies with it, it is at fault."""
        self._alone = any(item.alone for item in items)
        if self._alone:
            self.wait_until(lambda: self.idle)
        self._submitting = True
        pack = self._executor.begin(items)
        self._under_way.append(pack)
        self._unanswered.append(pack)
        return pack

    def submit(self, pack: Pack) -> None:
        """Hands it to the device. A fault shows in `finish`."""
        self._executor.submit(pack)
        assert pack.submitted_s is not None
        self._lead.observe(sum(item.tokens for item in pack.items), pack.submitted_s - pack.began_s)
        with self.lock:
            self._submitting = False
            self._device_got_on()

    def finish(self, pack: Pack, following: Callable[[], Pack | None]) -> Pack | None:
        """Waits for a pack, and answers its items. Raises `DeviceLost` and `UntrueDevice`.

        following: begins the pack that takes its place, if there is one already; called under the lock. The device has
        it before the answers are made, since who is answered can wait and a device cannot. It is returned, and the
        caller has to finish it.
        """
        try:
            forward = self._executor.wait(pack)
        except DeviceLost:
            raise
        except Exception as error:
            self._has_failed(pack)
            self._answer(pack, self._recovered(pack, error))
            return None
        with self.lock:
            self._leave(pack)
            next_pack = following()
            self._device_got_on()
        if next_pack is not None:
            self.submit(next_pack)
        try:
            outcomes = self._executor.outcomes(pack, forward)
        except Exception as error:
            self._has_failed(pack)
            if next_pack is not None:
                # Nothing runs beside the parts of a pack, and nobody else waits for this one.
                self.finish(next_pack, lambda: None)
            self._answer(pack, self._recovered(pack, error))
            return None
        self._answer(pack, [outcomes])
        return next_pack

    def reserve(self) -> None:
        """For `run_alone`, with nothing under way."""
        self._exclusive += 1

    def run_alone(self, work: Callable[[], None]) -> None:
        """Gives the device to what no queue has: a probe of a failing one, a pack that shows its cost. After `reserve`,
        without the lock."""
        work()
        with self.lock:
            self._exclusive -= 1
            self._device_got_on()

    def _has_failed(self, pack: Pack) -> None:
        """Nothing is chosen until its parts have run."""
        with self.lock:
            self._leave(pack)
            self._exclusive += 1
            self._device_got_on()

    def _leave(self, pack: Pack) -> None:
        """The device is done with it."""
        # It may have left before: its outcomes could not be made. Another one may be alone by now.
        if pack in self._under_way:
            self._under_way.remove(pack)
            if any(item.alone for item in pack.items):
                self._alone = False

    def _recovered(self, pack: Pack, error: Exception) -> Iterable[list[Outcome]]:
        """The outcomes of a pack that has failed. Its parts run once nothing else is under way."""
        with self.lock:
            self.wait_until(lambda: not (self._under_way or self._recovering))
            self._recovering = True
        yield from self._executor.recover(pack, error)
        with self.lock:
            self._recovering = False
            self._exclusive -= 1
            self._device_got_on()

    def _answer(self, pack: Pack, parts: Iterable[list[Outcome]]) -> None:
        """parts: the outcomes of its items, in order."""
        items = list(pack.items)
        for outcomes in parts:
            done, items = items[: len(outcomes)], items[len(outcomes) :]
            # Nothing of a pack whose canary has a wrong vector is answered.
            self._judge(done, outcomes)
            deliver(list(zip(done, outcomes, strict=True)))
        with self.lock:
            if pack in self._unanswered:
                self._unanswered.remove(pack)

    def _judge(self, items: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        """Raises `UntrueDevice`."""
        vectors: dict[str, Vectors | None] = {}
        alone_s = 0.0
        for item, outcome in zip(items, outcomes, strict=True):
            if not isinstance(item, CanaryItem):
                continue
            if isinstance(outcome, JobResult):
                vectors[item.name] = outcome.pooled
                alone_s = outcome.forward_s if item.alone_in_pack else 0.0
            else:
                vectors[item.name] = _NOT_FINITE if isinstance(outcome, NoVector) else None
        if vectors and self._canary is not None:
            self._canary.judge(vectors, alone_s=alone_s)

    def abandon(self) -> list[Pending]:
        """The device is lost. Returns the items without an answer, and perhaps some that have one."""
        items = [item for pack in self._unanswered for item in pack.items]
        self._under_way.clear()
        self._unanswered.clear()
        # Nobody waits for a thread that has died.
        self._exclusive, self._recovering = 0, False
        self._changed.notify_all()
        return items
