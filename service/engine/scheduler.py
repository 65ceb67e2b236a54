"""Which items go into the next pack: pure policy.

An item is an image or a text. The scheduler counts tokens and compares times. It has no clock (`now_s` is an argument),
no thread, no lock and no device. Times are seconds of one monotonic clock. Two threads that share a `Scheduler` hold
one lock around every call.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from service.engine.queue.line import Line, Taken
from service.engine.queue.room import ItemT, Room


@dataclass(frozen=True, slots=True)
class Decision(Generic[ItemT]):
    """What one call of `Scheduler.next_pack` took out of the queue; both lists have the interactive items first, and
    each class in order of arrival.

    With `pack` empty and `wait_s` None the queue is empty.
    """

    pack: list[ItemT]  # to run now; empty: nothing to run
    late: list[ItemT]  # removed: their deadlines have passed, or would pass before their pack is done
    wait_s: float | None  # seconds for which items are held back, unless an `add` comes sooner. None: none are held


@dataclass(frozen=True, slots=True)
class _Chosen(Generic[ItemT]):
    """full: nothing more would go into the pack, or something else waits that did not."""

    interactive: list[ItemT]
    bulk: list[ItemT]
    late: list[ItemT]
    full: bool

    @property
    def pack(self) -> list[ItemT]:
        return self.interactive + self.bulk


class Scheduler(Generic[ItemT]):
    """Two queues, of interactive and of bulk items, each in order of arrival (the order of `add`), and the rule that
    takes packs from them. While one class is empty, the other has everything.

    A pack is filled from the head. An item that does not fit in the space left is skipped, and later ones that fit go
    ahead of it, until `max_passed_over` packs have done so. From then on no pack takes anything behind it without
    taking it as well. Zero means strict order.

    No item starves. Every item fits an empty pack, so each pack takes the head of its class: an item with k others of
    its class ahead of it is in the (k + 1)th such pack at the latest. Space is offered in order of arrival, so no item
    leaves the queue in a later pack than it would in strict order.

    While both classes wait, each pack owes bulk `bulk_share` of its tokens. It takes what is owed, in strict order, and
    then interactive items, whose first has its place. It is cut short: no more bulk goes in, so that the pack of an
    interactive item is done soon. What is owed stays so if the first bulk item is larger, or has no room beside the
    first interactive one; once a whole pack is owed, bulk goes first. So with a share s bulk has s of the tokens, its
    head leaves within 1 / s packs, and no two packs in a row keep the first interactive item waiting.

    If the device's rate is known, an item whose deadline would pass while its pack runs gives way to items of its class
    that can still be in time. Otherwise, once the queue is as long as the deadlines, the device would run only items
    that are answered too late. If no item of a class can be in time they run all the same, since the rate is only an
    estimate.

    An item that is `alone` fills a pack, however small it is.

    With `max_wait_s` above zero a pack that is not full is held back until its oldest item has waited that long. The
    hold never outlasts a deadline: if a held item would be too late afterwards, the pack goes at once.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int,
        max_batch_items: int | None = None,
        max_bulk_batch_tokens: int | None = None,
        max_wait_s: float = 0.0,
        max_passed_over: int = 8,
        bulk_share: float = 0.25,
    ) -> None:
        """max_batch_items: None for as many as fit. max_bulk_batch_tokens: of a pack of bulk items alone, None for
        `max_batch_tokens`; a larger item has a pack of its own. bulk_share: over 0, and under 1."""
        self._max_batch_tokens, self._max_batch_items = max_batch_tokens, max_batch_items
        self._max_bulk_batch_tokens, self._bulk_share = max_bulk_batch_tokens, bulk_share
        self._max_wait_s = max_wait_s
        self._interactive: Line[ItemT] = Line(max_passed_over=max_passed_over)
        self._bulk: Line[ItemT] = Line(max_passed_over=max_passed_over)
        self._owed_tokens = 0.0  # to bulk

    @property
    def max_batch_tokens(self) -> int:
        return self._max_batch_tokens

    def set_max_batch_tokens(self, tokens: int) -> None:
        """Bounds packs from now on. Raises `ValueError` if a queued item would not fit any."""
        if self._interactive.holds_more_than(tokens) or self._bulk.holds_more_than(tokens):
            raise ValueError(f"a queued item would not fit a pack of {tokens} tokens")
        self._max_batch_tokens = tokens

    @property
    def fills_a_pack(self) -> bool:
        """Whether so many interactive items are queued that the next pack has no room left, or next to none. Choosing
        it later then lets nobody in. A pack of bulk is never full: an interactive item may come."""
        most_items = math.inf if self._max_batch_items is None else self._max_batch_items
        return self._interactive.tokens >= self._max_batch_tokens or self._interactive.items >= most_items

    @property
    def starts_alone(self) -> bool:
        """Whether the first item of a class is `alone`."""
        return self._interactive.starts_alone or self._bulk.starts_alone

    @property
    def queue_items(self) -> int:
        return self._interactive.items + self._bulk.items

    @property
    def queue_tokens(self) -> int:
        return self._interactive.tokens + self._bulk.tokens

    @property
    def next_tokens(self) -> int:
        """Tokens of the next pack, roughly."""
        if not self._interactive.items:
            return self._first_tokens(self._bulk, self._bulk_room())
        tokens = self._first_tokens(self._interactive, self._room())
        owed_tokens = min(self._bulk.tokens, int(self._bulk_share * self._max_batch_tokens))
        return min(tokens + owed_tokens, self._max_batch_tokens)

    def add(self, item: ItemT) -> None:
        """Queues `item` behind all others of its class. Raises `ValueError` if it is empty or no pack could hold it."""
        if not 1 <= item.tokens <= self._max_batch_tokens:
            raise ValueError(f"an item of {item.tokens} tokens; max_batch_tokens is {self._max_batch_tokens}")
        self._line_of(item).add(item)

    def drop(self, item: ItemT) -> bool:
        """Removes an item whose caller has left. From here on it counts nowhere. False if it was not queued."""
        queued = item.queued
        if queued:
            self._line_of(item).leave([item])
        return queued

    def next_pack(
        self, now_s: float, *, tokens_per_s: float | None = None, free_s: float | None = None
    ) -> Decision[ItemT]:
        """Decides what runs next, and removes what is late (`now_s` at or past its deadline) on the way.

        tokens_per_s: the device's rate, which tells how long a pack of the queue would run. What would be too late by
        its end is late. None: not known. free_s: when the device is expected to have done what it has; None: it has
        nothing.

        Reads the items that leave and at most `MAX_SKIPPED` of each class that stay; a late one behind those is found
        by a later decision and never run. A hold reads the whole queue, which is less than a pack. If no item can be in
        time, all are read to find that out.
        """
        starts_s = now_s if free_s is None else max(now_s, free_s)
        runs_s = self.next_tokens / tokens_per_s if tokens_per_s else 0.0
        owed_tokens = self._owed_tokens
        chosen = self._take(now_s, starts_s + runs_s)
        wait_s = None if chosen.full else self._hold_s(chosen.pack, now_s, starts_s, runs_s)
        self._leave(chosen.late)
        if wait_s is not None:
            # A pack that is not full was the whole queue, so this keeps the order of arrival.
            self._interactive.put_back(chosen.interactive)
            self._bulk.put_back(chosen.bulk)
            self._owed_tokens = owed_tokens
            return Decision([], chosen.late, wait_s)
        self._leave(chosen.pack)
        return Decision(chosen.pack, chosen.late, None)

    def drain(self) -> list[ItemT]:
        """Empties the queue and returns all that was in it, late items too, each class in order of arrival."""
        return self._interactive.drain() + self._bulk.drain()

    def _line_of(self, item: ItemT) -> Line[ItemT]:
        return self._bulk if item.bulk else self._interactive

    def _leave(self, items: Sequence[ItemT]) -> None:
        for line, bulk in ((self._interactive, False), (self._bulk, True)):
            line.leave([item for item in items if item.bulk == bulk])

    def _room(self) -> Room:
        return Room(self._max_batch_tokens, self._max_batch_items)

    def _bulk_room(self) -> Room:
        """The space of a pack without interactive items."""
        tokens = min(self._max_bulk_batch_tokens or self._max_batch_tokens, self._max_batch_tokens)
        return Room(tokens, self._max_batch_items)

    def _first_tokens(self, line: Line[ItemT], room: Room) -> int:
        return min(line.tokens, room.max_tokens) if self._max_batch_items is None else line.first_tokens(room)

    def _take(self, now_s: float, end_s: float) -> _Chosen[ItemT]:
        """Takes out a pack and the late items found on the way, as if packs were never held back.

        end_s: when the pack would be done.
        """
        interactive, bulk = self._interactive.head(now_s, end_s), self._bulk.head(now_s, end_s)
        late = interactive.late + bulk.late
        if bulk.item is None:
            self._owed_tokens = 0.0
            room = self._room()
            taken = self._interactive.take(room, interactive.by_s)
            return _Chosen(taken.items, [], late + taken.late, room.full or taken.skipped)
        if interactive.item is None:
            self._owed_tokens = 0.0
            room = self._bulk_room()
            taken = self._bulk.take(room, bulk.by_s)
            return _Chosen([], taken.items, late + taken.late, room.full or taken.skipped)
        room = self._room()
        owed = self._take_owed(room, self._space(interactive.item), self._space(bulk.item), bulk.by_s)
        taken = self._interactive.take(room, interactive.by_s)
        late += owed.late + taken.late
        stays = self._bulk.items > len(owed.items) + sum(item.bulk for item in late)
        return _Chosen(taken.items, owed.items, late, room.full or taken.skipped or stays)

    def _take_owed(self, room: Room, first_tokens: int, head_tokens: int, by_s: float) -> Taken[ItemT]:
        """Bulk items into a pack in which interactive ones go too.

        first_tokens: for the first interactive item. head_tokens: for the first bulk item.
        """
        whole, most_items = self._max_batch_tokens, self._max_batch_items
        # Rounded, since ten times a tenth of a pack has to be a whole one.
        self._owed_tokens = round(min(self._owed_tokens, whole) + self._bulk_share * whole, 6)
        beside = Room(min(int(self._owed_tokens), whole - first_tokens), most_items and most_items - 1)
        if head_tokens <= beside.max_tokens and not beside.full:
            owed = self._bulk.take(beside, by_s, max_skipped=1)
            self._owed_tokens -= beside.taken_tokens
        elif self._owed_tokens < whole:
            return Taken([], [], skipped=False)
        else:
            instead = Room(whole, most_items)
            owed = self._bulk.take(instead, by_s, max_skipped=1)
            left = self._owed_tokens - (whole if instead.full else instead.taken_tokens)
            # The next pack does not owe a whole one again, so the first interactive item waits for this one alone.
            self._owed_tokens = max(0.0, min(left, (1 - self._bulk_share) * whole - 1))
        for item in owed.items:
            room.take(item)
        return owed

    def _space(self, item: ItemT) -> int:
        """The tokens that it takes from a pack."""
        return self._max_batch_tokens if item.alone else item.tokens

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
