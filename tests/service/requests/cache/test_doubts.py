"""What is remembered of a device that turns out to lie: nothing. The shared store never has it."""

import asyncio
from dataclasses import replace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from service.engine.client import EngineClient, Trust
from service.metrics import Metrics
from service.requests.cache.memory import Memory
from service.requests.cache.pictures import SeenPictures
from service.requests.cache.seen import Seen
from service.requests.cache.store import SharedStore
from service.requests.cache.unproven import Unproven
from tests.service.requests.cache.seen_pictures import seen
from tests.service.requests.test_embedder import NAFLEX, BlankEngine, facts_of


class Kept:
    """A store that keeps in memory what it is given."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.keys.append(key)


class Bench:
    def __init__(self, trust: Trust) -> None:
        self.engine, self.store, self.metrics = BlankEngine(facts_of(NAFLEX)), Kept(), Metrics()
        self.engine.trust = trust
        client, store = cast(EngineClient, self.engine), cast(SharedStore, self.store)
        self.pictures = SeenPictures(client, Memory(10**6), self.metrics, store)

    def embed(self, key: bytes) -> None:
        self.pictures.keep(self.pictures.lead(key), seen(1))

    def trust(self, **changes: object) -> None:
        self.engine.trust = replace(self.engine.trust, **changes)  # type: ignore[arg-type]

    def not_written(self) -> float | None:
        labels = {"outcome": "not_written"}
        return self.metrics.registry.get_sample_value("packlight_cache_store_total", labels)


async def _a_picture_is_forgotten_once_a_device_is_in_doubt() -> None:
    bench = Bench(Trust(proven_s=0.0))
    bench.embed(b"a")
    assert isinstance(bench.pictures.find(b"a"), Seen)
    under_way = bench.pictures.lead(b"b")
    bench.trust(doubts=1)
    assert bench.pictures.find(b"a") is None
    # It was computed before the device was replaced.
    bench.pictures.keep(under_way, seen(1))
    assert bench.pictures.find(b"b") is None
    # The engine that took its place has proven all that it will compute.
    bench.trust(proven_s=1e12)
    bench.embed(b"c")
    assert isinstance(bench.pictures.find(b"c"), Seen)
    assert bench.store.keys == [b"c"]
    assert bench.not_written() == 1


def test_a_picture_is_forgotten_once_a_device_is_in_doubt() -> None:
    asyncio.run(_a_picture_is_forgotten_once_a_device_is_in_doubt())


async def _the_store_has_a_picture_once_the_canary_has_passed() -> None:
    bench = Bench(Trust(proven_s=0.0))
    bench.embed(b"a")
    bench.pictures.find(b"other")
    assert bench.store.keys == []
    bench.trust(proven_s=1e12)
    bench.pictures.find(b"other")
    assert bench.store.keys == [b"a"]


def test_the_store_has_a_picture_once_the_canary_has_passed() -> None:
    asyncio.run(_the_store_has_a_picture_once_the_canary_has_passed())


async def _without_a_canary_the_store_has_a_picture_at_once() -> None:
    bench = Bench(Trust())
    bench.embed(b"a")
    assert bench.store.keys == [b"a"]


def test_without_a_canary_the_store_has_a_picture_at_once() -> None:
    asyncio.run(_without_a_canary_the_store_has_a_picture_at_once())


@given(st.lists(st.tuples(st.sampled_from(["add", "prove", "clear"]), st.integers(1, 60)), max_size=30))
def test_what_waits_is_bounded_and_leaves_in_order_once_it_is_proven(steps: list[tuple[str, int]]) -> None:
    waiting = Unproven(most_bytes=100)
    expected: list[tuple[float, int]] = []
    for now_s, (step, number) in enumerate(steps):
        if step == "add":
            fits = sum(size for _, size in expected) + number <= 100
            assert waiting.add(now_s, b"key", b"x" * number) == fits
            expected += [(now_s, number)] * fits
        elif step == "prove":
            proven_s = now_s - number % 5
            assert [len(value) for _, value in waiting.proven(proven_s)] == [
                size for at_s, size in expected if at_s < proven_s
            ]
            expected = [each for each in expected if each[0] >= proven_s]
        else:
            assert waiting.clear() == len(expected)
            expected = []
        assert waiting.held_bytes == sum(size for _, size in expected)
