"""One line for all listeners of `/stats`, twice a second and only while there are any."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import replace

import orjson

from service.errors import Overloaded
from service.http.stats.line import StatsLine
from service.http.stats.reader import StatsReader

_LINE_EVERY_S = 0.5
# How soon listeners are let go once the server drains: uvicorn looks as often for its own end.
_DRAIN_CHECK_S = 0.1

_log = logging.getLogger(__name__)


class StatsFeed:
    """Keeps the newest line, and no queue: a listener that comes too late for a line gets the next one in full."""

    def __init__(self, reader: StatsReader, *, max_listeners: int, draining: Callable[[], bool]) -> None:
        self._reader, self._max_listeners, self._draining = reader, max_listeners, draining
        self._listeners = 0
        self._ticking: asyncio.Task[None] | None = None
        # Set when a line is there, and then replaced.
        self.turn = asyncio.Event()
        self.number = 0
        self._line: StatsLine | None = None
        self._new = self._full = b""

    @contextmanager
    def listening(self) -> Iterator["Listener"]:
        """Raises `Overloaded` if there are too many."""
        if self._listeners >= self._max_listeners:
            raise Overloaded(
                f"{self._max_listeners} listeners follow /stats, the most there may be of one HTTP process: half of "
                "max_connections, or 128",
                retry_after_s=1,
                reason="connections",
            )
        self._listeners += 1
        if self._ticking is None:
            self._reader.forget()
            self._line = None
            # It belongs to no request: it outlives the one that begins it.
            self._ticking = asyncio.create_task(self._tick(), name="stats", context=Context())
        try:
            yield Listener(self)
        finally:
            self._listeners -= 1
            if not self._listeners and self._ticking is not None:
                ticking, self._ticking = self._ticking, None
                ticking.cancel()

    @property
    def running(self) -> bool:
        """False once the server drains, or if no line could be made."""
        return self._ticking is not None

    @property
    def has_line(self) -> bool:
        """False until the first line after a time without listeners."""
        return self._line is not None

    @property
    def new_line(self) -> bytes:
        """The newest line, with the packs that the line before it had not."""
        return self._new

    @property
    def full_line(self) -> bytes:
        """The newest line, with the last packs. Made when the first listener wants it."""
        if not self._full:
            assert self._line is not None, "a line was wanted before there was one"
            self._full = _written(self._line)
        return self._full

    async def _tick(self) -> None:
        try:
            while not self._draining():
                self._take(await self._reader.read())
                await self._rest()
        except Exception:
            _log.exception("no line of /stats could be made; its listeners are let go")
        except asyncio.CancelledError:
            # The last listener cancels it too, and the end of the loop.
            if self._ticking is asyncio.current_task() and not self._draining():
                _log.error("the task stats was cancelled; the listeners of /stats are let go")
            raise
        finally:
            if self._ticking is asyncio.current_task():
                self._ticking = None
                self._wake()

    def _take(self, line: StatsLine) -> None:
        known = {pack.id for pack in self._line.packs} if self._line else set()
        new = [pack for pack in line.packs if pack.id not in known]
        self._line, self._full = line, b""
        self._new = _written(replace(line, full=False, packs=new))
        self.number += 1
        self._wake()

    def _wake(self) -> None:
        turn, self.turn = self.turn, asyncio.Event()
        turn.set()

    async def _rest(self) -> None:
        for _ in range(round(_LINE_EVERY_S / _DRAIN_CHECK_S)):
            if self._draining():
                return
            await asyncio.sleep(_DRAIN_CHECK_S)


class Listener:
    """A client that reads lines."""

    def __init__(self, feed: StatsFeed) -> None:
        self._feed = feed
        self._seen: int | None = None

    async def next_line(self) -> bytes | None:
        """Waits for a line that this listener has not had; None at the end."""
        feed = self._feed
        while feed.running and (not feed.has_line or feed.number == self._seen):
            await feed.turn.wait()
        if not feed.running:
            return None
        missed = self._seen is None or feed.number != self._seen + 1
        self._seen = feed.number
        return feed.full_line if missed else feed.new_line


def _written(line: StatsLine) -> bytes:
    return orjson.dumps(line) + b"\n"
