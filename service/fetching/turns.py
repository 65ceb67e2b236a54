"""Bounds how many tasks go on at once, in all and of one kind. The others wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Turns of one event loop. A kind is a request, a host or an address: one that keeps its turns long has few.

    A task that waits for one kind may have turns of the kinds before it. It keeps other tasks of those kinds waiting,
    and no others. Waiting and waking cost the same however many wait.
    """

    def __init__(self, most: int) -> None:
        """most: turns at once. One kind may have a quarter of them."""
        self._most_of_a_kind = max(1, most // 4)
        self._all = asyncio.Semaphore(most)
        self._of_kind: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}
        self.taken = 0

    @asynccontextmanager
    async def turn(self, *kinds: str) -> AsyncIterator[None]:
        """A turn that counts for each of `kinds`, which differ."""
        await self.take(*kinds)
        try:
            yield
        finally:
            self.give_back(*kinds)

    async def take(self, *kinds: str) -> None:
        """Waits for each of `kinds` and at last for a turn, in order of arrival."""
        held: list[str] = []
        try:
            for kind in kinds:
                await self._take_of_kind(kind)
                held.append(kind)
            await self._all.acquire()
        except asyncio.CancelledError:
            for kind in held:
                self._give_back_of_kind(kind)
            raise
        self.taken += 1

    def give_back(self, *kinds: str) -> None:
        """Ends a turn, and wakes the tasks that waited the longest for it and for each of its kinds."""
        self.taken -= 1
        self._all.release()
        for kind in kinds:
            self._give_back_of_kind(kind)

    async def _take_of_kind(self, kind: str) -> None:
        self._users[kind] = self._users.get(kind, 0) + 1
        line = self._of_kind.setdefault(kind, asyncio.Semaphore(self._most_of_a_kind))
        try:
            await line.acquire()
        except asyncio.CancelledError:
            self._leave(kind)
            raise

    def _give_back_of_kind(self, kind: str) -> None:
        self._of_kind[kind].release()
        self._leave(kind)

    def _leave(self, kind: str) -> None:
        """Forgets a kind that no task has or waits for."""
        self._users[kind] -= 1
        if not self._users[kind]:
            del self._users[kind], self._of_kind[kind]
