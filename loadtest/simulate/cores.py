"""Processor cores that threads share evenly, and queues in front of them.

With more threads than cores each thread gets the same share of a core, as an operating system gives it. So decoding
slows a forward on the same cores, and the other way round.
"""

import heapq
from collections import deque
from typing import Any

from loadtest.simulate.events import Action, Events

# Seconds of processor time by which a task may end early: rounding must not tell tasks apart that end together.
_TOGETHER_S = 1e-9


class Cores:
    """busy_s: core-seconds spent so far, as of the last change."""

    def __init__(self, events: Events, cores: int) -> None:
        self._events, self.cores = events, cores
        # Every thread gets as much of a core as any other, so one number tells how far all have come.
        self._each_s = 0.0
        self._as_of_s = events.now_s
        self._threads = 0
        self._heap: list[tuple[float, int, int, Action, Any]] = []
        self._asked = 0
        self._version = 0
        self.busy_s = 0.0

    def run(self, seconds: float, done: Action, what: Any = None, *, threads: int = 1) -> None:
        """Calls `done(what)` when each of the threads has had so many seconds of a core."""
        self._catch_up()
        before = self._share
        self._asked += 1
        task = (self._each_s + seconds, self._asked, threads, done, what)
        heapq.heappush(self._heap, task)
        self._threads += threads
        if self._heap[0] is task or self._share != before:
            self._expect()

    def clear(self) -> None:
        """Forgets all tasks: the host has died."""
        self._catch_up()
        self._heap.clear()
        self._threads = 0
        self._version += 1

    @property
    def _share(self) -> float:
        """The share of a core that each thread gets."""
        return min(1.0, self.cores / self._threads) if self._threads else 1.0

    def _catch_up(self) -> None:
        passed_s = self._events.now_s - self._as_of_s
        if passed_s > 0:
            self._each_s += passed_s * self._share
            self.busy_s += passed_s * min(self._threads, self.cores)
        self._as_of_s = self._events.now_s

    def _expect(self) -> None:
        """Asks to be called when the next task ends, if nothing changes until then."""
        self._version += 1
        if self._heap:
            self._events.after((self._heap[0][0] - self._each_s) / self._share, self._finish, self._version)

    def _finish(self, version: int) -> None:
        if version != self._version:
            return
        self._catch_up()
        ended = []
        while self._heap and self._heap[0][0] <= self._each_s + _TOGETHER_S:
            ended.append(heapq.heappop(self._heap))
            self._threads -= ended[-1][2]
        self._expect()
        for _, _, _, done, what in ended:
            done(what)


class Lane:
    """First come, first served: at most `width` of its tasks are on the cores at once."""

    def __init__(self, cores: Cores, width: int) -> None:
        self._cores, self._width = cores, width
        self._running = self._life = 0
        self._waiting: deque[tuple[float, Action, Any]] = deque()

    def submit(self, seconds: float, done: Action, what: Any = None) -> None:
        if self._running < self._width:
            self._running += 1
            self._run(seconds, done, what)
        else:
            self._waiting.append((seconds, done, what))

    def clear(self) -> None:
        """Forgets all tasks, those on the cores too."""
        self._waiting.clear()
        self._running = 0
        self._life += 1

    def _run(self, seconds: float, done: Action, what: Any) -> None:
        self._cores.run(seconds, self._finish, (self._life, done, what))

    def _finish(self, task: tuple[int, Action, Any]) -> None:
        life, done, what = task
        if life != self._life:
            return  # it ended in the instant in which the lane was cleared
        if self._waiting:
            self._run(*self._waiting.popleft())
        else:
            self._running -= 1
        done(what)
