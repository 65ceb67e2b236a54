"""The pictures that one process remembers, within a number of bytes. For one event loop."""

from cachetools import LRUCache

from service.requests.cache.seen import Seen

# The part that pictures asked for again may fill. A job that sends a million pictures once takes only the rest.
_FOR_ASKED_AGAIN = 0.8


class Memory:
    """Two lists, each with what was used last at its end: of pictures seen once, and of those asked for again. The
    first to go are those seen once. This is segmented LRU; a frequency would be forgotten too slowly."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._once: LRUCache[bytes, Seen] = _new(max_bytes)
        self._again: LRUCache[bytes, Seen] = _new(max_bytes)

    @property
    def held_bytes(self) -> int:
        """At most `max_bytes`."""
        return int(self._once.currsize + self._again.currsize)

    def get(self, key: bytes) -> Seen | None:
        """The picture, if it is remembered. It is now one that was asked for again."""
        seen: Seen | None = self._again.get(key)
        if seen is None and (seen := self._once.pop(key, None)) is not None:
            self._again[key] = seen
            self._shrink()
        return seen

    def put(self, key: bytes, seen: Seen) -> None:
        """Remembers a picture, unless it is larger than the whole memory."""
        if seen.size_bytes > self._max_bytes:
            return
        (self._again if key in self._again else self._once)[key] = seen
        self._shrink()

    def clear(self) -> None:
        """Forgets all pictures."""
        self._once.clear()
        self._again.clear()

    def _shrink(self) -> None:
        while self._again.currsize > _FOR_ASKED_AGAIN * self._max_bytes:
            key, seen = self._again.popitem()
            self._once[key] = seen
        while self.held_bytes > self._max_bytes:
            (self._once or self._again).popitem()


def _new(max_bytes: int) -> LRUCache[bytes, Seen]:
    return LRUCache(max_bytes, getsizeof=lambda seen: seen.size_bytes)
