"""The client of engine processes, over a real socket, with an engine that does as a test says."""

import asyncio
import math
import os
import secrets
import select
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from model.sizing.geometry import Geometry
from service.engine.client import ImageJob, Job, JobResult
from service.engine.pack_log import PackReport
from service.errors import DeadlineExceeded, EngineFault, ServiceError
from service.limits import ModelFacts
from service.metrics import Metrics
from service.processes.exchange import messages
from service.processes.exchange.framed import LENGTHS, FramedSocket
from service.processes.exchange.messages import (
    Answers,
    Cancel,
    Dropped,
    Embed,
    EngineState,
    Hello,
    News,
    Packs,
    TellPacks,
)
from service.processes.exchange.remote import RemoteEngine
from service.processes.exchange.slab import Slab, SlabView
from service.processes.exchange.wire import answer_frames, answer_of, read_job
from service.processes.messages import EngineStatus, encode
from tests.service.running import PATIENCE_S

FACTS = ModelFacts(
    name="m", dim=4, token_dim=4, geometry=Geometry.for_naflex(1, 16),
    default_max_tokens=16, parameters=1, fingerprint="f", fast_fingerprint="g", device="cpu",
    dtype="float32", attention="segmentwise",
)  # fmt: skip
SECRET = "secret"


class Engine:
    """The other end: it keeps what it gets, and answers when told to."""

    def __init__(self) -> None:
        self.address = f"packlight-test-{secrets.token_hex(8)}"
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(f"\0{self.address}")
        self._listening.listen()
        self._end: FramedSocket | None = None
        self._came: asyncio.Queue[tuple[memoryview, memoryview]] = asyncio.Queue()
        self.state = EngineState(ready=True, tokens_per_s=100.0, others_tokens=0)
        self.jobs: dict[int, Job] = {}
        self.alone: dict[int, bool] = {}
        self.cancelled: list[int] = []
        self.asked_packs: float | None = None

    def greeted(self) -> None:
        """Takes the connection and its greeting, which are there once the client has been told of the engine."""
        end, _ = self._listening.accept()
        data, (descriptor,), _, _ = socket.recv_fds(end, 4096, 1)
        self.slab = SlabView(descriptor)
        os.close(descriptor)
        hello = messages.request(data[LENGTHS.size :])
        assert hello == Hello(SECRET, "http-0")
        self._end = FramedSocket(end, self._heard)

    def _heard(self, frames: list[tuple[memoryview, memoryview]]) -> None:
        for frame in frames:
            self._came.put_nowait(frame)

    async def hears(self, count: int) -> None:
        if self._end is None:
            self.greeted()
            count -= 1
        for _ in range(count):
            async with asyncio.timeout(PATIENCE_S):
                head, behind = await self._came.get()
            match messages.request(head):
                case Embed() as job:
                    self.jobs[job.number] = read_job(job, f"http-0:{job.number}", behind, self.slab)
                case Cancel(number=number):
                    self.cancelled.append(number)
                case TellPacks(ended_s=ended_s):
                    self.asked_packs = ended_s

    def sends_news(self) -> None:
        self.sends(encode(News(self.state)))

    def answer(self, number: int, outcome: JobResult | ServiceError | None = None) -> None:
        outcome = outcome or JobResult(np.full((1, 4), number, np.float32), None, 0.1, 0.2, 0.3)
        self.sends(*answer_frames(self.state, [answer_of(number, outcome)]))

    def drops(self, number: int) -> None:
        self.sends(encode(Answers(self.state, [Dropped(number)])))

    def sends(self, *frames: bytes | memoryview) -> None:
        assert self._end is not None
        self._end.send(list(frames))

    @property
    def names(self) -> list[str]:
        return [job.name for job in self.jobs.values()]

    def is_greeted(self) -> bool:
        """Whether a client has connected again."""
        if select.select([self._listening], [], [], 0)[0]:
            self.greeted()
            return True
        return False

    def cuts(self) -> None:
        """Ends the connection, and listens on."""
        assert self._end is not None
        self._end.close()

    def close(self) -> None:
        self._listening.close()
        if self._end is not None:
            self._end.close()


class Bench:
    def __init__(self, engines: int) -> None:
        self.engines = [Engine() for _ in range(engines)]
        self.slab = Slab(2**16)
        self.metrics = Metrics()
        self.now_s = 100.0
        self.client = RemoteEngine(
            FACTS, name="http-0", engines=[EngineStatus(engine.address) for engine in self.engines], secret=SECRET,
            slab=self.slab, metrics=self.metrics, max_abandoned_tokens=5, clock=lambda: self.now_s,
        )  # fmt: skip

    async def submitted(self, *jobs: ImageJob) -> list["asyncio.Task[JobResult]"]:
        tasks = [asyncio.create_task(self.client.submit(job)) for job in jobs]
        await asyncio.sleep(0)
        return tasks

    def down(self, number: int, *suspects: str, backing_off: bool = False, untrue: str | None = None) -> None:
        self.client.engine_down(number, set(suspects), backing_off=backing_off, untrue=untrue)

    def up(self, number: int) -> Engine:
        """Starts a new life of an engine, with a new address."""
        self.engines[number].close()
        engine = self.engines[number] = Engine()
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

    asyncio.run(bounded())


def job(tokens: int = 2, **changes: Any) -> ImageJob:
    return replace(ImageJob(np.ones((tokens, 3), np.uint8), ((tokens, 1),), tokens, None, False), **changes)


def test_each_image_gets_its_own_answer_in_whatever_order_they_come():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        tasks = await bench.submitted(job(), job(), job())
        await engine.hears(4)
        for number in (2, 0, 1):
            engine.answer(number)
        assert [(await task).pooled[0, 0] for task in tasks] == [0, 1, 2]

    run(1, main)


def test_an_error_of_the_engine_is_the_callers():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job())
        await engine.hears(2)
        engine.answer(0, EngineFault("broken"))
        with pytest.raises(EngineFault, match="broken"):
            await task

    run(1, main)


def test_an_answer_that_cannot_be_read_fails_its_image():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job(deadline_s=bench.now_s))
        await engine.hears(2)
        whole = np.zeros((1, 4), np.float32)
        head, _ = answer_frames(engine.state, [answer_of(0, JobResult(whole, None, 0.1, 0.2, 0.3))])
        engine.sends(head, whole[:, 1:].tobytes())
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
        second.answer(1)
        await bench.submitted(job(1))
        await first.hears(1)
        assert [made.tokens for made in first.jobs.values()] == [10, 1]

    run(2, main)


def test_an_interactive_image_goes_to_the_engine_with_the_fewest_that_go_ahead_of_it():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        answered, *_ = await bench.submitted(job(10, bulk=True), job(4), job(20, bulk=True))
        await asyncio.gather(first.hears(2), second.hears(3))
        assert [made.tokens for made in first.jobs.values()] == [10]
        # Of 10 tokens of bulk and 24 of both, and then of 3 and 4 that are interactive.
        await bench.submitted(job(3), job(2))
        await first.hears(2)
        assert [made.tokens for made in first.jobs.values()] == [10, 3, 2]
        # What the engine has for others counts by its class too.
        first.state = msgspec.structs.replace(first.state, others_tokens=50, others_bulk_tokens=50)
        first.answer(0)
        await answered
        await bench.submitted(job(2), job(1))
        await asyncio.gather(first.hears(1), second.hears(1))
        assert [made.tokens for made in first.jobs.values()] == [10, 3, 2, 1]

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
            engine.answer(number)
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
        engine.answer(1)
        assert (await innocent).pooled[0, 0] == 1

    run(1, main)


def test_while_the_only_engine_is_replaced_for_wrong_vectors_nothing_is_accepted_and_what_was_is_run_again():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job(1))
        await engine.hears(2)
        bench.down(0, untrue="icon has the vector of page")
        assert not bench.client.accepts_jobs
        assert not bench.client.any_device_ready
        assert bench.client.trust.untrue == "icon has the vector of page"
        assert bench.client.trust.doubts == 1
        engine = bench.up(0)
        assert bench.client.accepts_jobs
        assert bench.client.trust.untrue is None
        await engine.hears(2)
        assert [made.alone for made in engine.jobs.values()] == [False], "no image is suspected"
        engine.answer(0)
        assert (await task).pooled[0, 0] == 0

    run(1, main)


def test_one_engine_with_wrong_vectors_leaves_the_others_serving():
    async def main(bench: Bench) -> None:
        bench.down(0, untrue="icon has the vector of page")
        assert bench.client.accepts_jobs
        assert bench.client.any_device_ready
        assert not bench.client.all_devices_ready

    run(2, main)


def test_vectors_are_proven_once_every_engine_has_shown_that_it_is_right():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        (task, other) = await bench.submitted(job(1), job(1))
        await asyncio.gather(first.hears(2), second.hears(2))
        assert bench.client.trust.proven_s == -math.inf
        first.state = msgspec.structs.replace(first.state, proven_s=7.0)
        first.answer(0)
        await task
        assert bench.client.trust.proven_s == -math.inf
        second.state = msgspec.structs.replace(second.state, proven_s=5.0)
        second.answer(1)
        await other
        assert bench.client.trust.proven_s == 5.0

    run(2, main)


def test_when_one_engine_of_two_dies_its_images_go_to_the_other():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        task, _ = await bench.submitted(job(5), job(5))
        await asyncio.gather(first.hears(2), second.hears(2))
        bench.down(0, backing_off=True)
        await second.hears(1)
        second.answer(0)
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
            engine.sends(encode(Packs(engine.state, [pack(ended_s) for ended_s in told])))
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
        engine.answer(0)
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
        engine.answer(0)
        await task

    run(1, main)


def test_an_engine_that_was_busy_for_others_is_used_again_after_news_that_it_is_free():
    async def main(bench: Bench) -> None:
        first, second = bench.engines
        done, _ = await bench.submitted(job(3), job(3))
        await asyncio.gather(first.hears(2), second.hears(2))
        first.state = msgspec.structs.replace(first.state, others_tokens=500)
        first.answer(0)
        await done
        await bench.submitted(job(3))
        await second.hears(1)
        first.state = msgspec.structs.replace(first.state, others_tokens=0)
        first.sends_news()
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
        engine.answer(0)
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
        engine.answer(0)
        (task,) = await bench.submitted(job())
        await engine.hears(1)
        engine.answer(1)
        assert (await task).pooled[0, 0] == 1

    run(1, main)


def test_the_rate_is_the_part_of_the_engines_rate_that_this_process_has():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        assert bench.client.tokens_per_s is None
        engine.state = EngineState(ready=True, tokens_per_s=100.0, others_tokens=30, processes=5)
        done, rest = await bench.submitted(job(5), job(10))
        await engine.hears(3)
        engine.answer(0)
        await done
        assert bench.client.tokens_per_s == pytest.approx(100 * 10 / (10 + 30))
        engine.answer(1)
        await rest
        # With nothing queued it can count on an equal part.
        assert bench.client.tokens_per_s == pytest.approx(100 / 5)

    run(1, main)


def test_an_engine_that_only_fails_is_not_ready():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        engine.state = msgspec.structs.replace(engine.state, ready=False)
        (task,) = await bench.submitted(job())
        await engine.hears(2)
        engine.answer(0, EngineFault("broken"))
        with pytest.raises(EngineFault):
            await task
        assert not bench.client.any_device_ready
        assert bench.client.accepts_jobs
        assert bench.engine_up() == 0

    run(1, main)


def test_the_memory_of_rows_is_free_only_when_the_engine_has_let_go_of_them():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        rows = bench.slab.rows(2, 3)
        rows[...] = 7
        place = bench.slab.place_of(rows)
        (task,) = await bench.submitted(job(rows=rows))
        task.cancel()
        await engine.hears(3)
        # A cancelled task keeps its frames.
        del rows, task
        assert np.array_equal(engine.jobs[0].rows, np.full((2, 3), 7, np.uint8))  # type: ignore[union-attr]
        assert bench.slab.place_of(bench.slab.rows(2, 3)) != place
        engine.drops(0)
        while bench.slab.place_of(bench.slab.rows(2, 3)) != place:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    run(1, main)


def test_when_its_deadline_passes_an_item_that_is_still_queued_is_too_late_and_one_in_a_pack_is_answered():
    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        queued, running = await bench.submitted(job(deadline_s=bench.now_s), job(deadline_s=bench.now_s))
        await engine.hears(5)
        assert engine.cancelled == [0, 1]
        engine.drops(0)
        engine.answer(1)
        with pytest.raises(DeadlineExceeded):
            await queued
        assert (await running).pooled[0, 0] == 1
        assert bench.client._engines[0].outstanding_tokens == 0

    run(1, main)


def test_an_engine_that_has_died_before_it_was_reached_gets_its_images_when_it_is_back():
    async def main(bench: Bench) -> None:
        bench.down(0)
        bench.engines[0].close()
        bench.client.engine_up(0, bench.engines[0].address)
        (task,) = await bench.submitted(job())
        engine = bench.up(0)
        await engine.hears(2)
        engine.answer(0)
        await task

    run(1, main)


def test_an_engine_that_ends_the_connection_and_lives_gets_again_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.exchange.remote._CONNECT_AGAIN_S", 0.001)

    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        waiting, left, late = await bench.submitted(job(), job(), job(deadline_s=bench.now_s + 1000))
        await engine.hears(4)
        left.cancel()
        await asyncio.wait([left])
        bench.now_s += 1000
        engine.cuts()
        with pytest.raises(DeadlineExceeded):
            await late
        engine.jobs.clear()
        while not engine.is_greeted():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await engine.hears(1)
        assert engine.names == ["http-0:0"]
        # Of what was left nothing is counted any more.
        assert bench.client._engines[0].outstanding_tokens == 2
        engine.answer(0)
        assert (await waiting).pooled[0, 0] == 0

    run(1, main)


def test_a_connection_that_a_death_has_ended_does_not_hide_who_was_on_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.processes.exchange.remote._CONNECT_AGAIN_S", 0.001)

    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        (task,) = await bench.submitted(job())
        await engine.hears(2)
        engine.close()
        for _ in range(3):
            await asyncio.sleep(0.002)
        bench.down(0, "http-0:0")
        engine = bench.up(0)
        await engine.hears(2)
        assert engine.jobs[0].alone
        engine.answer(0)
        await task

    run(1, main)


def test_an_engine_that_does_not_answer_what_callers_left_gets_no_more() -> None:
    """It may read the rows of all that is not answered. Callers who give up and ask again would fill the memory."""

    async def main(bench: Bench) -> None:
        (engine,) = bench.engines
        for number in range(3):
            assert bench.client.accepts_jobs
            (task,) = await bench.submitted(job())
            task.cancel()
            await asyncio.wait([task])
            assert bench.client._engines[0].abandoned_tokens == 2 * number + 2
        assert not bench.client.accepts_jobs
        await engine.hears(1 + 2 * 3)
        engine.drops(1)
        while not bench.client.accepts_jobs:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        (task,) = await bench.submitted(job())
        await engine.hears(1)
        engine.answer(3)
        await task
        bench.down(0)
        bench.up(0)
        assert bench.client._engines[0].abandoned_tokens == 0

    run(1, main)
