"""From the thread that has a result to whoever waits for it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from service.engine.client import Job, JobResult
from service.engine.outcomes import Outcome
from service.engine.queue.room import QueuedItem
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable

# Futures that are resolved in one turn of an event loop.
_RESOLVED_A_TURN = 128


class Receiver(Protocol):
    """Takes outcomes. Equal receivers get those of a pack in one call."""

    def receive(self, outcomes: "Sequence[tuple[Pending, Outcome]]") -> None:
        """Called by any thread, which may hold the engine's lock: must neither wait nor raise. What an item was given
        first counts."""
        ...


class Pending(QueuedItem):
    """A job in the queue, and where its outcome goes. future: for a `LoopReceiver`."""

    __slots__ = ("future", "job", "receiver")

    def __init__(self, job: Job, receiver: Receiver, *, arrived_s: float) -> None:
        super().__init__(
            tokens=job.tokens, arrived_s=arrived_s, deadline_s=job.deadline_s, alone=job.alone, bulk=job.bulk
        )
        self.job, self.receiver = job, receiver
        self.future: asyncio.Future[JobResult] | None = None


class _Nobody:
    """Nobody waits for the canary."""

    def receive(self, outcomes: "Sequence[tuple[Pending, Outcome]]") -> None: ...


_NOBODY = _Nobody()


class CanaryItem(Pending):
    """A picture or a text of the canary. It never was in the queue. alone_in_pack: nothing in its pack was sent by
    anybody."""

    __slots__ = ("alone_in_pack", "name")

    def __init__(self, name: str, job: Job, *, arrived_s: float, alone_in_pack: bool) -> None:
        super().__init__(job, _NOBODY, arrived_s=arrived_s)
        self.name, self.alone_in_pack = name, alone_in_pack


@dataclass(frozen=True, slots=True)
class LoopReceiver:
    """Resolves the futures of an event loop with one call to it, however many there are."""

    loop: asyncio.AbstractEventLoop

    def receive(self, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
        # Nobody waits on a loop that has closed.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_resolve, self.loop, outcomes)


def deliver(outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
    """With one call to each receiver."""
    for receiver in {item.receiver for item, _ in outcomes}:
        receiver.receive([(item, outcome) for item, outcome in outcomes if item.receiver == receiver])


def _resolve(loop: asyncio.AbstractEventLoop, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
    """A pack may hold thousands of texts, whose callers would hold the loop if all went on at once."""
    if len(outcomes) > _RESOLVED_A_TURN:
        loop.call_soon(_resolve, loop, outcomes[_RESOLVED_A_TURN:])
    for item, outcome in outcomes[:_RESOLVED_A_TURN]:
        future = item.future
        if future is None or future.done():
            continue
        if isinstance(outcome, ServiceError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def failed() -> EngineFault:
    return EngineFault("the device failed; nothing was charged")


def stopped() -> Unavailable:
    return Unavailable("the engine has stopped")


def untrue(what: str) -> Unavailable:
    return Unavailable(f"the device gives wrong vectors, and is being replaced: {what}")


def too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline passed before its turn came, or would have while it ran (timeout_ms, default_timeout_ms)"
    )
