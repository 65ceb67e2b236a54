"""The engine: whatever the device does, each image is answered exactly once."""

import asyncio
import math
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from model.errors import DeviceLost
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.running.runner import Runner
from model.sizing.geometry import Geometry
from service.engine.client import ImageJob, JobResult
from service.engine.cost.fit import CostModel
from service.engine.cost.samples import CostSamples
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.errors import DeadlineExceeded, EngineFault, Unavailable
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from tests import pictures
from tests.service.running import PATIENCE_S, NoTexts, Recorder, Running, error_of, serving, until

Loaded = tuple[Runner, ModelFacts]

PNG = pictures.save(pictures.picture(48, 64), "PNG")
FACTS = ModelFacts(
    name="m", dim=4, token_dim=4, geometry=Geometry.for_naflex(1, 16),
    default_max_tokens=16, parameters=1, fingerprint="f", fast_fingerprint="g", device="cpu",
    dtype="float32", attention="segmentwise",
)  # fmt: skip
LIMITS = Limits(default_max_tokens=16, max_image_tokens=32, max_batch_tokens=32, max_queue_tokens=1000)


class Counted(NoTexts):
    """A model of width 4: a segment's vector is the sum of its rows, so that a mix-up is seen."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        rows = np.repeat(batch.rows.sum(axis=1, dtype=np.float32)[:, None], 4, axis=1)
        pooled = np.add.reduceat(rows, batch.cu_seqlens[:-1])
        return RunnerOutput(pooled, rows if tokens else None, computed_tokens=len(rows))


def job(tokens: int, value: int = 1, *, deadline_s: float | None = None, want_tokens: bool = False) -> ImageJob:
    return ImageJob(np.full((tokens, 3), value, np.uint8), ((tokens, 1),), tokens, deadline_s, want_tokens)


class Bench:
    """An engine with a recorded runner, and a loop to submit from. held: packs wait until `runner.free` is set."""

    def __init__(self, limits: Limits = LIMITS, *, held: bool = False, **options: Any) -> None:
        self.runner, self.metrics = Recorder(Counted()), Metrics()
        if held:
            self.runner.hold()
        self.engine = Engine(HostDevice(self.runner), FACTS, limits, metrics=self.metrics, **options)

    def run(self, main: Callable[["Bench"], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await main(self)

        asyncio.run(bounded())

    async def held(self) -> "asyncio.Task[JobResult]":
        """An image on a device that then waits."""
        self.runner.hold()
        task = asyncio.create_task(self.engine.submit(job(1)))
        await asyncio.to_thread(self.runner.entered.wait, PATIENCE_S)
        return task

    async def queued(self, *jobs: ImageJob) -> list["asyncio.Task[JobResult]"]:
        tasks = [asyncio.create_task(self.engine.submit(given)) for given in jobs]
        await asyncio.sleep(0)
        return tasks

    def queue_images(self) -> float:
        return self.metrics.registry.get_sample_value("packlight_queue_images") or 0.0


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.runner.free.set()
    made.engine.close(timeout_s=10)


def test_each_image_gets_its_own_rows_of_a_shared_pack(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        jobs = [job(tokens, value, want_tokens=value == 3) for tokens, value in ((3, 1), (5, 2), (2, 3), (7, 4))]
        tasks = await bench.queued(*jobs)
        bench.runner.free.set()
        results = await asyncio.gather(first, *tasks)
        assert [result.pooled[0, 0] for result in results[1:]] == [9, 30, 18, 84]
        assert [None if result.tokens is None else result.tokens.shape for result in results[1:]] == [
            None, None, (2, 4), None,
        ]  # fmt: skip
        assert bench.runner.packs == [[1], [3, 5, 2, 7]]

    bench.run(main)


def test_a_pack_that_fails_fails_all_its_images_and_the_next_runs(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        tasks = await bench.queued(job(3), job(4))
        bench.runner.fault = RuntimeError("out of memory")
        bench.runner.free.set()
        for outcome in await asyncio.gather(first, *tasks, return_exceptions=True):
            assert isinstance(outcome, EngineFault)
            assert "memory" not in str(outcome)
        bench.runner.fault = None
        assert (await bench.engine.submit(job(2))).pooled[0, 0] == 6
        assert bench.engine.any_device_ready

    bench.run(main)


class NoVectors(Counted):
    """A model whose vectors of a white image hold one value. in_tokens: in the last token's vector alone."""

    def __init__(self, value: float, *, in_tokens: bool = False) -> None:
        super().__init__()
        self.value, self.in_tokens = value, in_tokens

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        output = super().run(batch, tokens=tokens)
        white = batch.rows[batch.cu_seqlens[:-1], 0] == 255
        if not self.in_tokens:
            output.pooled[white] = self.value
        elif output.tokens is not None:
            output.tokens[batch.cu_seqlens[1:][white] - 1] = self.value
        return output


@pytest.mark.parametrize("in_tokens", [False, True])
@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, "finite"), (math.inf, "finite"), (0.0, "zeros"), (1e-30, "zeros"), (1e30, "too large")],
)
def test_an_image_without_a_vector_fails_alone(value: float, message: str, in_tokens: bool) -> None:
    async def main() -> None:
        jobs = [job(2, shade, want_tokens=in_tokens) for shade in (1, 255, 3)]
        results = await asyncio.gather(*map(engine.submit, jobs), return_exceptions=True)
        assert isinstance(results[1], EngineFault)
        assert message in str(results[1])
        assert [result.pooled[0, 0] for result in results if isinstance(result, JobResult)] == [6, 18]

    engine = Engine(HostDevice(NoVectors(value, in_tokens=in_tokens)), FACTS, LIMITS, metrics=Metrics())
    asyncio.run(main())
    assert engine.close(timeout_s=PATIENCE_S)


def test_a_device_that_fails_again_and_again_is_not_ready_until_it_answers(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        bench.runner.fault = RuntimeError()
        for _ in range(8):
            assert bench.engine.any_device_ready
            with pytest.raises(EngineFault):
                await bench.engine.submit(job(1))
        assert not bench.engine.any_device_ready
        assert bench.engine.accepts_jobs
        bench.runner.fault = None
        await bench.engine.submit(job(1))
        assert bench.engine.any_device_ready

    bench.run(main)


def test_the_images_of_a_failed_pack_have_an_error_each(bench: Bench) -> None:
    """A shared error would carry the index of the image that set it last."""

    async def main(bench: Bench) -> None:
        first = await bench.held()
        tasks = await bench.queued(job(3), job(4))
        bench.runner.fault = RuntimeError()
        bench.runner.free.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)
        assert tasks[0].exception() is not tasks[1].exception()

    bench.run(main)


@pytest.mark.parametrize("death", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_when_the_thread_dies_everything_queued_is_answered(bench: Bench, death: BaseException) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        tasks = await bench.queued(job(30), job(30), job(30))
        bench.runner.fault = death
        bench.runner.free.set()
        outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert isinstance(outcomes[0], EngineFault)
        assert [type(outcome) for outcome in outcomes[1:]] == [Unavailable] * 3
        await asyncio.to_thread(until, lambda: not bench.engine.any_device_ready)
        with pytest.raises(Unavailable):
            await bench.engine.submit(job(1))
        assert bench.metrics.registry.get_sample_value("packlight_engine_up") == 0
        assert bench.queue_images() == 0

    bench.run(main)


def test_closing_answers_what_is_queued(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        tasks = await bench.queued(job(1), job(2))
        closing = asyncio.create_task(asyncio.to_thread(bench.engine.close, timeout_s=10))
        await asyncio.to_thread(until, lambda: bench.engine._closing)
        bench.runner.free.set()
        await closing
        assert isinstance(await first, JobResult)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]

    bench.run(main)


def test_a_cancelled_submit_takes_the_image_out_of_the_queue(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        leaving, staying = await bench.queued(job(3), job(4))
        leaving.cancel()
        await asyncio.wait([leaving])
        bench.runner.free.set()
        await asyncio.gather(first, staying)
        assert bench.runner.packs == [[1], [4]]

    bench.run(main)


def test_an_image_that_left_is_not_kept_while_the_device_works(bench: Bench) -> None:
    """Its tokens are free for others at once, so its rows must be freed as well."""

    async def main(bench: Bench) -> None:
        first = await bench.held()
        leaving, staying = await bench.queued(job(3), job(4))
        assert bench.queue_images() == 2
        leaving.cancel()
        await asyncio.wait([leaving])
        assert bench.queue_images() == 1
        bench.runner.free.set()
        await asyncio.gather(first, staying)

    bench.run(main)


def test_an_idle_engine_keeps_nothing_of_its_last_pack(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        given = job(3, want_tokens=True)
        result = await bench.engine.submit(given)
        assert result.tokens is not None
        kept = weakref.ref(given.rows), weakref.ref(result.tokens)
        del given, result
        await asyncio.to_thread(until, lambda: all(reference() is None for reference in kept))

    bench.run(main)


def test_an_image_whose_deadline_passes_in_the_queue_fails_at_once(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        now_s = bench.engine._clock()
        with pytest.raises(DeadlineExceeded):
            await bench.engine.submit(job(3, deadline_s=now_s + 0.02))
        assert not first.done()
        bench.runner.free.set()
        await first
        assert bench.runner.packs == [[1]]

    bench.run(main)


def test_a_deadline_that_has_passed_already_is_too_late(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        with pytest.raises(DeadlineExceeded):
            await bench.engine.submit(job(3, deadline_s=bench.engine._clock() - 1))
        bench.runner.free.set()
        await first

    bench.run(main)


def test_the_engine_is_not_ready_while_a_pack_takes_a_minute() -> None:
    now = [100.0]
    bench = Bench(clock=lambda: now[0])

    async def main(bench: Bench) -> None:
        first = await bench.held()
        assert bench.engine.any_device_ready
        now[0] += 61
        assert not bench.engine.any_device_ready
        bench.runner.free.set()
        await first
        assert bench.engine.any_device_ready

    bench.run(main)
    bench.engine.close(timeout_s=10)


def test_an_engine_whose_probe_takes_a_minute_accepts_no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.engine._PROBE_EVERY_S", 0.1)
    now = [100.0]
    bench = Bench(clock=lambda: now[0])

    async def main(bench: Bench) -> None:
        bench.runner.fault = RuntimeError()
        for _ in range(8):
            with pytest.raises(EngineFault):
                await bench.engine.submit(job(1))
        bench.runner.hold()
        await asyncio.to_thread(bench.runner.entered.wait, PATIENCE_S)
        assert bench.engine.accepts_jobs
        now[0] += 61
        assert not bench.engine.accepts_jobs
        bench.runner.free.set()

    bench.run(main)
    bench.engine.close(timeout_s=10)


@pytest.fixture
def sampling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Its engine runs samples whenever it is idle, and the first one waits."""
    monkeypatch.setattr("service.engine.engine._SAMPLE_AFTER_S", 0.001)
    limits, cost = replace(LIMITS, max_batch_tokens=64), CostModel()
    cost.know_rate(10**6, 1)
    made = Bench(limits, held=True, cost=cost, samples=CostSamples(FACTS.geometry, limits))
    yield made
    made.runner.free.set()
    made.engine.close(timeout_s=10)


def test_an_idle_engine_learns_what_packs_cost_and_counts_none_of_it(sampling: Bench) -> None:
    sampling.runner.free.set()
    until(lambda: sampling.engine.cost is not None)
    assert sorted(map(sum, sampling.runner.packs)) == [1, 16, 16, 16, 32, 32, 64, 64]
    assert sampling.metrics.registry.get_sample_value("packlight_pack_tokens_count") == 0
    assert not sampling.engine.packs[0]


def test_what_arrives_during_a_sample_runs_next(sampling: Bench) -> None:
    async def main(bench: Bench) -> None:
        await asyncio.to_thread(bench.runner.entered.wait, PATIENCE_S)
        (task,) = await bench.queued(job(5, value=7))
        bench.runner.free.set()
        assert (await task).pooled[0, 0] == 5 * 3 * 7
        assert bench.runner.packs[:2] == [[1], [5]]

    sampling.run(main)


def test_an_engine_whose_sample_fails_serves_all_the_same(sampling: Bench, caplog: pytest.LogCaptureFixture) -> None:
    sampling.runner.fault = RuntimeError("of a sample")
    sampling.runner.free.set()
    until(lambda: caplog.text.count("of a sample") == 8)
    sampling.runner.fault = None

    async def main(bench: Bench) -> None:
        assert bench.engine.any_device_ready
        assert (await bench.engine.submit(job(5))).pooled[0, 0] == 15
        assert bench.engine.cost is None

    sampling.run(main)


def test_an_engine_whose_device_is_lost_in_a_sample_is_dead(sampling: Bench) -> None:
    sampling.runner.fault = DeviceLost("gone")
    sampling.runner.free.set()
    until(lambda: not sampling.engine.accepts_jobs)


def test_a_sample_that_takes_a_minute_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.engine._SAMPLE_AFTER_S", 0.001)
    now, cost = [100.0], CostModel()
    cost.know_rate(10**6, 1)
    bench = Bench(held=True, clock=lambda: now[0], cost=cost, samples=CostSamples(FACTS.geometry, LIMITS))
    try:
        assert bench.runner.entered.wait(PATIENCE_S)
        assert bench.engine.fault is None
        now[0] += 61
        assert bench.engine.fault == "the device has been at one pack for 61 s"
    finally:
        bench.runner.free.set()
        bench.engine.close(timeout_s=10)


def test_the_rate_is_measured(bench: Bench) -> None:
    async def main(bench: Bench) -> None:
        assert bench.engine.tokens_per_s is None
        await bench.engine.submit(job(5))
        assert (bench.engine.tokens_per_s or 0) > 0

    bench.run(main)


def test_images_wait_for_others_if_there_is_a_wait() -> None:
    bench = Bench(replace(LIMITS, max_wait_s=0.05))

    async def main(bench: Bench) -> None:
        await asyncio.gather(*(bench.engine.submit(job(2)) for _ in range(3)))
        assert bench.runner.packs == [[2, 2, 2]]

    bench.run(main)
    bench.engine.close(timeout_s=10)


def test_a_failing_device_holds_an_image_back_for_no_longer_than_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(replace(LIMITS, max_wait_s=0.01))

    async def main(bench: Bench) -> None:
        bench.runner.fault = RuntimeError()
        for _ in range(8):
            with pytest.raises(EngineFault):
                await bench.engine.submit(job(1))
        assert not bench.engine.any_device_ready
        bench.runner.fault = None
        # Longer than this test may take.
        monkeypatch.setattr("service.engine.engine._PROBE_EVERY_S", 10 * PATIENCE_S)
        await bench.engine.submit(job(1))

    bench.run(main)
    bench.engine.close(timeout_s=10)


def test_each_image_has_its_own_pack_if_the_limits_say_so() -> None:
    bench = Bench(replace(LIMITS, max_batch_items=1))

    async def main(bench: Bench) -> None:
        first = await bench.held()
        tasks = await bench.queued(*map(job, (3, 5, 2)))
        bench.runner.free.set()
        await asyncio.gather(first, *tasks)
        assert bench.runner.packs == [[1], [3], [5], [2]]

    bench.run(main)
    bench.engine.close(timeout_s=10)


def test_two_loops_share_one_engine(bench: Bench) -> None:
    def from_a_loop_of_its_own(value: int) -> float:
        results: list[float] = []

        async def main(bench: Bench) -> None:
            for _ in range(20):
                results.append(float((await bench.engine.submit(job(2, value))).pooled[0, 0]))

        bench.run(main)
        assert len(set(results)) == 1
        return results[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(from_a_loop_of_its_own, range(1, 5))) == [6, 12, 18, 24]


def test_a_loop_that_closes_with_images_queued_harms_nobody(bench: Bench) -> None:
    async def leave(bench: Bench) -> None:
        bench.runner.hold()
        await bench.queued(job(1), job(2))
        await asyncio.to_thread(bench.runner.entered.wait, PATIENCE_S)

    async def main(bench: Bench) -> None:
        assert (await bench.engine.submit(job(3))).pooled[0, 0] == 9

    bench.run(leave)
    bench.runner.free.set()
    bench.run(main)


# Behind a server


@pytest.fixture
def server(loaded: Loaded) -> Iterator[Running]:
    with serving(loaded) as running:
        yield running


def test_a_pack_that_fails_is_500_engine_fault_for_all_of_it_and_the_server_goes_on(server: Running) -> None:
    server.runner.hold()
    server.runner.fault = RuntimeError("CUDA error: secret")
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(server.embed, PNG)]
        assert server.runner.entered.wait(PATIENCE_S)
        futures += [pool.submit(server.embed, PNG) for _ in range(3)]
        until(lambda: server.metric("queue_images") == 3)
        server.runner.free.set()
        answers = [future.result() for future in futures]
    assert {error_of(answer) for answer in answers} == {(500, "engine_fault", None, 0)}
    assert not any("secret" in answer.text for answer in answers)
    server.runner.fault = None
    assert server.http.get("/readyz").status_code == 200
    assert server.embed(PNG).status_code == 200
    until(server.is_empty)
    assert server.metric("images_total", outcome="engine_fault") == 4


def test_a_fault_gives_each_image_of_a_partial_request_its_own_index(server: Running) -> None:
    server.runner.hold()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.embed, PNG)
        assert server.runner.entered.wait(PATIENCE_S)
        both = pool.submit(server.embed_form, [PNG, PNG], partial=True)
        until(lambda: server.metric("queue_images") == 2)
        server.runner.fault = RuntimeError()
        server.runner.free.set()
        first.result()
        data = both.result().json()["data"]
    assert [(item["index"], item["error"]["index"]) for item in data] == [(0, 0), (1, 1)]


def test_a_fault_charges_nothing_and_computes_nothing(server: Running) -> None:
    server.runner.fault = RuntimeError()
    server.embed(PNG)
    until(server.is_empty)
    assert server.metric("charged_tokens_total") == 0
    assert server.metric("tokens_total", kind="image") == 0


def test_when_the_engine_has_died_nobody_hangs_and_the_server_is_not_ready(server: Running) -> None:
    assert server.http.get("/readyz").status_code == 200
    server.runner.hold()
    server.runner.fault = SystemExit(3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.embed, PNG)
        assert server.runner.entered.wait(PATIENCE_S)
        queued = [pool.submit(server.embed, PNG, max_tokens=1000) for _ in range(6)]
        until(lambda: server.metric("queue_images") == 6)
        server.runner.free.set()
        assert error_of(first.result())[:2] == (500, "engine_fault")
        assert {error_of(future.result())[:2] for future in queued} == {(503, "unavailable")}
    until(lambda: server.http.get("/readyz").status_code == 503)
    assert error_of(server.embed(PNG)) == (503, "unavailable", None, None)
    assert server.http.get("/livez").status_code == 200
    assert "packlight_engine_up 0.0" in server.http.get("/metrics").text
    until(server.is_empty)


def test_an_output_of_the_wrong_shape_is_a_fault_and_not_a_hang(loaded: Loaded, server: Running) -> None:
    class Short(NoTexts):
        def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
            return RunnerOutput(np.zeros((0, 256), np.float32), None, computed_tokens=batch.tokens)

    server.runner.runner = Short()
    answer: httpx.Response = server.embed(PNG)
    assert answer.status_code == 500


def test_the_callers_of_a_large_pack_go_on_over_several_turns_of_the_loop() -> None:
    async def main(bench: Bench) -> None:
        first = await bench.held()
        tasks = await bench.queued(*[job(1)] * 1000)
        resumed: Counter[int] = Counter()
        turn, over = 0, False

        def next_turn() -> None:
            nonlocal turn
            turn += 1
            if not over:
                asyncio.get_running_loop().call_soon(next_turn)

        for task in tasks:
            task.add_done_callback(lambda _: resumed.update([turn]))
        next_turn()
        bench.runner.free.set()
        await asyncio.gather(first, *tasks)
        over = True
        assert max(map(len, bench.runner.packs)) > 128
        assert max(resumed.values()) <= 128

    bench = Bench(replace(LIMITS, max_batch_tokens=2000))
    try:
        bench.run(main)
    finally:
        bench.engine.close(timeout_s=10)
