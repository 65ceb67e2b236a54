"""The canary's part of the packs of one engine: beside what somebody sent where there is room, or by itself."""

import math
import time
from collections.abc import Callable, Sequence

from service.engine.canary.turns import Canary
from service.engine.delivery import CanaryItem, Pending
from service.engine.scheduler import Scheduler

# How soon a canary that is due is thought of again while the device is busy.
_BUSY_LOOK_S = 1.0
_LONGEST_WAIT_S = 3600.0


class CanaryPacks:
    """Called under the engine's lock."""

    def __init__(
        self,
        canary: Canary | None,
        scheduler: Scheduler[Pending],
        *,
        max_items: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """canary: None for none, and then all lists are empty. max_items: of a pack, None for as many as fit."""
        self._canary, self._scheduler, self._clock = canary, scheduler, clock
        self._max_items = math.inf if max_items is None else max_items

    def overdue(self) -> list[Pending]:
        """A pack of the canary alone that has waited long enough for room."""
        overdue = self._canary is not None and self._canary.is_overdue(self._clock())
        return self.alone() if overdue else []

    def alone(self) -> list[Pending]:
        """A pack of the canary, if it is due."""
        return self._taken(self._scheduler.max_batch_tokens, self._max_items, alone=True)

    def beside(self, items: Sequence[Pending]) -> list[Pending]:
        """What fits into the room that a pack leaves."""
        if any(item.alone for item in items):
            return []
        room_tokens = self._scheduler.max_batch_tokens - sum(item.tokens for item in items)
        return self._taken(room_tokens, self._max_items - len(items), alone=False)

    def wait_s(self, held_s: float | None) -> float | None:
        """Until the canary is due, or items that are held back for `held_s`. None: only an arrival ends the wait."""
        if self._canary is None:
            return held_s
        # If it is due now, the device is not idle: the thread that makes it so looks first.
        due_s = self._canary.wait_s(self._clock()) or _BUSY_LOOK_S
        return min(due_s, math.inf if held_s is None else held_s, _LONGEST_WAIT_S)

    def _taken(self, room_tokens: int, room_items: float, *, alone: bool) -> list[Pending]:
        if self._canary is None:
            return []
        now_s = self._clock()
        taken = self._canary.take(now_s, room_tokens=room_tokens, room_items=room_items)
        return [CanaryItem(each.name, each.job, arrived_s=now_s, alone_in_pack=alone) for each in taken]
