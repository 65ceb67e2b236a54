"""Timers that are nearly always cancelled, as deadlines are: one timer of the event loop serves all of them.

A timer of the loop's own is made and cancelled at several times the cost of an entry in a dictionary, and
`asyncio.timeout` at more than that; a request has three.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextvars import Context
from types import TracebackType
from typing import Self

# Loops may count in milliseconds, and so call too early: then the alarm is set again.
_SOONEST_S = 0.001


class Timers:
    """Of one event loop. Its alarm is set for the first call, and stays if that is cleared: it may ring for nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.loop, self._clock = loop, clock
        self._calls: dict[object, tuple[float, Callable[[], object]]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf

    def set(self, key: object, at_s: float, call: Callable[[], object]) -> None:
        """Calls `call` at `at_s` of the clock, unless `key` is cleared or set again before."""
        self._calls[key] = at_s, call
        if at_s < self._alarm_s:
            self._set_alarm(at_s)

    def clear(self, key: object) -> None:
        """Does nothing if its time has come."""
        self._calls.pop(key, None)

    def _set_alarm(self, at_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = at_s
        # In no request's context: it is set in that of one, and calls for others.
        self._alarm = self.loop.call_later(max(_SOONEST_S, at_s - self._clock()), self._ring, context=Context())

    def _ring(self) -> None:
        now_s = self._clock()
        self._alarm, self._alarm_s = None, math.inf
        try:
            for key in [key for key, (at_s, _) in self._calls.items() if at_s <= now_s]:
                # A call may clear what is due with it.
                if key in self._calls:
                    self._calls.pop(key)[1]()
        finally:
            if self._calls:
                self._set_alarm(min(at_s for at_s, _ in self._calls.values()))


class _OfThread(threading.local):
    timers: Timers | None = None


_of_thread = _OfThread()


def timers() -> Timers:
    """Those of the running event loop."""
    loop, known = asyncio.get_running_loop(), _of_thread.timers
    if known is None or known.loop is not loop:
        known = _of_thread.timers = Timers(loop)
    return known


class TimeLimit:
    """As `asyncio.timeout_at`, by `timers` and of `time.monotonic`: raises `TimeoutError` if what it is around takes
    longer."""

    __slots__ = ("_at_s", "_cancelling", "_passed", "_task", "_timers")

    def __init__(self, at_s: float) -> None:
        self._at_s, self._passed = at_s, False

    def move(self, at_s: float) -> None:
        """Sets another end. Does nothing once the limit has passed."""
        if not self._passed:
            self._timers.set(self, at_s, self._pass)

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "a time limit is around what a task does"
        self._task, self._cancelling, self._timers = task, task.cancelling(), timers()
        self._timers.set(self, self._at_s, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timers.clear(self)
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()
