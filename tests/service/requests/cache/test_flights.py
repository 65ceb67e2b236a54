"""Of those who ask for one picture at a time one leads; the others have its vectors, or lead themselves if it ends."""

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.client import EngineClient, JobResult
from service.errors import DeadlineExceeded, EngineFault
from service.metrics import Metrics
from service.requests.admission.hold import Hold
from service.requests.cache.flights import Lead
from service.requests.cache.lookups import Lookups
from service.requests.cache.memory import Memory
from service.requests.cache.pictures import SeenPictures
from service.requests.cache.recall import Recall
from service.requests.results import EmbeddedImage
from tests.examples import many
from tests.service.requests.cache.seen_pictures import seen
from tests.service.requests.test_embedder import NAFLEX, BlankEngine, facts_of

BUDGET = seen(1).plan.budget


class Bench:
    """Requests for the same picture, and how many of them embed it at a time."""

    def __init__(self) -> None:
        client = cast(EngineClient, BlankEngine(facts_of(NAFLEX)))
        self.pictures = SeenPictures(client, Memory(10**6), Metrics(), None)
        self.embedding = self.most_embedding = self.embedded = 0

    async def ask(self, end: str, turns: int, *, bulk: bool = False) -> EmbeddedImage:
        """One request. end: what becomes of it if it leads. turns: of the event loop that embedding takes."""
        hold = Hold(cast("object", None))  # type: ignore[arg-type]
        hold.images, hold.digests, hold.bulk = [b""], {0: b"picture"}, bulk
        with Recall(self.pictures, hold, "exact", lambda index: ("naflex", BUDGET)) as recall:
            found = await recall.look(0)
            if isinstance(found, Lead):
                found = await recall.wait(0, found, asyncio.get_running_loop().time() + 1e6)
            return found or await self._embed(recall, end, turns)

    async def _embed(self, recall: Recall, end: str, turns: int) -> EmbeddedImage:
        self.embedding += 1
        self.most_embedding = max(self.most_embedding, self.embedding)
        try:
            with recall.embedding(0):
                for _ in range(turns):
                    await asyncio.sleep(0)
                if end == "late":
                    raise DeadlineExceeded("its own deadline")
                if end == "fault":
                    raise EngineFault("a pack failed")
        finally:
            self.embedding -= 1
        self.embedded += 1
        result = JobResult(seen(1).pooled, None, 0.0, 0.0, 0.0)
        image = EmbeddedImage(seen(1).plan, result, 0.0, True, format="PNG")
        recall.embedded(0, image)
        return image


REQUESTS = st.lists(
    st.tuples(st.sampled_from(["fine", "late", "fault", "cancelled"]), st.integers(0, 3)), min_size=1, max_size=8
)


@many(60)
@given(requests=REQUESTS, after=st.integers(0, 6))
def test_whatever_ends_one_request_the_others_are_answered(requests: list[tuple[str, int]], after: int) -> None:
    bench = Bench()

    async def run() -> list[object]:
        tasks = [asyncio.ensure_future(bench.ask(end, turns)) for end, turns in requests]
        for _ in range(after):
            await asyncio.sleep(0)
        for task, (end, _) in zip(tasks, requests, strict=True):
            if end == "cancelled":
                task.cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    for (end, _), outcome in zip(requests, asyncio.run(run()), strict=True):
        if isinstance(outcome, EmbeddedImage):
            assert (outcome.result.pooled == 1).all()
        elif end == "fine":
            raise AssertionError(outcome)
    if all(end in ("fine", "late", "cancelled") for end, _ in requests):
        assert bench.most_embedding <= 1
        assert bench.embedded <= 1
    assert not len(bench.pictures._flights)


def test_an_interactive_request_waits_for_none_of_bulk_and_what_it_embeds_is_for_all() -> None:
    bench = Bench()

    async def run() -> None:
        slow = [asyncio.ensure_future(bench.ask("fine", 50, bulk=True)) for _ in range(2)]
        await asyncio.sleep(0)
        quick = [asyncio.ensure_future(bench.ask("fine", 3)) for _ in range(3)]
        await asyncio.gather(*quick)
        assert bench.embedded == 1
        assert not any(task.done() for task in slow)
        assert (await bench.ask("fine", 0, bulk=True)).cached
        await asyncio.gather(*slow)
        assert bench.embedded == 2

    asyncio.run(run())
    assert not len(bench.pictures._flights)


def test_what_bulk_embeds_is_remembered_though_an_interactive_request_took_its_place_and_failed() -> None:
    bench = Bench()

    async def run() -> None:
        slow = asyncio.ensure_future(bench.ask("fine", 5, bulk=True))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await bench.ask("late", 0)
        await slow
        assert (await bench.ask("late", 0)).cached

    asyncio.run(run())
    assert bench.embedded == 1


@pytest.mark.parametrize("known", [1, 2])
def test_a_body_was_worth_its_reception_only_if_all_its_pictures_are_known(known: int) -> None:
    bench, lookups = Bench(), Lookups(lambda: True, max_inflight_bytes=2**30, clock=lambda: 0.0)

    async def run() -> None:
        await bench.ask("fine", 0)
        hold = Hold(cast("object", None))  # type: ignore[arg-type]
        hold.images, hold.digests = [b"", b""], {0: b"picture", 1: b"picture" if known == 2 else b"another"}
        hold.lookup = lookups.begin(2**24)
        with Recall(bench.pictures, hold, "exact", lambda index: ("naflex", BUDGET)) as recall:
            for index in range(2):
                await recall.look(index)

    asyncio.run(run())
    assert (lookups.begin(1) is not None) == (known == 2)


def test_a_result_that_came_of_a_pack_holds_nothing_of_the_pack() -> None:
    import numpy as np

    from service.requests.cache.seen import Seen

    pack = np.arange(64, dtype=np.float32).reshape(8, 8)
    kept = Seen.of(seen(1).plan, pack[3:4], repaired=False, format="PNG").pooled
    assert kept.base is None
    pack[:] = 0
    assert kept[0, 0] == 24
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1


def test_what_was_cleared_is_embedded_again_even_if_it_was_under_way() -> None:
    bench = Bench()

    async def run() -> None:
        await bench.ask("fine", 0)
        bench.pictures.clear()
        under_way = asyncio.ensure_future(bench.ask("fine", 2))
        await asyncio.sleep(0)
        bench.pictures.clear()
        other = asyncio.ensure_future(bench.ask("fine", 0))
        await asyncio.sleep(0)
        bench.pictures.clear()
        assert (await under_way).result.pooled.any()
        assert (await other).result.pooled.any()
        assert bench.embedded == 3
        await bench.ask("fine", 0)
        await bench.ask("fine", 0)

    asyncio.run(run())
    assert bench.embedded == 4
    assert not len(bench.pictures._flights)
