"""The door of an engine process, over a real socket: whom it lets in, and what it keeps account of."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import numpy as np
import zmq
import zmq.asyncio

from service.engine.client import ImageJob, ImageResult
from service.engine.engine import Engine
from service.metrics import Metrics
from service.processes.engine_process import Door
from service.processes.wire import CANCEL, HELLO, job_frames, read_result, read_state
from tests.service.engine.test_engine import FACTS, LIMITS, Counted
from tests.service.running import PATIENCE_S, Recorder

SECRET = b"secret"


class Bench:
    def __init__(self, context: zmq.asyncio.Context) -> None:
        self._context = context
        self.address = f"ipc://@packlight-test-{secrets.token_hex(8)}"
        self._socket = context.socket(zmq.ROUTER)
        self._socket.bind(self.address)
        self.runner = Recorder(Counted())
        self.engine = Engine(self.runner, FACTS, LIMITS, metrics=Metrics())
        self.door = Door(self.engine, self._socket, SECRET)
        self.serving = asyncio.create_task(self.door.serve())
        self._clients: list[zmq.asyncio.Socket] = []

    async def client(self, secret: bytes = SECRET) -> zmq.asyncio.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.connect(self.address)
        await socket.send_multipart([HELLO, secret])
        self._clients.append(socket)
        return socket

    async def held_tokens(self, tokens: int) -> None:
        """Waits until the door counts so many."""
        while self.door._tokens.total() != tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.runner.free.set()
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)
        for socket in (self._socket, *self._clients):
            socket.close(linger=0)
        await asyncio.to_thread(self.engine.close, timeout_s=PATIENCE_S)


def run(main: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with zmq.asyncio.Context() as context:
            bench = Bench(context)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await main(bench)
            finally:
                await bench.close()

    asyncio.run(bounded())


def job(tokens: int = 2) -> ImageJob:
    return ImageJob(np.ones((tokens, 3), np.uint8), ((tokens, 1),), tokens, None, False)


async def answer(socket: zmq.asyncio.Socket) -> tuple[int, ImageResult]:
    frames = await socket.recv_multipart()
    number, outcome = read_result(frames[1:])
    assert isinstance(outcome, ImageResult)
    return number, outcome


def test_who_knows_the_secret_is_answered() -> None:
    async def main(bench: Bench) -> None:
        client = await bench.client()
        await client.send_multipart(job_frames(7, job(3)))
        number, outcome = await answer(client)
        assert (number, outcome.pooled[0, 0]) == (7, 9)
        await bench.held_tokens(0)

    run(main)


def test_whatever_a_stranger_sends_nothing_comes_of_it() -> None:
    async def main(bench: Bench) -> None:
        stranger = await bench.client(secret=b"guess")
        for frames in ([HELLO], [b""], [HELLO, b"a", b"b"], [b"embed"], [b"embed", b"{", b""], job_frames(1, job())):
            await stranger.send_multipart(frames)
        client = await bench.client()
        await client.send_multipart(job_frames(2, job()))
        await answer(client)
        assert not bench.serving.done()
        assert bench.runner.packs == [[2]]

    run(main)


def test_an_image_that_is_taken_back_at_once_is_not_counted_for_ever() -> None:
    """Read in one step of the loop, a job is cancelled before the first step of its own."""

    async def main(bench: Bench) -> None:
        client = await bench.client()
        bench.runner.hold()
        for number in range(100):
            await client.send_multipart(job_frames(number, job()))
            await client.send_multipart([CANCEL, b"%d" % number])
        await client.send_multipart(job_frames(100, job(5)))
        bench.runner.free.set()
        # Some of the others may have been on the device before they were taken back: they have nobody to answer to.
        while (await answer(client))[0] != 100:
            pass
        await bench.held_tokens(0)
        assert not bench.door._tasks

    run(main)


def test_each_is_told_what_the_engine_has_to_do_for_others() -> None:
    async def main(bench: Bench) -> None:
        one, other = await bench.client(), await bench.client()
        bench.runner.hold()
        await one.send_multipart(job_frames(1, job(3)))
        await other.send_multipart(job_frames(1, job(5)))
        await bench.held_tokens(8)
        await bench.door.tell_state()
        states = [read_state((await socket.recv_multipart())[0]) for socket in (one, other)]
        assert [state.others_tokens for state in states] == [5, 3]

    run(main)
