"""One line for all who listen, with a reader that says what a test says."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.engine.pack_log import PackReport
from service.errors import Overloaded
from service.http.stats.feed import Listener, StatsFeed
from service.http.stats.line import QueueLine, StatsLine, pack_lines
from service.http.stats.reader import StatsReader
from tests.service.running import PATIENCE_S


class Reader(StatsReader):
    """Every line has one more pack. reads: how many were made."""

    def __init__(self) -> None:
        self.reads = 0

    def forget(self) -> None: ...

    async def read(self) -> StatsLine:
        self.reads += 1
        reports = [PackReport(((1,),), (), 0, 1, 1, 1, 1, 0.0, 0.0, float(n), f"{n}") for n in range(self.reads)]
        packs = pack_lines([reports], since_epoch_s=0.0)
        return StatsLine(True, 0.0, True, True, 1, QueueLine(0, 1, 0, 0, 1), None, {}, packs)


def run(main: Callable[[StatsFeed, Reader], Awaitable[None]], *, max_listeners: int = 2) -> None:
    async def bounded() -> None:
        reader = Reader()
        async with asyncio.timeout(PATIENCE_S):
            await main(StatsFeed(reader, max_listeners=max_listeners, draining=lambda: False), reader)

    asyncio.run(bounded())


async def line_of(listener: Listener) -> dict[str, Any]:
    line = await listener.next_line()
    assert line is not None
    made: dict[str, Any] = json.loads(line)
    return made


def test_a_line_has_the_packs_since_the_one_before() -> None:
    async def main(feed: StatsFeed, reader: Reader) -> None:
        with feed.listening() as listener:
            lines = [await line_of(listener) for _ in range(3)]
        assert [line["full"] for line in lines] == [True, False, False]
        assert [[pack["id"] for pack in line["packs"]] for line in lines] == [["0"], ["1"], ["2"]]

    run(main)


def test_who_comes_too_late_for_a_line_gets_the_next_one_in_full() -> None:
    async def main(feed: StatsFeed, reader: Reader) -> None:
        with feed.listening() as slow, feed.listening() as watching:
            await line_of(slow)
            for _ in range(3):
                await line_of(watching)
            line = await line_of(slow)
            assert (line["full"], len(line["packs"])) == (True, 3)
            assert not (await line_of(slow))["full"]

    run(main)


def test_nothing_is_read_while_nobody_listens() -> None:
    async def main(feed: StatsFeed, reader: Reader) -> None:
        assert reader.reads == 0
        with feed.listening() as listener:
            await line_of(listener)
        reads = reader.reads
        assert len(asyncio.all_tasks()) <= 2
        with feed.listening() as listener:
            assert (await line_of(listener))["full"]
        assert reader.reads == reads + 1

    run(main)


def test_one_too_many_is_refused_until_another_goes() -> None:
    async def main(feed: StatsFeed, reader: Reader) -> None:
        with feed.listening():
            with feed.listening(), pytest.raises(Overloaded), feed.listening():
                raise AssertionError("a listener too many was let in")
            with feed.listening() as listener:
                await line_of(listener)

    run(main)
