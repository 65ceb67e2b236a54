"""Bounds how many tasks go on at once, in all and of one kind. The others wait."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager


class Turns:
    """Turns of one event loop. A kind is a request, a host or an address: one that keeps its turns long has few.

    A task that waits for one kind may have turns of the kinds before it. It keeps other tasks of those kinds waiting,
    and no others. Waiting and waking cost the same however many wait.

    Bulk has fewer turns in all and of each kind, and waits for them in a line of its own: however many of its tasks
    wait, the others have the rest, and never stand behind more of bulk than that.
    """

    def __init__(self, most: int, *, interactive_share: float = 0.0) -> None:
        """most: turns at once. One kind may have a quarter of them. interactive_share: what bulk cannot have of either,
        except for the only turn."""
        self._most_of_a_kind = max(1, most // 4)
        self._share = interactive_share
        self._all = {False: asyncio.Semaphore(most), True: asyncio.Semaphore(self._of_bulk(most))}
        self._of_kind: dict[tuple[str, bool], asyncio.Semaphore] = {}
        self._users: dict[tuple[str, bool], int] = {}
        self.taken = 0

    @asynccontextmanager
    async def turn(self, *kinds: str, bulk: bool = False) -> AsyncIterator[None]:
        """A turn that counts for each of `kinds`, which differ."""
        await self.take(*kinds, bulk=bulk)
        try:
            yield
        finally:
            self.give_back(*kinds, bulk=bulk)

    async def take(self, *kinds: str, bulk: bool = False) -> None:
        """Waits for each of `kinds` and at last for a turn, in order of arrival within each class."""
        held: list[tuple[str, bool]] = []
        try:
            for line in _lines(kinds, bulk=bulk):
                await self._take_of_kind(line)
                held.append(line)
            if bulk:
                await self._all[True].acquire()
            try:
                await self._all[False].acquire()
            except asyncio.CancelledError:
                if bulk:
                    self._all[True].release()
                raise
        except asyncio.CancelledError:
            for line in held:
                self._give_back_of_kind(line)
            raise
        self.taken += 1

    def give_back(self, *kinds: str, bulk: bool = False) -> None:
        """Ends a turn, and wakes the tasks that waited the longest for it and for each of its kinds."""
        self.taken -= 1
        for each in {False, bulk}:
            self._all[each].release()
        for line in _lines(kinds, bulk=bulk):
            self._give_back_of_kind(line)

    def _of_bulk(self, most: int) -> int:
        return max(1, most - int(self._share * most))

    async def _take_of_kind(self, line: tuple[str, bool]) -> None:
        self._users[line] = self._users.get(line, 0) + 1
        most = self._of_bulk(self._most_of_a_kind) if line[1] else self._most_of_a_kind
        waiting = self._of_kind.setdefault(line, asyncio.Semaphore(most))
        try:
            await waiting.acquire()
        except asyncio.CancelledError:
            self._leave(line)
            raise

    def _give_back_of_kind(self, line: tuple[str, bool]) -> None:
        self._of_kind[line].release()
        self._leave(line)

    def _leave(self, line: tuple[str, bool]) -> None:
        """Forgets a kind that no task has or waits for."""
        self._users[line] -= 1
        if not self._users[line]:
            del self._users[line], self._of_kind[line]


def _lines(kinds: tuple[str, ...], *, bulk: bool) -> Iterator[tuple[str, bool]]:
    """What a task waits for: of each kind the line of bulk, if it is bulk, and then that of all."""
    for kind in kinds:
        if bulk:
            yield kind, True
        yield kind, False
