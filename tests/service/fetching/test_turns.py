import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetching.turns import Turns


async def taken(turns: Turns, *kinds: str) -> "asyncio.Task[None]":
    """One that takes a turn as soon as it can, and has had the time to."""
    task = asyncio.create_task(turns.take(*kinds))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


def test_one_kind_has_a_quarter_and_leaves_the_rest_to_others() -> None:
    async def main() -> None:
        turns = Turns(8)
        slow = [await taken(turns, "host slow") for _ in range(6)]
        assert [task.done() for task in slow] == [True, True, False, False, False, False]
        others = [await taken(turns, f"host {number}") for number in range(7)]
        assert [task.done() for task in others] == [True] * 6 + [False]
        turns.give_back("host slow")
        await others[6]
        assert not slow[2].done()
        turns.give_back("host 0")
        await slow[2]
        assert not slow[3].done()
        for task in slow[3:]:
            task.cancel()

    asyncio.run(main())


def test_a_turn_counts_for_each_of_its_kinds() -> None:
    async def main() -> None:
        turns = Turns(8)
        for host in "ab":
            await turns.take(f"host {host}", "address 1")
        waiting = await taken(turns, "host c", "address 1")
        assert not waiting.done()
        assert (await taken(turns, "host c", "address 2")).done()
        turns.give_back("host a", "address 1")
        await waiting

    asyncio.run(main())


def test_at_least_one_turn_of_a_kind_can_be_had() -> None:
    asyncio.run(Turns(1).take("a", "b"))


@pytest.mark.parametrize("order", ["given up, freed later", "freed, given up", "given up, freed"])
def test_who_gives_up_leaves_nothing_taken(order: str) -> None:
    async def main() -> None:
        turns = Turns(1)
        await turns.take("a")
        waiting = await taken(turns, "b")
        if order == "freed, given up":
            turns.give_back("a")
        waiting.cancel()
        if order == "given up, freed":
            turns.give_back("a")
        await asyncio.wait([waiting])
        if order == "given up, freed later":
            turns.give_back("a")
        assert turns.taken == 0
        await turns.take("c")

    asyncio.run(main())


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123"), st.booleans()), max_size=40),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_everybody_has_a_turn_and_no_bound_is_passed(
    wanted: Sequence[tuple[str, str, bool]], most: int, random: Random
) -> None:
    """Those that are told to give up do so at any time."""

    async def main() -> None:
        turns, now = Turns(most), []

        async def one(*kinds: str) -> None:
            async with turns.turn(*kinds):
                now.append(kinds)
                assert len(now) <= most
                for kind in kinds:
                    assert sum(kind in others for others in now) <= max(1, most // 4)
                try:
                    for _ in range(random.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    now.remove(kinds)

        tasks = [asyncio.create_task(one(host, address)) for host, address, _ in wanted]
        for task, (*_, gives_up) in zip(tasks, wanted, strict=True):
            await asyncio.sleep(0)
            if gives_up:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in found} <= {type(None), asyncio.CancelledError}
        assert turns.taken == 0
        await asyncio.gather(*(turns.take(str(number)) for number in range(most)))

    asyncio.run(main())
