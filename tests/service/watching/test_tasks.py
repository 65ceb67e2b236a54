import asyncio
from collections.abc import Iterator

import pytest

from service.watching import tasks


@pytest.fixture(autouse=True)
def none_lost() -> Iterator[None]:
    yield
    tasks._lost.clear()


async def wait() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("no")


async def end() -> None: ...


def test_a_kept_task_that_fails_or_is_cancelled_is_lost_and_one_that_returns_is_not() -> None:
    async def main() -> None:
        kept = [tasks.keep(work(), f"{work.__name__}s") for work in (wait, fail, end)]
        await asyncio.sleep(0)
        kept[0].cancel()
        await asyncio.gather(*kept, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert sorted(tasks.lost()) == ["the task fails has failed: ValueError: no", "the task waits was cancelled"]
