"""The job server of an engine process, over a real socket: whom it answers, and what it counts."""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from service.engine.client import ImageJob, JobResult
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.metrics import Metrics
from service.processes.exchange import messages
from service.processes.exchange.framed import FramedSocket, Frames, framed_head
from service.processes.exchange.job_server import JobServer
from service.processes.exchange.messages import Answers, Cancel, Failed, Hello, News, Packs, TellPacks
from service.processes.exchange.slab import Slab
from service.processes.exchange.wire import job_frames, read_outcomes
from service.processes.messages import encode
from tests.service.engine.test_engine import FACTS, LIMITS, Counted
from tests.service.running import PATIENCE_S, Recorder

SECRET = "secret"


class Client:
    """A process that sends jobs."""

    def __init__(self, address: str, secret: str = SECRET, name: str = "http") -> None:
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._end.connect(f"\0{address}")
        self.slab = Slab(2**16)
        socket.send_fds(self._end, [framed_head(encode(Hello(secret, name)))], [self.slab.descriptor])
        self._came: asyncio.Queue[tuple[memoryview, memoryview]] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._framed = FramedSocket(self._end, self._heard, on_end=self.gone.set)

    def _heard(self, frames: list[tuple[memoryview, memoryview]]) -> None:
        for frame in frames:
            self._came.put_nowait(frame)

    def send(self, *frames: bytes | memoryview) -> None:
        self._framed.send(list(frames))

    def send_job(self, number: int, job: ImageJob) -> None:
        self.send(*job_frames(number, job, self.slab, alone=False))

    async def reply(self) -> tuple[messages.Reply, memoryview]:
        head, behind = await self._came.get()
        return messages.reply(head), behind

    async def outcomes(self) -> dict[int, JobResult]:
        """Of the next answers, all of them results."""
        message, behind = await self.reply()
        assert isinstance(message, Answers)
        found = dict(read_outcomes(message.answers, behind))
        assert all(isinstance(outcome, JobResult) for outcome in found.values())
        return found  # type: ignore[return-value]

    def close(self) -> None:
        self._framed.close()
        self.slab.close()


class Bench:
    def __init__(self) -> None:
        self.address = f"packlight-test-{secrets.token_hex(8)}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(f"\0{self.address}")
        listening.listen()
        self.runner = Recorder(Counted())
        self.engine = Engine(HostDevice(self.runner), FACTS, LIMITS, metrics=Metrics())
        self.jobs = JobServer(self.engine, listening, SECRET, max_row_bytes=1024)
        self._clients: list[Client] = []

    def client(self, secret: str = SECRET) -> Client:
        self._clients.append(Client(self.address, secret))
        return self._clients[-1]

    async def held_tokens(self, tokens: int) -> None:
        """Waits until the job server counts so many."""
        while self.jobs.held_tokens != tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.runner.free.set()
        self.jobs.close()
        for client in self._clients:
            client.close()
        await asyncio.to_thread(self.engine.close, timeout_s=PATIENCE_S)


def run(main: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        bench = Bench()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await main(bench)
            assert not bench.jobs.broken.done()
        finally:
            await bench.close()

    asyncio.run(bounded())


def job(tokens: int = 2) -> ImageJob:
    return ImageJob(np.ones((tokens, 3), np.uint8), ((tokens, 1),), tokens, None, False)


def test_a_client_that_knows_the_secret_is_answered() -> None:
    async def main(bench: Bench) -> None:
        client = bench.client()
        client.send_job(7, job(3))
        outcomes = await client.outcomes()
        assert {number: outcome.pooled[0, 0] for number, outcome in outcomes.items()} == {7: 9}
        await bench.held_tokens(0)

    run(main)


def test_the_answers_of_a_pack_come_in_one_frame() -> None:
    async def main(bench: Bench) -> None:
        client = bench.client()
        bench.runner.hold()
        client.send_job(0, job())
        await asyncio.to_thread(bench.runner.entered.wait, PATIENCE_S)
        for number in range(1, 4):
            client.send_job(number, job(number))
        await bench.held_tokens(2 + 1 + 2 + 3)
        bench.runner.free.set()
        assert list(await client.outcomes()) == [0]
        outcomes = await client.outcomes()
        assert {number: outcome.pooled[0, 0] for number, outcome in outcomes.items()} == {1: 3, 2: 6, 3: 9}

    run(main)


def test_rows_are_read_where_they_are_and_those_that_are_elsewhere_are_sent() -> None:
    async def main(bench: Bench) -> None:
        client = bench.client()
        inside, outside = client.slab.rows(2, 3), np.full((2, 3), 5, np.uint8)
        inside[...] = 4
        for number, rows in enumerate((inside, outside)):
            frames = job_frames(number, ImageJob(rows, ((2, 1),), 2, None, False), client.slab, alone=False)
            assert len(frames) == 1 + number
            client.send(*frames)
            outcomes = await client.outcomes()
            assert outcomes[number].pooled[0, 0] == rows.sum()

    run(main)


def test_nothing_comes_of_what_a_stranger_sends() -> None:
    async def main(bench: Bench) -> None:
        bare = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bare.connect(f"\0{bench.address}")
        bare.send(b"hello")
        frames: list[Frames] = [[b""], [encode(Hello(SECRET, "a"))], [encode(Cancel(1))]]
        strangers = [bench.client(secret="guess") for _ in frames]
        for stranger, sent in zip(strangers, frames, strict=True):
            stranger.send(*sent)
            stranger.send_job(1, job())
            await stranger.gone.wait()
        client = bench.client()
        client.send_job(2, job())
        await client.outcomes()
        assert bench.runner.packs == [[2]]
        bare.close()

    run(main)


def test_a_file_whose_size_may_change_is_no_slab() -> None:
    async def main(bench: Bench) -> None:
        descriptor = os.memfd_create("unsealed")
        os.ftruncate(descriptor, 4096)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
            end.connect(f"\0{bench.address}")
            socket.send_fds(end, [framed_head(encode(Hello(SECRET, "http")))], [descriptor])
            os.close(descriptor)
            end.settimeout(PATIENCE_S)
            assert await asyncio.to_thread(end.recv, 1) == b""

    run(main)


def test_an_image_that_is_cancelled_at_once_is_not_counted_for_ever() -> None:
    async def main(bench: Bench) -> None:
        client = bench.client()
        bench.runner.hold()
        for number in range(100):
            client.send_job(number, job())
            client.send(encode(Cancel(number)))
        client.send_job(100, job(5))
        bench.runner.free.set()
        answered: list[int] = []
        while len(answered) < 101:
            message, _ = await client.reply()
            assert isinstance(message, Answers)
            # Some of the others may have been on the device before they were cancelled.
            answered += [each.number for each in message.answers]
        assert sorted(answered) == list(range(101))
        await bench.held_tokens(0)

    run(main)


def test_what_a_process_that_has_gone_had_queued_never_runs() -> None:
    async def main(bench: Bench) -> None:
        gone, client = bench.client(), bench.client()
        bench.runner.hold()
        client.send_job(1, job(3))
        await asyncio.to_thread(bench.runner.entered.wait, PATIENCE_S)
        gone.send_job(1, job(5))
        await bench.held_tokens(8)
        gone._framed.close()
        await bench.held_tokens(3)
        bench.runner.free.set()
        await client.outcomes()
        client.send_job(2, job(4))
        await client.outcomes()
        assert bench.runner.packs == [[3], [4]]

    run(main)


def test_each_is_told_what_the_engine_has_to_do_for_others() -> None:
    async def main(bench: Bench) -> None:
        one, other = bench.client(), bench.client()
        bench.runner.hold()
        one.send_job(1, job(3))
        other.send_job(1, job(5))
        other.send_job(2, replace(job(2), bulk=True))
        await bench.held_tokens(10)
        bench.jobs.send_news()
        heard = [(await client.reply())[0] for client in (one, other)]
        assert [type(message) for message in heard] == [News, News]
        assert [message.state.others_tokens for message in heard] == [7, 3]
        assert [message.state.others_bulk_tokens for message in heard] == [2, 0]

    run(main)


def test_who_asks_is_told_the_packs_of_all_that_ended_later() -> None:
    async def main(bench: Bench) -> None:
        one, other = bench.client(), bench.client()
        for tokens in (2, 3):
            one.send_job(tokens, job(tokens))
            await one.outcomes()
        told = []
        for ended_s in (0.0, bench.engine.packs[0][0].ended_s, bench.engine.packs[0][1].ended_s):
            other.send(encode(TellPacks(ended_s)))
            message, _ = await other.reply()
            assert isinstance(message, Packs)
            told.append([pack.images for pack in message.packs])
        assert told == [[((2,),), ((3,),)], [((3,),)], []]

    run(main)


def test_an_image_whose_rows_do_not_fit_its_grid_fails_alone() -> None:
    async def main(bench: Bench) -> None:
        client = bench.client()
        head, rows = job_frames(1, job(3), client.slab, alone=False)
        client.send(head, bytes(rows)[:-1])
        message, _ = await client.reply()
        assert isinstance(message, Answers)
        (failed,) = message.answers
        assert isinstance(failed, Failed)
        assert (failed.number, failed.code) == (1, "engine_fault")
        client.send_job(2, job())
        assert list(await client.outcomes()) == [2]
        await bench.held_tokens(0)

    run(main)


def test_a_frame_over_the_bound_ends_its_connection() -> None:
    async def main(bench: Bench) -> None:
        client = bench.client()
        client.send(b"x", bytes(70_000))
        await client.gone.wait()

    run(main)
