"""The job server of an engine process, over a real socket: whom it answers, and what it counts."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import numpy as np
import zmq
import zmq.asyncio

from service.engine.client import ImageJob, JobResult
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.metrics import Metrics
from service.processes import messages
from service.processes.engine_process import JobServer
from service.processes.messages import Cancel, Embedded, Failed, Hello, News, Packs, TellPacks, encode
from service.processes.wire import job_frames, read_outcome
from tests.service.engine.test_engine import FACTS, LIMITS, Counted
from tests.service.running import PATIENCE_S, Recorder

SECRET = "secret"


class Bench:
    def __init__(self, context: zmq.asyncio.Context) -> None:
        self._context = context
        self.address = f"ipc://@packlight-test-{secrets.token_hex(8)}"
        self._socket = context.socket(zmq.ROUTER)
        self._socket.bind(self.address)
        self.runner = Recorder(Counted())
        self.engine = Engine(HostDevice(self.runner), FACTS, LIMITS, metrics=Metrics())
        self.jobs = JobServer(self.engine, self._socket, SECRET)
        self.serving = asyncio.create_task(self.jobs.serve())
        self._clients: list[zmq.asyncio.Socket] = []

    async def client(self, secret: str = SECRET) -> zmq.asyncio.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.connect(self.address)
        await socket.send_multipart([encode(Hello(secret))])
        self._clients.append(socket)
        return socket

    async def held_tokens(self, tokens: int) -> None:
        """Waits until the job server counts so many."""
        while self.jobs._tokens.total() != tokens:  # noqa: ASYNC110
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


async def answer(socket: zmq.asyncio.Socket) -> tuple[int, JobResult]:
    head, *arrays = await socket.recv_multipart()
    message = messages.reply(head)
    assert isinstance(message, Embedded)
    outcome = read_outcome(message, [memoryview(array) for array in arrays])
    assert isinstance(outcome, JobResult)
    return message.number, outcome


def test_a_client_that_knows_the_secret_is_answered() -> None:
    async def main(bench: Bench) -> None:
        client = await bench.client()
        await client.send_multipart(job_frames(7, job(3)))
        number, outcome = await answer(client)
        assert (number, outcome.pooled[0, 0]) == (7, 9)
        await bench.held_tokens(0)

    run(main)


def test_nothing_comes_of_what_a_stranger_sends() -> None:
    async def main(bench: Bench) -> None:
        stranger = await bench.client(secret="guess")
        for frames in ([b""], [b"hello", b"a"], [encode(Hello("")), b"a"], [encode(Cancel(1))], job_frames(1, job())):
            await stranger.send_multipart(frames)
        client = await bench.client()
        await client.send_multipart(job_frames(2, job()))
        await answer(client)
        assert not bench.serving.done()
        assert bench.runner.packs == [[2]]

    run(main)


def test_an_image_that_is_cancelled_at_once_is_not_counted_for_ever() -> None:
    """Both messages are read in one step of the loop, so that the task is cancelled before its first step."""

    async def main(bench: Bench) -> None:
        client = await bench.client()
        bench.runner.hold()
        for number in range(100):
            await client.send_multipart(job_frames(number, job()))
            await client.send_multipart([encode(Cancel(number))])
        await client.send_multipart(job_frames(100, job(5)))
        bench.runner.free.set()
        # Some of the others may have been on the device before they were cancelled.
        while (await answer(client))[0] != 100:
            pass
        await bench.held_tokens(0)
        assert not bench.jobs._tasks

    run(main)


def test_each_is_told_what_the_engine_has_to_do_for_others() -> None:
    async def main(bench: Bench) -> None:
        one, other = await bench.client(), await bench.client()
        bench.runner.hold()
        await one.send_multipart(job_frames(1, job(3)))
        await other.send_multipart(job_frames(1, job(5)))
        await bench.held_tokens(8)
        await bench.jobs.send_news()
        heard = [messages.reply((await socket.recv_multipart())[0]) for socket in (one, other)]
        assert [type(message) for message in heard] == [News, News]
        assert [message.state.others_tokens for message in heard] == [5, 3]

    run(main)


def test_who_asks_is_told_the_packs_of_all_that_ended_later() -> None:
    async def main(bench: Bench) -> None:
        one, other = await bench.client(), await bench.client()
        for tokens in (2, 3):
            await one.send_multipart(job_frames(tokens, job(tokens)))
            await answer(one)
        told = []
        for ended_s in (0.0, bench.engine.packs[0][0].ended_s, bench.engine.packs[0][1].ended_s):
            await other.send_multipart([encode(TellPacks(ended_s))])
            message = messages.reply((await other.recv_multipart())[0])
            assert isinstance(message, Packs)
            told.append([pack.images for pack in message.packs])
        assert told == [[((2,),), ((3,),)], [((3,),)], []]

    run(main)


def test_an_image_whose_rows_do_not_fit_its_grid_fails_alone() -> None:
    async def main(bench: Bench) -> None:
        client = await bench.client()
        head, rows = job_frames(1, job(3))
        await client.send_multipart([head, bytes(rows)[:-1]])
        failed = messages.reply((await client.recv_multipart())[0])
        assert isinstance(failed, Failed)
        assert (failed.number, failed.code) == (1, "engine_fault")
        await client.send_multipart(job_frames(2, job()))
        assert (await answer(client))[0] == 2
        await bench.held_tokens(0)

    run(main)
