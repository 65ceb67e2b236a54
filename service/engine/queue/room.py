"""An item of the queue, and the space left in a pack while it is filled."""

from dataclasses import dataclass, field
from typing import TypeVar


@dataclass(slots=True, eq=False)
class QueuedItem:
    """What the scheduler knows of an item. The engine derives from it to carry the rows and the future.

    arrived_s: when it was queued. deadline_s: the instant from which it is too late, None for never. alone: it gets a
    pack of its own. bulk: nobody waits for it at a screen. Two items are equal only if they are the same object.
    """

    tokens: int
    arrived_s: float
    deadline_s: float | None
    alone: bool = field(default=False, kw_only=True)
    bulk: bool = field(default=False, kw_only=True)
    # Only the scheduler writes the next two. Packs that took a later item while this one did not fit:
    passed_over: int = field(default=0, init=False)
    # True from `add` until the item is taken, found late, or dropped.
    queued: bool = field(default=False, init=False)


ItemT = TypeVar("ItemT", bound=QueuedItem)


class Room:
    """The space left in a pack while it is filled. Any item fits an empty pack."""

    def __init__(self, max_tokens: int, max_items: int | None) -> None:
        self.max_tokens, self._max_items = max_tokens, max_items
        self._items = 0
        self.taken_tokens = 0

    @property
    def full(self) -> bool:
        return self.taken_tokens >= self.max_tokens or self._items == self._max_items

    def take(self, item: QueuedItem) -> bool:
        """Takes the item if it fits. An item that is `alone` takes all the space there is."""
        tokens = self.max_tokens if item.alone else item.tokens
        fits = not self._items or not (self.full or self.taken_tokens + tokens > self.max_tokens)
        if fits:
            self.taken_tokens += tokens
            self._items += 1
        return fits
