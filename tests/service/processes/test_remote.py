"""The client of engine processes, over a real socket, with an engine that does as a test says."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
import zmq.asyncio

from model.sizing.geometry import Geometry
from service.engine.client import ImageJob, Job, JobResult
from service.engine.pack_log import PackReport
from service.errors import DeadlineExceeded, EngineFault, ServiceError
from service.limits import ModelFacts
from service.metrics import Metrics
from service.processes import messages
from service.processes.messages import Cancel, Embed, EngineState, EngineStatus, Hello, News, Packs, TellPacks, encode
from service.processes.remote import RemoteEngine
from service.processes.wire import read_job, reply_frames
from tests.service.running import PATIENCE_S

FACTS = ModelFacts(
    name="m", dim=4, token_dim=4, geometry=Geometry.for_naflex(1, 16),
    default_max_tokens=16, parameters=1, fingerprint="f", fast_fingerprint="g", device="cpu",
    dtype="float32", attention="segmentwise",
)  # fmt: skip
SECRET = "secret"


class Engine:
    """The other end: it keeps what it gets, and answers when told to."""

    def __init__(self, context: zmq.asyncio.Context) -> None:
        self.address = f"ipc://@packlight-test-{secrets.token_hex(8)}"
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(self.address)
        self.state = EngineState(ready=True, tokens_per_s=100.0, others_tokens=0)
        self.sender = b""
        self.jobs: dict[int, Job] = {}
        self.cancelled: list[int] = []
        self.asked_packs: float | None = None

    async def hears(self, count: int) -> None:
        for _ in range(count):
            async with asyncio.timeout(PATIENCE_S):
                self.sender, head, *frames = await self._socket.recv_multipart()
            match messages.request(head):
                case Hello(secret=secret):
                    assert secret == SECRET
                case Embed() as job:
                    self.jobs[job.number] = read_job(job, [memoryview(frame) for frame in frames])
                case Cancel(number=number):
                    self.cancelled.append(number)
                case TellPacks(ended_s=ended_s):
                    self.asked_packs = ended_s

    async def sends_news(self) -> None:
        await self.sends(encode(News(self.state)))

    async def answer(self, number: int, outcome: JobResult | ServiceError | None = None) -> None:
        outcome = outcome or JobResult(np.full((1, 4), number, np.float32), None, 0.1, 0.2, 0.3)
        await self.sends(*reply_frames(self.state, number, outcome))

    async def sends(self, *frames: bytes | memoryview) -> None:
        await self._socket.send_multipart([self.sender, *frames])

    @property
    def names(self) -> list[str]:
        return [job.name for job in self.jobs.values()]

    def close(self) -> None:
        self._socket.close()


class Bench:
    def __init__(self, engines: int) -> None:
        self.context = zmq.asyncio.Context()
        self.engines = [Engine(self.context) for _ in range(engines)]
        self.metrics = Metrics()
        self.now_s = 100.0
        self.client = RemoteEngine(
            FACTS, name="http-0", engines=[EngineStatus(engine.address) for engine in self.engines], secret=SECRET,
            metrics=self.metrics, clock=lambda: self.now_s,
        )  # fmt: skip

    async def submitted(self, *jobs: ImageJob) -> list["asyncio.Task[JobResult]"]:
        tasks = [asyncio.create_task(self.client.submit(job)) for job in jobs]
        await asyncio.sleep(0)
        return tasks

    def down(self, number: int, *suspects: str, backing_off: bool = False) -> None:
        self.client.engine_down(number, set(suspects), backing_off=backing_off)

    def up(self, number: int) -> Engine:
        """Starts a new life of an engine, with a new address."""
        self.engines[number].close()
        engine = self.engines[number] = Engine(self.context)
        self.client.engine_up(number, engine.address)
        return engine

    def engine_up(self) -> float | None:
        return self.metrics.registry.get_sample_value("packlight_engine_up")


def run(engines: int, main: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        bench = Bench(engines)
        bench.client.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await main(bench)
        finally:
            bench.client.close()
            for engine in bench.engines:
                engine.close()
            bench.context.term()

    asyncio.run(bounded())


def job(tokens: int = 2, **changes: Any) -> ImageJob:
    return replace(ImageJob(np.ones((tokens, 3), np.uint8), ((tokens, 1),), tokens, None, False), **changes)


def test_each_image_gets_its_own_answer_in_whatever_order_they_come():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        tasks = await bench.submitted(job(), job(), job())
        await engine.hears(4)
        for number in (2, 0, 1):
            await engine.answer(number)
        assert [(await task).pooled[0, 0] for task in tasks] == [0, 1, 2]

    run(1, main)


def test_an_error_of_the_engine_is_the_callers():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job())
        await engine.hears(2)
        await engine.answer(0, EngineFault("broken"))
        with pytest.raises(EngineFault, match="broken"):
            await task

    run(1, main)


def test_an_answer_that_cannot_be_read_fails_its_image():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job(deadline_s=bench.now_s))
        await engine.hears(2)
        whole = np.zeros((1, 4), np.float32)
        head, _ = reply_frames(engine.state, 0, JobResult(whole, None, 0.1, 0.2, 0.3))
        await engine.sends(head, whole[:, 1:].tobytes())
        with pytest.raises(EngineFault, match="cannot be read"):
            await task

    run(1, main)


def test_images_go_to_the_engine_with_the_fewest_tokens_to_do():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        await bench.submitted(job(10), job(3), job(3), job(3), job(3))
        await asyncio.gather(first.hears(2), second.hears(5))
        assert [made.tokens for made in first.jobs.values()] == [10]
        # An engine's work for others counts too.
        second.state = msgspec.structs.replace(second.state, others_tokens=50)
        await second.answer(1)
        await bench.submitted(job(1))
        await first.hears(1)
        assert [made.tokens for made in first.jobs.values()] == [10, 1]

    run(2, main)


def test_after_a_death_the_images_of_its_pack_run_again_alone_and_the_others_as_before():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        tasks = await bench.submitted(job(1), job(2), job(3))
        await engine.hears(4)
        bench.down(0, engine.names[1])
        assert not bench.client.any_device_ready
        assert bench.engine_up() == 0
        engine = bench.up(0)
        await engine.hears(4)
        assert [(made.tokens, made.alone) for made in engine.jobs.values()] == [(1, False), (2, True), (3, False)]
        for number in range(3):
            await engine.answer(number)
        assert [(await task).pooled[0, 0] for task in tasks] == [0, 1, 2]
        assert bench.engine_up() == 1

    run(1, main)


def test_the_image_that_is_there_at_a_second_death_is_at_fault():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        guilty, innocent = await bench.submitted(job(1), job(2))
        await engine.hears(3)
        bench.down(0, *engine.names)
        engine = bench.up(0)
        await engine.hears(3)
        bench.down(0, engine.names[0])
        with pytest.raises(EngineFault, match="twice"):
            await guilty
        engine = bench.up(0)
        await engine.hears(2)
        assert [made.tokens for made in engine.jobs.values()] == [2]
        await engine.answer(1)
        assert (await innocent).pooled[0, 0] == 1

    run(1, main)


def test_when_one_engine_of_two_dies_its_images_go_to_the_other():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        task, _ = await bench.submitted(job(5), job(5))
        await asyncio.gather(first.hears(2), second.hears(2))
        bench.down(0, backing_off=True)
        await second.hears(1)
        await second.answer(0)
        assert (await task).pooled[0, 0] == 0
        assert bench.client.any_device_ready
        assert bench.client.accepts_jobs
        assert not bench.client.all_devices_ready

    run(2, main)


def pack(ended_s: float) -> PackReport:
    return PackReport(((4,),), (), 0, 4, 8, 4, 16, 0.1, 0.2, ended_s, f"{ended_s}")


def test_each_engine_is_asked_for_the_packs_that_are_not_known_yet():
    async def main(bench: Bench) -> None:
        engine, other = bench.engines
        for asked, told, known in (
            (0.0, [1.0, 2.0], [1.0, 2.0]),
            (2.0, [2.0, 3.0], [1.0, 2.0, 3.0]),
        ):
            bench.client.refresh_packs()
            await engine.hears(2 if asked == 0 else 1)
            assert engine.asked_packs == asked
            await engine.sends(encode(Packs(engine.state, [pack(ended_s) for ended_s in told])))
            while [each.ended_s for each in bench.client.packs[0]] != known:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await other.hears(3)
        assert bench.client.packs[1] == ()
        bench.down(0)
        bench.client.refresh_packs()
        await other.hears(1)

    run(2, main)


def test_images_wait_while_there_is_no_engine_until_their_deadline():
    async def main(bench: Bench) -> None:
        bench.down(0)
        patient, hasty = await bench.submitted(job(), job(deadline_s=bench.now_s + 0.02))
        with pytest.raises(DeadlineExceeded):
            await hasty
        engine = bench.up(0)
        await engine.hears(2)
        assert len(engine.jobs) == 1
        await engine.answer(0)
        await patient

    run(1, main)


def test_an_image_on_a_device_that_dies_after_its_deadline_is_too_late():
    async def main(bench: Bench) -> None:
        (task,) = await bench.submitted(job(deadline_s=bench.now_s + 5))
        await bench.engines[0].hears(2)
        bench.now_s += 6
        bench.down(0)
        with pytest.raises(DeadlineExceeded):
            await task

    run(1, main)


def test_while_the_next_start_of_an_engine_is_delayed_nothing_new_is_let_in_and_accepted_images_wait():
    async def main(bench: Bench) -> None:
        bench.down(0)
        assert bench.client.accepts_jobs
        bench.down(0, backing_off=True)
        assert not bench.client.accepts_jobs
        (task,) = await bench.submitted(job())
        engine = bench.up(0)
        await engine.hears(2)
        await engine.answer(0)
        await task

    run(1, main)


def test_an_engine_that_was_busy_for_others_is_used_again_after_news_that_it_is_free():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        done, _ = await bench.submitted(job(3), job(3))
        await asyncio.gather(first.hears(2), second.hears(2))
        first.state = msgspec.structs.replace(first.state, others_tokens=500)
        await first.answer(0)
        await done
        await bench.submitted(job(3))
        await second.hears(1)
        first.state = msgspec.structs.replace(first.state, others_tokens=0)
        await first.sends_news()
        # Nothing waits for news.
        async with asyncio.timeout(PATIENCE_S):
            while bench.client._engines[0].state.others_tokens:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await bench.submitted(job(3))
        await first.hears(1)

    run(2, main)


def test_an_engine_that_comes_back_before_its_death_was_told_gets_its_images_again():
    async def main(bench: Bench) -> None:
        (task,) = await bench.submitted(job())
        await bench.engines[0].hears(2)
        engine = bench.up(0)
        await engine.hears(2)
        await engine.answer(0)
        await task

    run(1, main)


def test_an_image_whose_caller_leaves_is_cancelled_in_the_engine():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job())
        await engine.hears(2)
        task.cancel()
        await engine.hears(1)
        assert engine.cancelled == [0]
        # An answer that was already on its way is dropped.
        await engine.answer(0)
        (task,) = await bench.submitted(job())
        await engine.hears(1)
        await engine.answer(1)
        assert (await task).pooled[0, 0] == 1

    run(1, main)


def test_the_rate_is_the_part_of_the_engines_rate_that_this_process_has():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        assert bench.client.tokens_per_s is None
        engine.state = EngineState(ready=True, tokens_per_s=100.0, others_tokens=30)
        done, _ = await bench.submitted(job(5), job(10))
        await engine.hears(3)
        await engine.answer(0)
        await done
        assert bench.client.tokens_per_s == pytest.approx(100 * 10 / (10 + 30))

    run(1, main)


def test_an_engine_that_only_fails_is_not_ready():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        engine.state = msgspec.structs.replace(engine.state, ready=False)
        (task,) = await bench.submitted(job())
        await engine.hears(2)
        await engine.answer(0, EngineFault("broken"))
        with pytest.raises(EngineFault):
            await task
        assert not bench.client.any_device_ready
        assert bench.client.accepts_jobs
        assert bench.engine_up() == 0

    run(1, main)
