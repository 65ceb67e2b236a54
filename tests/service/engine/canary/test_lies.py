"""An engine that begins to lie stops: nothing is answered wrongly once its canary has seen it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from model import threads
from service.engine.canary.rule import Recorded
from service.engine.client import ImageJob, JobResult
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.engine.under_way import EngineWatch
from service.errors import Unavailable
from service.metrics import Metrics
from tests.service.engine.canary.liars import LIES, Liar, Lie, Records, recorded
from tests.service.engine.canary.liars import canary_of as made_canary
from tests.service.engine.test_engine import FACTS, LIMITS
from tests.service.running import PATIENCE_S, Recorder, until
from tests.service.threaded_device import ThreadedDevice


class Watch(EngineWatch):
    def __init__(self) -> None:
        self.told: list[str] = []

    def untrue(self, what: str) -> None:
        self.told.append(what)


class Bench:
    """An engine with a model that may lie, and a canary every `interval_s`."""

    def __init__(self, *, interval_s: float, records: Records | None = None, depth: int = 1) -> None:
        self.liar, self.metrics, self.watch = Liar(), Metrics(), Watch()
        self.runner = Recorder(self.liar)
        self.records = records or Records(recorded())
        device = HostDevice(self.runner) if depth == 1 else ThreadedDevice(self.runner)
        self.engine = Engine(
            device, FACTS, LIMITS, metrics=self.metrics, watch=self.watch,
            canary=made_canary(self.records, interval_s=interval_s, metrics=self.metrics),
        )  # fmt: skip

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"packlight_{name}", labels) or 0.0

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await main()

        asyncio.run(bounded())


class Answers:
    """A receiver that nothing reaches."""

    def receive(self, outcomes: object) -> None:
        raise AssertionError("nothing was taken")


Made = Callable[..., Bench]


@pytest.fixture
def made() -> Iterator[Made]:
    benches: list[Bench] = []

    def make(*, interval_s: float = 0.05, records: Records | None = None, depth: int = 1) -> Bench:
        benches.append(Bench(interval_s=interval_s, records=records, depth=depth))
        return benches[-1]

    yield make
    for bench in benches:
        bench.runner.free.set()
        bench.engine.close(timeout_s=10)


def job(tokens: int, value: int = 1) -> ImageJob:
    return ImageJob(np.full((tokens, 3), value, np.uint8), ((tokens, 1),), tokens, None, False)


CASES = [*((1, lie) for lie in LIES), (2, "constant"), (2, "stale")]


@pytest.mark.parametrize(("depth", "lie"), CASES)
def test_a_lie_is_caught_by_an_engine_at_rest(made: Made, depth: int, lie: Lie) -> None:
    bench = made(depth=depth)
    assert bench.engine.prove(timeout_s=PATIENCE_S)
    assert bench.engine.any_device_ready
    bench.liar.lie = lie
    until(lambda: bench.engine.trust.untrue)
    until(lambda: not bench.engine.accepts_jobs)
    until(lambda: bench.count("engine_up") == 0)
    assert not bench.engine.any_device_ready
    assert bench.engine.trust.doubts == 1
    assert bench.watch.told == [bench.engine.trust.untrue]
    assert bench.count("canaries_total", outcome="failed") == 1
    assert threads.lost() == [], "its threads may end: the process goes on"
    with pytest.raises(Unavailable, match="wrong vectors"):
        bench.engine.enqueue([job(1)], Answers())


@pytest.mark.parametrize(("depth", "lie"), CASES)
def test_a_lie_is_caught_while_every_pack_is_full(made: Made, depth: int, lie: Lie) -> None:
    bench = made(depth=depth)

    async def main() -> None:
        async def ask() -> None:
            while True:
                await bench.engine.submit(job(LIMITS.max_batch_tokens))

        await asyncio.to_thread(bench.engine.prove, timeout_s=PATIENCE_S)
        clients = [asyncio.create_task(ask()) for _ in range(3)]
        passed = bench.count("canaries_total", outcome="passed")
        await asyncio.to_thread(until, lambda: bench.count("canaries_total", outcome="passed") > passed + 1)
        bench.liar.lie = lie
        # The device may fail by itself: NaN reaches no client.
        outcomes = await asyncio.gather(*clients, return_exceptions=True)
        assert bench.engine.trust.untrue or lie == "not a number"
        await asyncio.to_thread(until, lambda: bench.engine.trust.untrue)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes) or lie == "not a number"

    bench.run(main)


def test_nothing_of_the_pack_with_the_lie_is_answered_and_nothing_behind_it(made: Made) -> None:
    bench = made(interval_s=1000)

    async def main() -> None:
        await asyncio.to_thread(bench.engine.prove, timeout_s=PATIENCE_S)
        bench.liar.lie = "shuffled"
        bench.engine._canary._due_s = 0.0  # type: ignore[union-attr]
        first = asyncio.create_task(bench.engine.submit(job(4)))
        outcomes = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(outcomes[0], Unavailable)
        # The image shared its pack with two pictures of the canary.
        assert bench.runner.packs[-1] == [4, 2, 3]

    bench.run(main)


def test_a_canary_beside_images_changes_no_answer_and_counts_as_nothing_that_was_sent(made: Made) -> None:
    bench = made(interval_s=1000)

    async def main() -> None:
        await asyncio.to_thread(bench.engine.prove, timeout_s=PATIENCE_S)
        quiet = await bench.engine.submit(job(4, 9))
        bench.engine._canary._due_s = 0.0  # type: ignore[union-attr]
        beside = await bench.engine.submit(job(4, 9))
        assert bench.runner.packs[-2:] == [[4], [4, 2, 3]] or bench.runner.packs[-2] == [4, 2, 3]
        assert np.array_equal(quiet.pooled, beside.pooled)
        await asyncio.to_thread(until, lambda: bench.count("canaries_total", outcome="passed") == 2)
        assert bench.count("tokens_total", kind="image") == 8
        assert bench.count("tokens_total", kind="canary") == 20
        assert bench.count("pack_images_sum") == 2
        assert [pack.images for pack in bench.engine.packs[0]] == [((4,),), ((4,),)]
        assert [pack.tokens for pack in bench.engine.packs[0]] == [4, 4]

    bench.run(main)


def test_a_full_pack_keeps_its_room_until_the_canary_is_overdue(made: Made) -> None:
    bench = made(interval_s=1000)

    async def main() -> None:
        await asyncio.to_thread(bench.engine.prove, timeout_s=PATIENCE_S)
        bench.runner.hold()
        held = asyncio.create_task(bench.engine.submit(job(1)))
        await asyncio.to_thread(bench.runner.entered.wait, PATIENCE_S)
        bench.engine._canary._due_s = 0.0  # type: ignore[union-attr]
        full: list[asyncio.Task[JobResult]] = [
            asyncio.create_task(bench.engine.submit(job(LIMITS.max_batch_tokens))) for _ in range(3)
        ]
        await asyncio.sleep(0)
        bench.runner.free.set()
        await asyncio.gather(held, *full)
        await asyncio.to_thread(until, lambda: bench.count("canaries_total", outcome="passed") == 2)
        assert bench.runner.packs[2:] == [[1], [32], [32], [32], [2, 3], [4, 1]]

    bench.run(main)


def test_a_device_that_fails_is_not_said_to_lie(made: Made) -> None:
    bench = made()
    assert bench.engine.prove(timeout_s=PATIENCE_S)
    bench.runner.fault = RuntimeError("broken")
    until(lambda: bench.count("canaries_total", outcome="interrupted") > 0)
    assert bench.engine.trust.untrue is None
    bench.runner.fault = None
    passed = bench.count("canaries_total", outcome="passed")
    until(lambda: bench.count("canaries_total", outcome="passed") > passed)


class BrokenRecords(Records):
    def read(self) -> Recorded | None:
        raise RuntimeError("a bug")


def test_what_goes_wrong_with_records_is_no_fault_of_the_device(made: Made) -> None:
    bench = made(records=BrokenRecords(None))
    assert bench.engine.prove(timeout_s=PATIENCE_S)
    assert bench.count("canaries_total", outcome="unrecorded") > 0
    assert bench.engine.any_device_ready


def test_an_engine_is_ready_before_its_canary_has_run(made: Made) -> None:
    bench = made()
    assert bench.engine.any_device_ready
    assert not made(interval_s=1000, records=Records(None)).engine.trust.untrue


def test_an_engine_that_lies_from_the_start_is_not_proven(made: Made) -> None:
    liar = Liar()
    liar.lie = "noisy"
    metrics = Metrics()
    engine = Engine(
        HostDevice(liar), FACTS, LIMITS, metrics=metrics,
        canary=made_canary(Records(recorded()), interval_s=1000, metrics=metrics),
    )  # fmt: skip
    assert not engine.prove(timeout_s=PATIENCE_S)
    assert engine.close(timeout_s=10)


def test_without_a_canary_there_is_nothing_to_prove() -> None:
    engine = Engine(HostDevice(Liar()), FACTS, LIMITS, metrics=Metrics())
    assert engine.prove(timeout_s=0)
    assert engine.trust.proven_s == float("inf")
    assert engine.close(timeout_s=10)


def test_the_truth_is_never_called_a_lie(made: Made) -> None:
    """`python -m loadtest.bench canary` runs 10,000 packs of a real model."""
    bench = made(interval_s=0.002)
    until(lambda: bench.count("canaries_total", outcome="passed") >= 40)
    assert bench.count("canaries_total", outcome="failed") == 0
