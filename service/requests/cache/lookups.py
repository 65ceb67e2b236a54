"""Which requests may bring their bodies though the queue is full, because their pictures may be known.

Such a picture needs no place in the queue, but a server that is overloaded cannot receive every body to see. Bodies
come out of a budget: time fills it slowly, and every request whose picture was found fills it by much more than it
took. So nearly all come in while one of ten is known, and few while none is. One that is known in part needs a place
for the rest, and found none.
"""

import time
from collections.abc import Callable

# What a request takes beside its bytes: as long as hashing so many.
_A_REQUEST = 256 * 1024
# About 4% of a core.
_BYTES_A_SECOND = 32 * 1024**2
# Half a second's worth can be saved up.
_MOST_BYTES = _BYTES_A_SECOND // 2
_FOUND_FILLS = 10
# Their share of the bytes that all bodies may hold. The rest is for requests that have a place.
_SHARE_HELD = 0.25


class Lookups:
    """The budget of one process. For one event loop."""

    def __init__(
        self,
        remembers: Callable[[], bool],
        *,
        max_inflight_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """remembers: whether any picture is known now."""
        self._remembers, self._clock = remembers, clock
        self._most_held = int(_SHARE_HELD * max_inflight_bytes)
        self._held = 0
        self._left: float = _MOST_BYTES
        self._filled_s = clock()

    def begin(self, announced_bytes: int) -> "Lookup | None":
        """A request may bring a body of so many bytes; None if it may not, as one that does not say how many."""
        if not announced_bytes or self._held + announced_bytes > self._most_held or not self._remembers():
            return None
        now_s = self._clock()
        self._fill(_BYTES_A_SECOND * (now_s - self._filled_s))
        self._filled_s = now_s
        # A body that is larger than all that can be saved up has its turn too.
        if self._left <= 0:
            return None
        self._left -= _A_REQUEST + announced_bytes
        self._held += announced_bytes
        return Lookup(self, announced_bytes)

    def _fill(self, size: float) -> None:
        self._left = min(_MOST_BYTES, self._left + size)


class Lookup:
    """One request that was let in to see whether all its pictures are known."""

    def __init__(self, lookups: Lookups, size: int) -> None:
        self._lookups, self._size = lookups, size

    def found(self) -> None:
        """All its pictures are known: call it once."""
        self._lookups._fill(_FOUND_FILLS * (_A_REQUEST + self._size))

    def end(self) -> None:
        """The request is over: call it once."""
        self._lookups._held -= self._size
