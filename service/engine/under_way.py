"""The packs that a device has and has not given back: their order, their times, and what a watch is told of them.

Knows no queue, no future and no fault but a lost device. Several threads may wait, each for its own pack.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from model.errors import DeviceLost
from service.engine.client import Job
from service.engine.device import Device, PackUnderWay
from service.engine.forward import Forward, JobPackOutput

# A pack may take so many times as long as was expected of it.
_PATIENCE = 10.0


class EngineWatch:
    """Is told of each pack before it is submitted and after it has ended, so that it knows what a dead device had.

    This one ignores it all.
    """

    def begins(self, number: int, names: Sequence[str], predicted_s: float | None) -> None:
        """number: of the pack; a later one has a greater number. names: of the items in it. predicted_s: how long the
        device takes for it, once the packs before it have ended."""

    def ends(self, number: int, *, succeeded: bool) -> None:
        """Not called if the device is lost."""

    def lost(self) -> None:
        """The engine will run no more. Called by the thread that knows it, before anyone is answered."""

    def untrue(self, what: str) -> None:
        """As `lost`, because the canary has had wrong vectors. what: was wrong, as a clause."""


class ExecutorItem(Protocol):
    """An image or a text to run. arrived_s: when it was queued."""

    @property
    def job(self) -> Job: ...

    @property
    def arrived_s(self) -> float: ...


ItemT = TypeVar("ItemT", bound=ExecutorItem)


@dataclass(slots=True, eq=False)
class Submitted(Generic[ItemT]):
    """A pack from its choice to its end.

    began_s: when it was chosen. squares: Σn² over the segments of all items, 0 before it is submitted. predicted_s: how
    long the device takes for it, None if that is not known. submitted_s: when the device had it, None before. beside:
    another pack was under way for a part of the time. error: why it could not be submitted.
    """

    number: int
    items: Sequence[ItemT]
    began_s: float
    squares: int = 0
    predicted_s: float | None = None
    beside: bool = False
    submitted_s: float | None = None
    pack: PackUnderWay | None = None
    error: Exception | None = None

    @property
    def jobs(self) -> list[Job]:
        return [item.job for item in self.items]


class UnderWay:
    """One device's packs, in the order of their submission."""

    def __init__(
        self, device: Device, *, watch: EngineWatch | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._device: Device | None = device
        self._clock = clock
        self._watch = watch or EngineWatch()
        self._numbers = itertools.count(1)
        self._submitting, self._ending = threading.Lock(), threading.Lock()
        # Threads add and remove in one step each, and readers take a copy.
        self._packs: list[Submitted[Any]] = []
        self._ended_s = -math.inf  # when the last pack ended

    def release(self) -> None:
        """Lets go of the device. Nothing is submitted any more."""
        self._device = None

    @property
    def running_since_s(self) -> float | None:
        """Since when the device, or the host for it, works on the first pack; None if there is none."""
        first = self._packs[:1]
        return max(first[0].began_s, self._ended_s) if first else None

    def late_s(self, now_s: float, *, least_s: float) -> float | None:
        """How long the first pack has run, if that is `least_s` and ten times what was expected of it."""
        since_s, first = self.running_since_s, self._packs[:1]
        if since_s is None or not first:
            return None
        runs_s = now_s - since_s
        return runs_s if runs_s >= max(least_s, _PATIENCE * (first[0].predicted_s or 0.0)) else None

    def free_s(self, now_s: float) -> float:
        """When all that the device has is expected to be done; `now_s` if that is nothing, or not known."""
        free_s = now_s
        for place, pack in enumerate(list(self._packs)):
            starts_s = (
                free_s if place else max(pack.began_s if pack.submitted_s is None else pack.submitted_s, self._ended_s)
            )
            free_s = max(now_s, starts_s + (pack.predicted_s or 0.0))
        return free_s

    def begin(self, items: Sequence[ItemT]) -> Submitted[ItemT]:
        """A pack that has been chosen, and takes its place behind the others."""
        pack = Submitted(next(self._numbers), items, self._clock(), beside=bool(self._packs))
        for other in list(self._packs):
            other.beside = True
        self._packs.append(pack)
        return pack

    def submit(self, pack: Submitted[ItemT]) -> None:
        """Hands it to the device. What goes wrong with it shows when it is waited for."""
        assert self._device is not None, "a pack was submitted after the end"
        self._watch.begins(pack.number, [job.name for job in pack.jobs if job.name], pack.predicted_s)
        try:
            with self._submitting:
                pack.pack = self._device.submit(pack.jobs)
        except Exception as error:
            pack.error = error
        pack.submitted_s = self._clock()

    def wait(self, pack: Submitted[ItemT]) -> Forward:
        """Blocks until the device has run it. Raises what submitting and running it raise."""
        try:
            output = self._output(pack)
        except DeviceLost:
            # The watch is not told of an end: the process ends with these items on the device.
            raise
        except Exception:
            self._end(pack)
            self._watch.ends(pack.number, succeeded=False)
            raise
        forward = _forward(pack, output, *self._end(pack))
        self._watch.ends(pack.number, succeeded=True)
        return forward

    def _output(self, pack: Submitted[ItemT]) -> JobPackOutput:
        if pack.error is not None:
            # Taken out of the pack, which would keep it, and it the pack.
            error, pack.error = pack.error, None
            try:
                raise error
            finally:
                # It keeps this frame, which would keep it.
                del error
        assert pack.pack is not None, "the pack has not been submitted"
        under_way, pack.pack = pack.pack, None
        return under_way.wait()

    def _end(self, pack: Submitted[ItemT]) -> tuple[float, float]:
        """When it has ended, and when the one before it had."""
        with self._ending:
            self._packs.remove(pack)
            ended_s, before_s = self._clock(), self._ended_s
            self._ended_s = ended_s
        return ended_s, before_s


def _forward(pack: Submitted[ItemT], output: JobPackOutput, ended_s: float, before_s: float) -> Forward:
    """before_s: when the pack before it ended."""
    assert pack.submitted_s is not None, "a pack ended that was not submitted"
    runs_s = max(pack.submitted_s, before_s)
    return Forward(
        output,
        pack.began_s,
        pack_s=pack.submitted_s - pack.began_s,
        ahead_s=runs_s - pack.submitted_s,
        forward_s=max(0.0, ended_s - runs_s),
        taken_s=max(0.0, ended_s - max(pack.began_s, before_s)),
    )
