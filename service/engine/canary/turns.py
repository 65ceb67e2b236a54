"""When the canary runs, and what follows from its vectors.

A **round** is every picture and text once, in two packs or more, and the order changes from round to round. So a
device shows if it mixes up the items of a pack, gives what it computed before, or one vector for all. A round that is
due waits for an idle device or for room that a pack leaves; one that is overdue takes packs of its own.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from service.engine.canary.rule import NamedJob, Recorded, Vectors, fault_in, largest_share
from service.metrics import Metrics

# The canary takes at most this share of the device, however long its pictures take.
_MOST_SHARE = 0.01
# While its vectors are being recorded: how long until it is asked again whether they are.
_LOOK_AGAIN_S = 2.0

_log = logging.getLogger(__name__)


class UntrueDevice(Exception):
    """The device gives wrong vectors. The message says which."""


class Records(Protocol):
    """Where recorded vectors come from. Called by one thread at a time, in an instant."""

    @property
    def pending(self) -> bool:
        """Whether they are being recorded."""
        ...

    def read(self) -> Recorded | None:
        """What is recorded. If it is nothing, recording begins."""
        ...

    def close(self) -> None:
        """Ends what is under way."""
        ...


class Canary:
    """The canary of one engine, whose threads call it. proven_s: what was computed before was right, because a whole
    round that began then has passed."""

    def __init__(
        self,
        pictures: Sequence[NamedJob],
        records: Records,
        *,
        recorded: Recorded | None = None,
        interval_s: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """recorded: what is known already. interval_s: a round ends at least so often. The first is due at once."""
        self._pictures, self._records = list(pictures), records
        self._interval_s, self._metrics, self._clock = interval_s, metrics, clock
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._recorded = recorded
        self._rounds = self._out = 0
        self._left: list[NamedJob] = []
        self._began_s = self._due_s = clock()
        self._overdue_s = self._due_s + interval_s / 2
        # How long the round that is under way, and the last one, took an idle device.
        self._took_s = self._last_took_s = 0.0
        self._failed = self._news = False
        self.proven_s = -math.inf
        self.proven = threading.Event()

    def wait_s(self, now_s: float) -> float:
        """Seconds until it is due. Infinite while a round is under way and nothing of it is left."""
        with self._lock:
            if self._left:
                return 0.0
            return math.inf if self._out else max(0.0, self._due_s - now_s)

    def is_overdue(self, now_s: float) -> bool:
        """A round must not wait for room any longer."""
        with self._lock:
            return now_s >= self._overdue_s and bool(self._left or not self._out)

    def take(self, now_s: float, *, room_tokens: int, room_items: float = math.inf) -> list[NamedJob]:
        """What runs in a pack with so much room; empty if nothing is due or fits."""
        with self._lock:
            if not self._left and not self._out and now_s >= self._due_s:
                self._begin(now_s)
            taken: list[NamedJob] = []
            most = min(room_items, math.ceil(self._of_a_round / 2))
            for each in list(self._left):
                if len(taken) < most and each.job.tokens <= room_tokens:
                    room_tokens -= each.job.tokens
                    taken.append(each)
                    self._left.remove(each)
            self._out += len(taken)
            return taken

    @property
    def _of_a_round(self) -> int:
        return len(self._pictures) + len(self._recorded.texts if self._recorded else ())

    def _begin(self, now_s: float) -> None:
        every = [*self._pictures, *(self._recorded.texts if self._recorded else ())]
        start = self._rounds % len(every)
        self._left = every[start:] + every[:start]
        self._rounds += 1
        self._began_s, self._took_s, self._failed = now_s, 0.0, False

    def judge(self, vectors: dict[str, Vectors | None], *, alone_s: float = 0.0) -> None:
        """The vectors of what was taken for one pack, None for what the device failed on. alone_s: how long it worked
        on them, if nothing else was in that pack.

        Raises `UntrueDevice`.
        """
        self._look()
        with self._lock:
            self._out -= len(vectors)
            self._took_s += alone_s
            there = {name: each for name, each in vectors.items() if each is not None}
            # What a device fails on says nothing of what it computes: the engine deals with it.
            self._failed |= len(there) < len(vectors)
            if self._recorded:
                self._metrics.canary_drift.set(largest_share(there, self._recorded))
            if fault := fault_in(there, self._recorded):
                self._metrics.canaries.labels("failed").inc()
                raise UntrueDevice(fault)
            if not self._left and not self._out:
                self._end()

    def _look(self) -> None:
        with self._reading:
            if self._recorded is not None:
                return
            try:
                self._recorded = self._records.read()
            except Exception:
                # The device is not at fault, and goes on.
                _log.exception("the canary's recorded vectors cannot be read")
            self._news = self._recorded is not None

    def _end(self) -> None:
        """A round is over. The next is due at once if more is known of the vectors than when it began."""
        self._last_took_s = self._took_s or self._last_took_s
        period_s = max(self._interval_s, self._last_took_s / _MOST_SHARE)
        if self._recorded is None and self._records.pending:
            period_s = min(period_s, max(_LOOK_AGAIN_S, self._last_took_s / _MOST_SHARE))
        now_s = self._clock()
        self._due_s = now_s if self._news else now_s + period_s / 2
        self._news = False
        self._overdue_s = self._due_s + period_s / 2
        if self._failed:
            self._metrics.canaries.labels("interrupted").inc()
            return
        self._metrics.canaries.labels("passed" if self._recorded else "unrecorded").inc()
        self.proven_s = self._began_s
        self.proven.set()

    def close(self) -> None:
        self._records.close()
