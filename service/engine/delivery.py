"""From the thread that has a result to the event loop that waits for it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from service.engine.client import Job, JobResult
from service.engine.outcomes import Outcome
from service.engine.scheduler import QueuedItem
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable

# Futures that are resolved in one turn of an event loop.
_RESOLVED_A_TURN = 128


class Pending(QueuedItem):
    """A job in the queue, and where its result goes: to the running loop of the thread that makes this."""

    __slots__ = ("future", "job", "loop")

    def __init__(self, job: Job, *, arrived_s: float) -> None:
        super().__init__(tokens=job.tokens, arrived_s=arrived_s, deadline_s=job.deadline_s, alone=job.alone)
        self.job = job
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[JobResult] = self.loop.create_future()


def deliver(outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
    """Resolves futures with one call to each of their loops, however many items there are. From any thread; what an
    item was given first counts."""
    for loop in {item.loop for item, _ in outcomes}:
        its = [(item.future, outcome) for item, outcome in outcomes if item.loop is loop]
        # Nobody waits on a loop that has closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, loop, its)


def _resolve(loop: asyncio.AbstractEventLoop, outcomes: Sequence[tuple["asyncio.Future[JobResult]", Outcome]]) -> None:
    """A pack may hold thousands of texts, whose callers would hold the loop if all went on at once."""
    if len(outcomes) > _RESOLVED_A_TURN:
        loop.call_soon(_resolve, loop, outcomes[_RESOLVED_A_TURN:])
    for future, outcome in outcomes[:_RESOLVED_A_TURN]:
        if future.done():
            continue
        if isinstance(outcome, ServiceError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def failed() -> EngineFault:
    return EngineFault("the device failed; nothing was charged")


def stopped() -> Unavailable:
    return Unavailable("the engine has stopped")


def too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline passed before its turn came, or would have while it ran (timeout_ms, default_timeout_ms)"
    )
