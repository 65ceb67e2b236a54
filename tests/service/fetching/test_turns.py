import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetching.turns import Turns


async def taken(turns: Turns, *kinds: str, bulk: bool = False) -> "asyncio.Task[None]":
    """One that takes a turn as soon as it can, and has had the time to."""
    task = asyncio.create_task(turns.take(*kinds, bulk=bulk))
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


def test_bulk_leaves_a_share_of_all_and_of_each_kind_and_nobody_waits_behind_more_of_it() -> None:
    async def main() -> None:
        turns = Turns(16, interactive_share=0.25)
        bulk = [await taken(turns, "host slow", bulk=True) for _ in range(5)]
        assert [task.done() for task in bulk] == [True] * 3 + [False] * 2
        first, second = [await taken(turns, "host slow") for _ in range(2)]
        assert (first.done(), second.done()) == (True, False)
        elsewhere = [await taken(turns, f"host {number}", bulk=True) for number in range(10)]
        assert [task.done() for task in elsewhere] == [True] * 9 + [False]
        for number in range(2):
            assert (await taken(turns, f"host {number}")).done()
        # It stands before the bulk that came earlier.
        turns.give_back("host slow", bulk=True)
        await second
        assert not bulk[3].done()
        for task in bulk[3:]:
            task.cancel()
        await asyncio.wait(bulk[3:])

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
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123"), st.booleans(), st.booleans()), max_size=40),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_everybody_has_a_turn_and_no_bound_is_passed(
    wanted: Sequence[tuple[str, str, bool, bool]], most: int, random: Random
) -> None:
    """Those that are told to give up do so at any time."""

    async def main() -> None:
        turns = Turns(most, interactive_share=0.25)
        now: list[tuple[str, str, bool]] = []
        of_a_kind = max(1, most // 4)

        async def one(host: str, address: str, bulk: bool) -> None:
            async with turns.turn(host, address, bulk=bulk):
                now.append(kinds := (host, address, bulk))
                assert len(now) <= most
                assert sum(is_bulk for *_, is_bulk in now) <= max(1, most - most // 4)
                for kind in (host, address):
                    assert sum(kind in others for others in now) <= of_a_kind
                    of_bulk = sum(kind in others and others[2] for others in now)
                    assert of_bulk <= max(1, of_a_kind - of_a_kind // 4)
                try:
                    for _ in range(random.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    now.remove(kinds)

        tasks = [asyncio.create_task(one(host, address, bulk)) for host, address, bulk, _ in wanted]
        for task, (*_, gives_up) in zip(tasks, wanted, strict=True):
            await asyncio.sleep(0)
            if gives_up:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in found} <= {type(None), asyncio.CancelledError}
        assert turns.taken == 0
        await asyncio.gather(*(turns.take(str(number)) for number in range(most)))
        for number in range(most):
            turns.give_back(str(number))
        await asyncio.gather(*(turns.take(str(number), bulk=True) for number in range(most - most // 4)))

    asyncio.run(main())
