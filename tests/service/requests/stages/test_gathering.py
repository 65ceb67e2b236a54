"""Images of a request are handed over together, unless that costs more than it saves."""

import asyncio

import pytest

from service.requests.stages import gathering
from service.requests.stages.gathering import Gathering

SMALL_S, LARGE_S = 1e-4, 1.0


async def turns() -> None:
    """Lets every task go on until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_LONGEST_S", 3600.0)


def test_the_last_image_takes_the_others_along() -> None:
    async def run() -> None:
        images = Gathering(3)
        first, second = (asyncio.ensure_future(images.join(SMALL_S)) for _ in range(2))
        await turns()
        assert not first.done()
        assert not second.done()
        await images.join(SMALL_S)
        await turns()
        assert first.done()
        assert second.done()

    asyncio.run(run())


def test_an_image_that_comes_to_nothing_is_not_waited_for() -> None:
    async def run() -> None:
        images = Gathering(3)
        images.leave()
        first = asyncio.ensure_future(images.join(SMALL_S))
        await turns()
        assert not first.done()
        images.leave()
        await asyncio.wait_for(first, 60)

    asyncio.run(run())


def test_a_device_with_enough_to_do_is_not_kept_waiting() -> None:
    async def run() -> None:
        images = Gathering(100)
        first = asyncio.ensure_future(images.join(SMALL_S))
        await turns()
        await images.join(LARGE_S)
        await asyncio.wait_for(first, 60)
        # The next ones wait for one another again.
        third = asyncio.ensure_future(images.join(SMALL_S))
        await turns()
        assert not third.done()
        third.cancel()

    asyncio.run(run())


def test_images_that_take_long_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_LONGEST_S", 0.001)

    async def run() -> None:
        images = Gathering(2)
        await asyncio.wait_for(images.join(SMALL_S), 60)
        await asyncio.wait_for(images.join(SMALL_S), 60)

    asyncio.run(run())


def test_whoever_gives_up_leaves_the_others_as_they_are() -> None:
    async def run() -> None:
        images = Gathering(3)
        first, second = (asyncio.ensure_future(images.join(SMALL_S)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        assert not second.done()
        await images.join(SMALL_S)
        await asyncio.wait_for(second, 60)

    asyncio.run(run())
