"""Who may go on now: at most so many at once, and fewer of one kind. The others wait and hold nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager


class Turns:
    """Turns of one event loop. A kind is a host, or an address: one that keeps its turns long keeps few of them."""

    def __init__(self, most: int) -> None:
        """most: turns at once. One kind may have a quarter of them."""
        self._most, self._most_of_a_kind = most, max(1, most // 4)
        self._taken = 0
        self._of_kind: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], Collection[str]] = {}

    @property
    def taken(self) -> int:
        return self._taken

    @asynccontextmanager
    async def turn(self, *kinds: str) -> AsyncIterator[None]:
        """A turn that counts for each of `kinds`."""
        await self.take(*kinds)
        try:
            yield
        finally:
            self.give_back(*kinds)

    async def take(self, *kinds: str) -> None:
        """Waits for a turn, in order of arrival among those who could go on."""
        if self._is_free(kinds):
            self._note(kinds, 1)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = kinds
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiting.pop(waiter, None) is None:  # the turn had come
                self.give_back(*kinds)
            raise

    def give_back(self, *kinds: str) -> None:
        """Ends a turn, and wakes those who wait and may go on now."""
        self._note(kinds, -1)
        for waiter, wanted in list(self._waiting.items()):
            if self._taken == self._most:
                return
            # One that is cancelled is still there until its task goes on.
            if self._is_free(wanted) and not waiter.cancelled():
                self._note(wanted, 1)
                del self._waiting[waiter]
                waiter.set_result(None)

    def _is_free(self, kinds: Collection[str]) -> bool:
        return self._taken < self._most and all(self._of_kind[kind] < self._most_of_a_kind for kind in kinds)

    def _note(self, kinds: Collection[str], change: int) -> None:
        self._taken += change
        self._of_kind.update(dict.fromkeys(kinds, change))
        for kind in kinds:
            if not self._of_kind[kind]:
                del self._of_kind[kind]
