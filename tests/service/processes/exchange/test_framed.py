"""Frames arrive whole and in order, however the system cuts them."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from service.processes.exchange.framed import FramedSocket, framed_head
from tests.service.running import PATIENCE_S

Frame = tuple[bytes, bytes]


class End:
    """Keeps what it hears, as bytes."""

    def __init__(self, end: socket.socket, read: bytes = b"") -> None:
        self.calls: list[list[Frame]] = []
        self.gone = asyncio.Event()
        self.framed = FramedSocket(end, self._heard, on_end=self.gone.set, max_frame_bytes=2**26, read=read)

    def _heard(self, frames: list[tuple[memoryview, memoryview]]) -> None:
        self.calls.append([(bytes(head), bytes(behind)) for head, behind in frames])

    async def hears(self, count: int) -> list[Frame]:
        while sum(map(len, self.calls)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return [frame for call in self.calls for frame in call]


def run(main: Callable[[socket.socket, socket.socket], Awaitable[None]]) -> None:
    async def bounded() -> None:
        one, other = socket.socketpair()
        with one, other:
            async with asyncio.timeout(PATIENCE_S):
                await main(one, other)

    asyncio.run(bounded())


def test_what_is_sent_in_one_turn_of_the_loop_is_heard_in_one_call() -> None:
    async def main(one: socket.socket, other: socket.socket) -> None:
        sender, hearer = End(one), End(other)
        for number in range(100):
            sender.framed.send([b"%d" % number, b"a", memoryview(b"bc")])
        frames = await hearer.hears(100)
        assert frames == [(b"%d" % number, b"abc") for number in range(100)]
        assert len(hearer.calls) == 1

    run(main)


def test_more_than_the_system_takes_at_once_arrives_in_order_both_ways() -> None:
    async def main(one: socket.socket, other: socket.socket) -> None:
        for end in (one, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ends = [End(one), End(other)]
        sent: list[Frame] = [(b"%d" % size, bytes([size % 251]) * size) for size in (0, 1, 100_000, 7, 1_000_000, 3000)]
        for each in ends:
            for head, behind in sent:
                each.framed.send([head, behind])
        for each in ends:
            assert await each.hears(len(sent)) == sent

    run(main)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 12, 20])
def test_a_frame_that_comes_in_pieces_is_heard_once(cut: int) -> None:
    async def main(one: socket.socket, other: socket.socket) -> None:
        hearer = End(other)
        data = framed_head(b"head", 5) + b"after" + framed_head(b"x")
        one.send(data[:cut])
        await asyncio.sleep(0)
        one.send(data[cut:])
        assert await hearer.hears(2) == [(b"head", b"after"), (b"x", b"")]

    run(main)


def test_what_was_read_before_is_heard_first() -> None:
    async def main(one: socket.socket, other: socket.socket) -> None:
        one.send(framed_head(b"second"))
        assert await End(other, framed_head(b"first")).hears(2) == [(b"first", b""), (b"second", b"")]

    run(main)


def test_what_came_before_the_other_end_was_gone_is_heard() -> None:
    async def main(one: socket.socket, other: socket.socket) -> None:
        one.send(framed_head(b"last"))
        one.close()
        hearer = End(other)
        await hearer.gone.wait()
        assert hearer.calls == [[(b"last", b"")]]
        hearer.framed.send([b"to nobody"])

    run(main)


def test_a_sender_learns_that_the_other_end_is_gone() -> None:
    async def main(one: socket.socket, other: socket.socket) -> None:
        sender = End(one)
        other.close()
        for _ in range(3):
            sender.framed.send([b"x"])
        await sender.gone.wait()

    run(main)
