"""The steps of a large request take turns with everything else on the event loop."""

import asyncio
from collections import Counter
from functools import partial

import pytest

from service.errors import Invalid, ServiceError
from service.requests.steps import each


def fail(error: ServiceError) -> ServiceError:
    raise error


@pytest.mark.parametrize("count", [1, 127, 128, 129, 5000])
def test_items_of_a_large_request_begin_over_several_turns_of_the_loop(count: int) -> None:
    async def main() -> None:
        begun: Counter[int] = Counter()
        turn, over = 0, False

        def next_turn() -> None:
            nonlocal turn
            turn += 1
            if not over:
                asyncio.get_running_loop().call_soon(next_turn)

        async def step(number: int) -> int:
            begun[turn] += 1
            return number

        next_turn()
        results = await each([partial(step, number) for number in range(count)], fail)
        over = True
        assert results == list(range(count))
        assert max(begun.values()) <= 128

    asyncio.run(main())


def test_a_failure_of_an_early_item_stops_those_that_have_not_begun() -> None:
    async def main() -> None:
        begun = []

        async def step(number: int) -> None:
            begun.append(number)
            if number == 3:
                raise Invalid("wrong")

        with pytest.raises(Invalid) as caught:
            await each([partial(step, number) for number in range(5000)], fail)
        assert caught.value.index == 3
        assert len(begun) <= 256

    asyncio.run(main())
