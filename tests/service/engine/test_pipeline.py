"""Two packs under way: whatever the device does, and whenever, each item is answered exactly once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint.load import load_checkpoint
from model.errors import DeviceLost, DeviceOutOfMemory
from model.pack import PackedBatch, pack
from model.running.output import RunnerOutput
from model.running.runner import Runner
from model.running.streams import Streams
from service.engine.client import ImageJob, Job, JobResult
from service.engine.cost.fit import CostModel
from service.engine.delivery import LoopReceiver, Pending
from service.engine.device import PackUnderWay, StreamDevice
from service.engine.engine import _PROBE_EVERY_S, Engine
from service.engine.outcomes import Outcome
from service.engine.pipeline import Heeds
from service.engine.under_way import EngineWatch
from service.errors import DeadlineExceeded, EngineFault, Unavailable
from service.limits import Limits
from service.metrics import Metrics
from tests.model.running.cuda import RecordedCuda
from tests.service.engine.test_engine import FACTS, LIMITS, Counted
from tests.service.running import PATIENCE_S, until
from tests.service.threaded_device import ThreadedDevice

FULL = LIMITS.max_batch_tokens
POISON = 255


class Gated(Counted):
    """Runs a pack once it is let. began: the tokens of each segment of the packs that have begun. fault: raised for
    packs with a poisoned image. most_tokens: of a pack that it has memory for."""

    def __init__(self) -> None:
        self.began: list[list[int]] = []
        self.fault: BaseException = RuntimeError()
        self.most_tokens = FULL
        self._free = threading.Semaphore(0)

    def let(self, packs: int = 1000) -> None:
        """So many more packs may run to their ends."""
        self._free.release(packs)

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        self.began.append(np.diff(batch.cu_seqlens).tolist())
        assert self._free.acquire(timeout=PATIENCE_S), "a test forgot to let a pack run"
        if batch.tokens > self.most_tokens:
            raise DeviceOutOfMemory("full")
        if (batch.rows == POISON).any():
            raise self.fault
        return super().run(batch, tokens=tokens)


class Full(ThreadedDevice):
    """Has no memory for a second pack."""

    def __init__(self, runner: Gated) -> None:
        super().__init__(runner)
        self.refused = 0
        self._under_way: list[Any] = []

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        if any(not pack.output.done() for pack in self._under_way):
            self.refused += 1
            raise DeviceOutOfMemory("full")
        self._under_way.append(super().submit(jobs))
        return self._under_way[-1]  # type: ignore[no-any-return]


class Watch(EngineWatch):
    def __init__(self) -> None:
        self.events: list[tuple[int, object]] = []
        self.is_lost = False

    def begins(self, number: int, names: Sequence[str], predicted_s: float | None) -> None:
        self.events.append((number, list(names)))

    def ends(self, number: int, *, succeeded: bool) -> None:
        self.events.append((number, succeeded))

    def lost(self) -> None:
        self.is_lost = True


def image(tokens: int, value: int = 1, **options: Any) -> ImageJob:
    """Its vector is 3 times `tokens` times `value`."""
    rows = np.full((tokens, 3), value, np.uint8)
    return ImageJob(rows, ((tokens, 1),), tokens, options.pop("deadline_s", None), False, **options)


class Bench:
    """An engine over a device that works by itself, and a loop to submit from.

    tokens_per_s: what the engine takes for the device's rate. A high one has the second pack chosen at once, a low one
    only when it is full.
    """

    def __init__(self, *, tokens_per_s: float = 1e9, device: type[ThreadedDevice] = ThreadedDevice) -> None:
        self.runner, self.metrics, self.watch = Gated(), Metrics(), Watch()
        self.device = device(self.runner)
        cost = CostModel()
        cost.know_rate(10**12, 10**12 / tokens_per_s)
        self.engine = Engine(self.device, FACTS, LIMITS, metrics=self.metrics, cost=cost, watch=self.watch)
        self.tasks: list[asyncio.Future[JobResult]] = []

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await main()

        try:
            asyncio.run(bounded())
        finally:
            self.runner.let()
            self.engine.close(timeout_s=10)

    async def add(self, *jobs: ImageJob) -> list["asyncio.Task[JobResult]"]:
        """Queues them, one after another."""
        made = [asyncio.create_task(self.engine.submit(job)) for job in jobs]
        await asyncio.sleep(0)
        self.tasks += made
        return made

    async def add_pack(self, *jobs: ImageJob) -> list["asyncio.Future[JobResult]"]:
        """Queues them before any is chosen, and waits until the device has one pack more."""
        wanted = self.device.submitted + 1
        made = await self.add_at_once(*jobs)
        await self.submitted(wanted)
        return made

    async def add_at_once(self, *jobs: ImageJob) -> list["asyncio.Future[JobResult]"]:
        """Queues them before any is chosen."""
        made: list[asyncio.Future[JobResult]] = [asyncio.get_running_loop().create_future() for _ in jobs]
        self.engine.enqueue(jobs, LoopReceiver(asyncio.get_running_loop()), made)
        self.tasks += made
        return made

    async def submitted(self, packs: int) -> None:
        await asyncio.to_thread(until, lambda: self.device.submitted == packs)

    @property
    def queued(self) -> float:
        return self.metrics.registry.get_sample_value("packlight_queue_images") or 0.0

    def faults(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("packlight_forward_faults_total", {"kind": kind})


def values(outcomes: Sequence[object]) -> list[object]:
    """The first number of each vector, or the class of an error."""
    return [outcome.pooled[0, 0] if isinstance(outcome, JobResult) else type(outcome) for outcome in outcomes]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_second_pack_is_submitted_while_one_runs_and_a_third_is_not(bench: Bench) -> None:
    async def main() -> None:
        (first,) = await bench.add_pack(image(1))
        (second,) = await bench.add_pack(image(2))
        (third,) = await bench.add(image(3))
        assert (bench.device.submitted, bench.queued) == (2, 1)
        assert bench.runner.began == [[1]]
        bench.runner.let(1)
        assert values([await first]) == [3]
        await bench.submitted(3)
        assert not second.done()
        bench.runner.let()
        assert values(await asyncio.gather(second, third)) == [6, 9]
        assert bench.runner.began == [[1], [2], [3]]

    bench.run(main)


def test_two_packs_that_arrive_at_once_are_both_submitted(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_at_once(image(FULL), image(FULL, 2))
        await bench.submitted(2)
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [3 * FULL, 6 * FULL]

    bench.run(main)


def test_what_arrives_while_a_pack_runs_enters_the_next_until_it_is_full() -> None:
    bench = Bench(tokens_per_s=1e-3)

    async def main() -> None:
        await bench.add_pack(image(1))
        await bench.add(image(10), image(11))
        await bench.add(image(3, deadline_s=None))
        assert bench.device.submitted == 1
        await bench.add_pack(image(8))
        assert bench.queued == 0
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [3, 30, 33, 9, 24]
        assert bench.runner.began == [[1], [10, 11, 3, 8]]

    bench.run(main)


def test_a_pack_that_ends_sooner_than_predicted_lets_the_next_be_chosen_at_once() -> None:
    bench = Bench(tokens_per_s=1e-3)

    async def main() -> None:
        (first,) = await bench.add_pack(image(1))
        (second,) = await bench.add(image(2))
        assert bench.device.submitted == 1
        bench.runner.let()
        assert values(await asyncio.gather(first, second)) == [3, 6]

    bench.run(main)


def test_the_next_pack_is_chosen_before_the_predicted_end_of_the_one_that_runs() -> None:
    bench = Bench(tokens_per_s=20)

    async def main() -> None:
        await bench.add_pack(image(1))
        await bench.add_pack(image(2))
        assert bench.runner.began == [[1]]
        bench.runner.let()
        await asyncio.gather(*bench.tasks)

    bench.run(main)


class Asked:
    """Receives outcomes, and notes what `question` says by then."""

    def __init__(self, question: Callable[[], object]) -> None:
        self._question = question
        self.answers: list[object] = []

    def receive(self, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
        self.answers.append(self._question())


def test_the_device_has_the_next_full_pack_before_those_of_the_last_are_answered(bench: Bench) -> None:
    async def main() -> None:
        receiver = Asked(lambda: bench.device.submitted)
        bench.engine.enqueue([image(FULL)], receiver)
        await bench.add_at_once(image(FULL, 2), image(FULL, 3))
        await bench.submitted(2)
        bench.runner.let(1)
        await asyncio.to_thread(until, lambda: receiver.answers == [3])
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [6 * FULL, 9 * FULL]

    bench.run(main)


def test_a_suspect_is_not_chosen_before_those_of_the_last_pack_are_answered(bench: Bench) -> None:
    async def main() -> None:
        first, second, alone = await bench.add_at_once(image(FULL), image(FULL, 2), image(FULL, 3, alone=True))
        await bench.submitted(2)
        bench.runner.let(1)
        # It waits for the second, and the first does not.
        assert values([await first]) == [3 * FULL]
        assert not second.done()
        bench.runner.let()
        assert values(await asyncio.gather(second, alone)) == [6 * FULL, 9 * FULL]

    bench.run(main)


def test_parts_of_a_pack_without_outcomes_run_after_the_pack_that_has_its_place(bench: Bench) -> None:
    outcomes = bench.engine._executor.outcomes
    refused: list[int] = []

    def refuses_one(pack: Any, forward: Any) -> list[Outcome]:
        if pack.number == 1:
            refused.append(pack.number)
            raise ValueError("too few vectors")
        return outcomes(pack, forward)

    bench.engine._executor.outcomes = refuses_one  # type: ignore[method-assign]

    async def main() -> None:
        await bench.add_at_once(image(FULL), image(FULL, 2), image(FULL, 3), image(FULL, 4))
        await bench.submitted(2)
        bench.runner.let()
        found = values(await asyncio.gather(*bench.tasks, return_exceptions=True))
        assert found == [EngineFault, 6 * FULL, 9 * FULL, 12 * FULL]
        assert refused == [1]
        assert bench.faults("exception") == 1

    bench.run(main)


def test_a_pack_of_bulk_is_chosen_late_and_an_interactive_image_that_comes_meanwhile_is_in_it() -> None:
    bench = Bench(tokens_per_s=1e-3)

    async def main() -> None:
        bulk = image(8, bulk=True)
        await bench.add_pack(bulk)
        # Many packs of bulk would fill the next one, and it waits for the end of the first all the same.
        await bench.add(*[bulk] * 20)
        await bench.add(image(3))
        assert bench.device.submitted == 1
        bench.runner.let()
        await asyncio.gather(*bench.tasks)
        assert bench.runner.began[1] == [3, 8]

    bench.run(main)


def test_an_image_at_fault_fails_alone_though_another_pack_is_under_way(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(30))
        await bench.add_pack(image(2), image(3, POISON), image(4))
        await bench.add(image(5))
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks, return_exceptions=True)) == [90, 6, EngineFault, 12, 15]
        assert bench.faults("exception") == 3

    bench.run(main)


def test_a_pack_behind_one_that_fails_runs_once_and_before_its_parts(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(2, POISON))
        await bench.add_pack(image(3), image(4))
        await bench.add(image(5))
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks, return_exceptions=True)) == [EngineFault, 9, 12, 15]
        assert bench.runner.began == [[2], [3, 4], [5]]

    bench.run(main)


def test_parts_of_a_pack_run_with_nothing_beside_them(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(31))
        await bench.add_pack(image(2, name="a"), image(3, POISON, name="b"))
        await bench.add(image(5))
        bench.runner.let()
        await asyncio.gather(*bench.tasks, return_exceptions=True)
        begins = {number: place for place, (number, what) in enumerate(bench.watch.events) if isinstance(what, list)}
        ends = {number: place for place, (number, what) in enumerate(bench.watch.events) if isinstance(what, bool)}
        # The second pack fails, and one of its parts; all others succeed.
        assert [bench.watch.events[place][1] for place in ends.values()].count(False) == 2
        parts = [number for number, what in bench.watch.events if what in (["a"], ["b"])]
        assert len(parts) == 2
        for part in parts:
            assert not [other for other in begins if other != part and begins[other] < ends[part] < ends[other]]

    bench.run(main)


def test_a_pack_without_memory_beside_another_runs_again_whole_and_is_no_fault() -> None:
    bench = Bench(device=Full)
    assert isinstance(device := bench.device, Full)

    async def main() -> None:
        await bench.add_pack(image(1))
        await bench.add(image(10), image(11))
        await asyncio.to_thread(until, lambda: device.refused)
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [3, 30, 33]
        assert bench.runner.began == [[1], [10, 11]]
        assert bench.faults("out_of_memory") == 0
        assert bench.engine._executor.max_batch_tokens == FULL

    bench.run(main)


def test_packs_too_large_for_the_memory_by_themselves_run_in_parts(bench: Bench) -> None:
    bench.runner.most_tokens = 16

    async def main() -> None:
        await bench.add_pack(image(12), image(12))
        await bench.add_pack(image(12), image(12), image(8))
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [36, 36, 36, 36, 24]
        # Two packs and a half of the second one, none of them for what they ran beside.
        assert bench.faults("out_of_memory") == 3

    bench.run(main)


@pytest.mark.parametrize("death", [DeviceLost("gone"), SystemExit(1)])
def test_a_device_that_dies_fails_both_packs_and_the_queue(bench: Bench, death: BaseException) -> None:
    bench.runner.fault = death

    async def main() -> None:
        await bench.add_pack(image(30, POISON))
        await bench.add_pack(image(31))
        await bench.add(image(29))
        bench.runner.let(1)
        outcomes = await asyncio.gather(*bench.tasks, return_exceptions=True)
        assert values(outcomes) == [EngineFault, EngineFault, Unavailable]
        assert bench.watch.is_lost
        assert not bench.engine.accepts_jobs
        assert bench.queued == 0
        with pytest.raises(Unavailable):
            await bench.engine.submit(image(1))

    bench.run(main)


def test_a_thread_that_dies_while_it_submits_fails_both_packs(bench: Bench) -> None:
    submit = bench.device.submit

    def dies(jobs: Sequence[Job]) -> PackUnderWay:
        if bench.device.submitted:
            raise SystemExit(1)
        return submit(jobs)

    bench.device.submit = dies  # type: ignore[method-assign]

    async def main() -> None:
        await bench.add_pack(image(30))
        await bench.add(image(31))
        assert values(await asyncio.gather(*bench.tasks, return_exceptions=True)) == [EngineFault, EngineFault]

    bench.run(main)


class Checked:
    """Receives outcomes, and then waits for what a test wants to see."""

    def __init__(self, condition: Callable[[], object]) -> None:
        self._condition = condition
        self.outcomes: list[Outcome] = []

    def receive(self, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
        self.outcomes += [outcome for _, outcome in outcomes]
        until(self._condition)


def test_a_device_that_dies_while_a_pack_is_taken_apart_is_given_nothing_more(bench: Bench) -> None:
    async def main() -> None:
        # The other thread has either ended or done wrong before this one goes on.
        receiver = Checked(lambda: bench.device.submitted > 2 or not all(t.is_alive() for t in bench.engine._threads))
        bench.engine.enqueue([image(2, POISON), image(3)], receiver)
        bench.runner.let(1)
        await bench.submitted(2)
        await bench.add(image(5))
        bench.runner.fault = DeviceLost("gone")
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks, return_exceptions=True)) == [Unavailable]
        await asyncio.to_thread(until, lambda: values(receiver.outcomes) == [EngineFault, EngineFault])
        assert bench.device.submitted == 2

    bench.run(main)


def test_who_waits_to_take_a_pack_apart_does_not_wait_for_a_thread_that_has_died(bench: Bench) -> None:
    async def main() -> None:
        for packs in (1, 2):
            await bench.add_at_once(image(2, POISON), image(3))
            await bench.submitted(packs)
        bench.runner.let(2)
        await bench.submitted(3)
        bench.runner.fault = DeviceLost("gone")
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks, return_exceptions=True)) == [EngineFault] * 4
        assert await asyncio.to_thread(bench.engine.close, timeout_s=PATIENCE_S)

    bench.run(main)


def test_a_suspect_has_the_device_to_itself(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(1, name="a"))
        await bench.add(image(2, name="b", alone=True), image(3, name="c"))
        await asyncio.to_thread(until, lambda: bench.queued == 1)
        assert bench.device.submitted == 1
        bench.runner.let(1)
        await bench.submitted(2)
        assert bench.queued == 1
        bench.runner.let()
        await asyncio.gather(*bench.tasks)
        names = {"a": 1, "b": 2, "c": 3}
        assert bench.watch.events == [
            event for name, number in names.items() for event in ((number, [name]), (number, True))
        ]

    bench.run(main)


def test_the_watch_knows_both_packs_in_order(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(1, name="a"), image(2, name="b"))
        await bench.add_pack(image(3, name="c"))
        assert bench.watch.events == [(1, ["a", "b"]), (2, ["c"])]
        bench.runner.let()
        await asyncio.gather(*bench.tasks)
        # Each thread tells the end of its own pack, so either may come first.
        assert sorted(bench.watch.events[2:]) == [(1, True), (2, True)]

    bench.run(main)


def test_who_leaves_the_queue_is_not_in_the_next_pack_and_who_is_under_way_harms_nobody(bench: Bench) -> None:
    async def main() -> None:
        first, *_ = await bench.add_pack(image(1), image(2))
        (second,) = await bench.add_pack(image(3))
        leaving, staying = await bench.add(image(4), image(5))
        for task in (first, second, leaving):
            task.cancel()
        await asyncio.wait([first, second, leaving])
        assert bench.queued == 1
        bench.runner.let()
        assert values([await staying]) == [15]
        assert bench.runner.began == [[1, 2], [3], [5]]

    bench.run(main)


def test_a_deadline_that_passes_in_the_queue_is_told_while_both_packs_run(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(1))
        await bench.add_pack(image(2))
        with pytest.raises(DeadlineExceeded):
            await bench.engine.submit(image(3, deadline_s=bench.engine._clock() + 0.02))
        bench.runner.let()
        await asyncio.gather(*bench.tasks)
        assert bench.runner.began == [[1], [2]]

    bench.run(main)


def test_what_is_under_way_is_answered_after_its_deadline(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(1))
        late = bench.engine._clock() + 0.05
        (second,) = await bench.add_pack(image(2, deadline_s=late))
        await asyncio.to_thread(until, lambda: bench.engine._clock() > late)
        bench.runner.let()
        assert values([await second]) == [6]

    bench.run(main)


def test_closing_answers_both_packs_and_refuses_the_queue(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(1))
        await bench.add_pack(image(2))
        await bench.add(image(3))
        closing = asyncio.create_task(asyncio.to_thread(bench.engine.close, timeout_s=PATIENCE_S))
        assert values(await asyncio.gather(bench.tasks[2], return_exceptions=True)) == [Unavailable]
        bench.runner.let()
        assert await closing
        assert values(await asyncio.gather(*bench.tasks[:2])) == [3, 6]

    bench.run(main)


def test_closing_does_not_wait_for_a_device_that_is_stuck(bench: Bench) -> None:
    async def main() -> None:
        await bench.add_pack(image(1))
        await bench.add_pack(image(2))
        assert not await asyncio.to_thread(bench.engine.close, timeout_s=0.01)
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [3, 6]

    bench.run(main)


def test_a_failing_device_is_probed_with_nothing_else_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.engine._PROBE_EVERY_S", 0.01)
    bench.runner.let()

    async def main() -> None:
        for _ in range(8):
            with pytest.raises(EngineFault):
                await bench.engine.submit(image(1, POISON))
        await asyncio.to_thread(until, lambda: bench.engine.any_device_ready)
        assert values([await bench.engine.submit(image(2))]) == [6]

    bench.run(main)


def test_what_arrives_during_a_probe_waits_for_its_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.engine._PROBE_EVERY_S", 0.01)

    async def main() -> None:
        bench.runner.let(8)
        for _ in range(8):
            with pytest.raises(EngineFault):
                await bench.engine.submit(image(1, POISON))
        await bench.submitted(9)
        await bench.add(image(2))
        await asyncio.to_thread(until, lambda: len(bench.runner.began) == 9)
        assert (bench.device.submitted, bench.queued) == (9, 1)
        bench.runner.let()
        assert values(await asyncio.gather(*bench.tasks)) == [6]

    bench.run(main)


def test_a_thread_that_has_waited_to_probe_does_not_if_the_other_has_begun_to(bench: Bench) -> None:
    pipeline = bench.engine._pipeline
    wait = pipeline.wait
    # The thread, and what it heeds next.
    waited: list[threading.Thread] = []
    heeded: list[Heeds] = []

    def waits(seconds: float | None, *, heeds: Heeds) -> bool:
        if seconds == _PROBE_EVERY_S and not pipeline._exclusive:
            # As the other thread does when both have waited for the same time.
            pipeline.reserve()
            waited.append(threading.current_thread())
            return False
        if threading.current_thread() in waited:
            heeded.append(heeds)
        return wait(seconds, heeds=heeds)

    pipeline.wait = waits  # type: ignore[method-assign]

    async def main() -> None:
        bench.runner.let(8)
        for _ in range(8):
            with pytest.raises(EngineFault):
                await bench.engine.submit(image(1, POISON))
        await asyncio.to_thread(until, lambda: heeded == ["device"])
        assert bench.device.submitted == 8

    bench.run(main)


def test_the_metrics_tell_how_long_devices_worked(bench: Bench) -> None:
    bench.runner.let()

    async def main() -> None:
        await bench.engine.submit(image(1))
        for name in ("device_busy_seconds_total", "devices"):
            assert (bench.metrics.registry.get_sample_value(f"packlight_{name}") or 0) > 0

    bench.run(main)


def test_a_runner_on_streams_gives_each_image_its_own_vector() -> None:
    runner = Runner(load_checkpoint("packlight-tiny"), dtype="float32")
    rows = [np.random.default_rng(seed).integers(0, 256, (16, 768), np.uint8) for seed in range(12)]
    jobs = [ImageJob(each, ((4, 4),), 16, None, want_tokens=seed % 2 == 0) for seed, each in enumerate(rows)]
    alone = [runner.run(pack([each], [(4, 4)]), tokens=True) for each in rows]
    runner._streams = Streams(runner.device, RecordedCuda())
    limits = Limits(default_max_tokens=16, max_image_tokens=16, max_batch_tokens=48, max_queue_tokens=1000)
    engine = Engine(StreamDevice(runner), FACTS, limits, metrics=Metrics())

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            results = await asyncio.gather(*map(engine.submit, jobs))
        for job, result, expected in zip(jobs, results, alone, strict=True):
            np.testing.assert_allclose(result.pooled, expected.pooled, atol=1e-5)
            assert (result.tokens is None) == (not job.want_tokens)
            if result.tokens is not None:
                assert expected.tokens is not None
                np.testing.assert_allclose(result.tokens, expected.tokens, atol=1e-4)

    asyncio.run(main())
    assert engine.close(timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """With a second pack chosen at once, and never held."""
    bench = Bench()
    bench.runner.let(10**6)
    yield bench
    bench.engine.close(timeout_s=10)


@settings(max_examples=20)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, FULL), st.sampled_from([1, 2, 3, POISON]), st.booleans()), max_size=6),
        min_size=1,
        max_size=3,
    )
)
def test_every_image_of_many_callers_is_answered_with_its_own_vector(
    shared: Bench, drawn: list[list[tuple[int, int, bool]]]
) -> None:
    """The third of each tells whether the caller leaves before the answer."""

    async def caller(jobs: list[tuple[int, int, bool]]) -> None:
        tasks = [asyncio.create_task(shared.engine.submit(image(tokens, value))) for tokens, value, _ in jobs]
        await asyncio.sleep(0)
        for task, (_, _, leaves) in zip(tasks, jobs, strict=True):
            if leaves:
                task.cancel()
        found = values(await asyncio.gather(*tasks, return_exceptions=True))
        for (tokens, value, leaves), outcome in zip(jobs, found, strict=True):
            expected = EngineFault if value == POISON else 3 * tokens * value
            assert outcome == (asyncio.CancelledError if leaves else expected)

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*map(caller, drawn))

    asyncio.run(main())
    until(lambda: shared.queued == 0)
