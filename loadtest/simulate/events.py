"""A clock that jumps from event to event. Knows nothing of what happens at them."""

import heapq
import math
from collections.abc import Callable
from typing import Any

Action = Callable[[Any], None]


class Events:
    """Actions in order of time; those of one instant in the order in which they were asked for. now_s: the time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._asked = 0

    def at(self, when_s: float, action: Action, what: Any = None) -> None:
        """Calls `action(what)` at `when_s`, or now if that has passed."""
        self._asked += 1
        heapq.heappush(self._heap, (max(when_s, self.now_s), self._asked, action, what))

    def after(self, seconds: float, action: Action, what: Any = None) -> None:
        self.at(self.now_s + seconds, action, what)

    def run(self, until_s: float = math.inf) -> None:
        """Runs all events up to `until_s`, or until none is left."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self.now_s, _, action, what = heapq.heappop(heap)
            action(what)
        if until_s < math.inf:
            self.now_s = max(self.now_s, until_s)
