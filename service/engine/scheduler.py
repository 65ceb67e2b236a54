"""Which items go into the next pack: pure policy.

An item is an image or a text. The scheduler counts tokens and compares times. It has no clock (`now_s` is an argument),
no thread, no lock and no device. Times are seconds of one monotonic clock. Two threads that share a `Scheduler` hold
one lock around every call.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# A decision stops looking ahead after it has skipped this many items, so it costs the items that leave plus a
# constant, however long the queue is. In a simulation with 200 queued items of mixed sizes, 256 instead of 32 filled
# packs 0.1% fuller.
MAX_SKIPPED = 32


@dataclass(slots=True, eq=False)
class QueuedItem:
    """What the scheduler knows of an item. The engine derives from it to carry the rows and the future.

    arrived_s: when it was queued. deadline_s: the instant from which it is too late, None for never. alone: it gets a
    pack of its own. Two items are equal only if they are the same object.
    """

    tokens: int
    arrived_s: float
    deadline_s: float | None
    alone: bool = field(default=False, kw_only=True)
    # Only the scheduler writes the next two. Packs that took a later item while this one did not fit:
    passed_over: int = field(default=0, init=False)
    # True from `add` until the item is taken, found late, or dropped.
    queued: bool = field(default=False, init=False)


ItemT = TypeVar("ItemT", bound=QueuedItem)


@dataclass(frozen=True, slots=True)
class Decision(Generic[ItemT]):
    """What one call of `Scheduler.next_pack` took out of the queue; both lists in order of arrival.

    With `pack` empty and `wait_s` None the queue is empty.
    """

    pack: list[ItemT]  # to run now; empty: nothing to run
    late: list[ItemT]  # removed: their deadlines have passed, or would pass before their pack is done
    wait_s: float | None  # seconds for which items are held back, unless an `add` comes sooner. None: none are held


class _Room:
    """The space left in a pack while it is filled. Any item fits an empty pack."""

    def __init__(self, max_tokens: int, max_items: int | None) -> None:
        self._max_tokens, self._max_items = max_tokens, max_items
        self._items = 0
        self.taken_tokens = 0

    @property
    def full(self) -> bool:
        return self.taken_tokens >= self._max_tokens or self._items == self._max_items

    def take(self, item: QueuedItem) -> bool:
        """Takes the item if it fits. An item that is `alone` takes all the space there is."""
        tokens = self._max_tokens if item.alone else item.tokens
        fits = not self._items or not (self.full or self.taken_tokens + tokens > self._max_tokens)
        if fits:
            self.taken_tokens += tokens
            self._items += 1
        return fits


class Scheduler(Generic[ItemT]):
    """A queue in order of arrival (the order of `add`) and the rule that takes packs from it.

    A pack is filled from the head. An item that does not fit in the space left is skipped, and later ones that fit go
    ahead of it, until `max_passed_over` packs have done so. From then on no pack takes anything behind it without
    taking it as well. Zero means strict order.

    No item starves. Every item fits an empty pack, so each pack takes the head: an item with k others ahead of it is
    in the (k + 1)th pack at the latest. Space is offered in order of arrival, so no item leaves the queue in a later
    pack than it would in strict order.

    If the device's rate is known, an item whose deadline would pass while its pack runs gives way to items that can
    still be in time. Otherwise, once the queue is as long as the deadlines, the device would run only items that are
    answered too late. If no item can be in time they run all the same, since the rate is only an estimate.

    An item that is `alone` fills a pack, however small it is.

    With `max_wait_s` above zero a pack that is not full is held back until its oldest item has waited that long. The
    hold never outlasts a deadline: if a held item would be too late afterwards, the pack goes at once.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int,
        max_batch_items: int | None = None,
        max_wait_s: float = 0.0,
        max_passed_over: int = 8,
    ) -> None:
        """max_batch_items: None for as many as fit."""
        self._max_batch_tokens, self._max_batch_items = max_batch_tokens, max_batch_items
        self._max_wait_s = max_wait_s
        self._max_passed_over = max_passed_over
        # A dropped item stays in here, unseen, until a decision reaches it: removing it would cost a walk.
        self._queue: deque[ItemT] = deque()
        self._queue_items = self._queue_tokens = 0

    @property
    def max_batch_tokens(self) -> int:
        return self._max_batch_tokens

    def set_max_batch_tokens(self, tokens: int) -> None:
        """Bounds packs from now on. Raises `ValueError` if a queued item would not fit any."""
        if any(item.queued and item.tokens > tokens for item in self._queue):
            raise ValueError(f"a queued item would not fit a pack of {tokens} tokens")
        self._max_batch_tokens = tokens

    @property
    def fills_a_pack(self) -> bool:
        """Whether enough is queued for the next pack to have no room left, or next to none."""
        most_items = math.inf if self._max_batch_items is None else self._max_batch_items
        return self._queue_tokens >= self._max_batch_tokens or self._queue_items >= most_items

    @property
    def queue_items(self) -> int:
        return self._queue_items

    @property
    def queue_tokens(self) -> int:
        return self._queue_tokens

    def add(self, item: ItemT) -> None:
        """Queues `item` behind all others. Raises `ValueError` if it is empty or no pack could hold it."""
        if not 1 <= item.tokens <= self._max_batch_tokens:
            raise ValueError(f"an item of {item.tokens} tokens; max_batch_tokens is {self._max_batch_tokens}")
        self._queue.append(item)
        item.queued = True
        self._queue_items += 1
        self._queue_tokens += item.tokens

    def drop(self, item: ItemT) -> bool:
        """Removes an item whose caller has left. From here on it counts nowhere. False if it was not queued."""
        queued = item.queued
        if queued:
            self._leave([item])
        return queued

    def next_pack(
        self, now_s: float, *, tokens_per_s: float | None = None, free_s: float | None = None
    ) -> Decision[ItemT]:
        """Decides what runs next, and removes what is late (`now_s` at or past its deadline) on the way.

        tokens_per_s: the device's rate, which tells how long a pack of the queue would run. What would be too late by
        its end is late. None: not known. free_s: when the device is expected to have done what it has; None: it has
        nothing.

        Reads the items that leave and at most `MAX_SKIPPED` that stay; a late one behind those is found by a later
        decision and never run. A hold reads the whole queue, which is less than a pack. If no item can be in time, all
        are read to find that out.
        """
        starts_s = now_s if free_s is None else max(now_s, free_s)
        runs_s = self._next_tokens() / tokens_per_s if tokens_per_s else 0.0
        pack, late, full = self._take(now_s, starts_s + runs_s)
        wait_s = None if full else self._hold_s(pack, now_s, starts_s, runs_s)
        if wait_s is not None:
            # A pack that is not full was the whole queue, so this keeps the order of arrival.
            self._queue.extend(pack)
            pack = []
        self._leave(pack)
        self._leave(late)
        return Decision(pack, late, wait_s)

    def drain(self) -> list[ItemT]:
        """Empties the queue and returns all that was in it, late items too, in order of arrival."""
        items = [item for item in self._queue if item.queued]
        self._leave(items)
        self._queue.clear()
        return items

    def _leave(self, items: Sequence[ItemT]) -> None:
        for item in items:
            item.queued = False
            self._queue_tokens -= item.tokens
        self._queue_items -= len(items)

    def _room(self) -> _Room:
        return _Room(self._max_batch_tokens, self._max_batch_items)

    def _next_tokens(self) -> int:
        """Tokens of the next pack, roughly: up to a full pack of the queue, in order of arrival."""
        if self._max_batch_items is None:
            return min(self._queue_tokens, self._max_batch_tokens)
        room = self._room()
        for item in self._queue:
            if item.queued and not room.take(item):
                break
        return room.taken_tokens

    def _take(self, now_s: float, end_s: float) -> tuple[list[ItemT], list[ItemT], bool]:
        """Takes out a pack and the late items found on the way, as if packs were never held back.

        end_s: when the pack would be done. The third value tells whether the pack is full: no space is left, or a
        queued item did not fit.
        """
        pack: list[ItemT] = []
        late: list[ItemT] = []
        skipped: list[ItemT] = []
        room = self._room()
        overtaken = 0  # so many of `skipped`, the first ones, have seen a later item taken
        while self._queue and not room.full and len(skipped) < MAX_SKIPPED:
            item = self._queue.popleft()
            if not item.queued:
                continue
            if item.deadline_s is not None and end_s >= item.deadline_s:
                late.append(item)
            elif room.take(item):
                pack.append(item)
                overtaken = len(skipped)
            else:
                skipped.append(item)
                if item.passed_over >= self._max_passed_over:
                    break
        for item in skipped[:overtaken]:
            item.passed_over += 1
        self._queue.extendleft(reversed(skipped))
        if not pack and late and end_s > now_s:
            return self._take_late(now_s, late)
        return pack, late, room.full or bool(skipped)

    def _take_late(self, now_s: float, late: Sequence[ItemT]) -> tuple[list[ItemT], list[ItemT], bool]:
        """Takes a pack of the items whose deadlines have not passed yet. `late` is the whole queue."""
        self._queue.extend(item for item in late if item.deadline_s is None or now_s < item.deadline_s)
        passed = [item for item in late if item.deadline_s is not None and now_s >= item.deadline_s]
        pack, _, full = self._take(now_s, now_s)
        return pack, passed, full

    def _hold_s(self, items: Sequence[ItemT], now_s: float, starts_s: float, runs_s: float) -> float | None:
        """Seconds for which `items`, less than a full pack, are held back; None: they go now.

        starts_s: when the device is free. runs_s: how long their forward takes.
        """
        # Without a wait there is no hold, even for an item stamped a moment after `now_s` was read.
        if not items or self._max_wait_s <= 0:
            return None
        end_s = min(item.arrived_s for item in items) + self._max_wait_s
        done_s = max(end_s, starts_s) + runs_s
        if now_s >= end_s or any(item.deadline_s is not None and item.deadline_s <= done_s for item in items):
            return None
        return end_s - now_s
