"""Deadlines of one event loop: by its own clock, in any order, and as `asyncio.timeout` where that is at hand."""

import asyncio
import itertools
import time
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from service.watching.timers import TimeLimit, Timers, timers
from tests.service.running import PATIENCE_S

NEVER_S = 1000.0


class StillLoop:
    """Counts the timers that are made of it, and says when the next one is due. Time is told to it."""

    def __init__(self) -> None:
        self.made = 0
        self.alarm: tuple[float, Any] | None = None
        self.now_s = 0.0

    def call_later(self, delay_s: float, call: Any, *, context: Any) -> "StillLoop":
        assert self.alarm is None
        self.made, self.alarm = self.made + 1, (self.now_s + delay_s, call)
        return self

    def cancel(self) -> None:
        self.alarm = None

    def advance(self, to_s: float) -> None:
        while self.alarm is not None and self.alarm[0] <= to_s:
            (self.now_s, call), self.alarm = self.alarm, None
            call()
        self.now_s = to_s


def timers_of(loop: StillLoop) -> Timers:
    return Timers(loop, clock=lambda: loop.now_s)  # type: ignore[arg-type]


STEPS = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 40)),
    st.tuples(st.just("clear"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("advance"), st.integers(0, 12), st.just(0)),
)


@given(st.lists(STEPS, max_size=40))
@settings(deadline=None)
def test_each_call_comes_once_when_it_is_due_unless_it_is_cleared(steps: list[tuple[str, int, int]]) -> None:
    loop = StillLoop()
    due: dict[int, float] = {}
    called: list[int] = []
    ours = timers_of(loop)
    for kind, first, second in steps:
        if kind == "set":
            due[first] = loop.now_s + second
            ours.set(first, due[first], partial(called.append, first))
        elif kind == "clear":
            due.pop(first, None)
            ours.clear(first)
        else:
            loop.advance(loop.now_s + first)
            # A call may come a millisecond late, and never early.
            certain = {key for key, at_s in due.items() if at_s <= loop.now_s - 0.01}
            possible = {key for key, at_s in due.items() if at_s <= loop.now_s}
            assert len(called) == len(set(called))
            assert certain <= set(called) <= possible
            for key in called:
                del due[key]
            called.clear()


def test_deadlines_that_are_cleared_make_next_to_no_timers() -> None:
    still = StillLoop()
    ours = timers_of(still)
    for number in range(10_000):
        ours.set(number, still.now_s + 30, int)
        still.advance(still.now_s + 0.01)
        ours.clear(number)
    assert still.made <= 5
    still.advance(still.now_s + 60)
    assert still.alarm is None


def test_a_call_may_clear_another_that_is_due_with_it_and_one_that_fails_keeps_none_back() -> None:
    still = StillLoop()
    ours, called = timers_of(still), list[str]()
    ours.set("fails", 1.0, lambda: 1 // 0)
    ours.set("clears", 1.0, lambda: ours.clear("cleared"))
    ours.set("cleared", 1.0, partial(called.append, "cleared"))
    ours.set("last", 1.0, partial(called.append, "last"))
    with pytest.raises(ZeroDivisionError):
        still.advance(2.0)
    still.advance(3.0)
    assert called == ["last"]


def test_each_loop_has_timers_of_its_own() -> None:
    async def found() -> tuple[Timers, Timers]:
        return timers(), timers()

    pairs = [asyncio.run(found()), asyncio.run(found())]
    assert [first is second for first, second in pairs] == [True, True]
    assert pairs[0][0] is not pairs[1][0]


named: ContextVar[str] = ContextVar("named", default="")


def test_no_call_is_made_in_the_context_of_whoever_set_the_alarm() -> None:
    async def main() -> str:
        called = asyncio.get_running_loop().create_future()
        named.set("one request")
        timers().set(called, time.monotonic(), lambda: called.set_result(named.get()))
        found: str = await called
        return found

    assert asyncio.run(main()) == ""


# As asyncio.timeout_at

RUN = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@RUN
def test_what_takes_too_long_is_cancelled_and_the_task_goes_on(run: Any) -> None:
    async def main() -> None:
        began_s = time.monotonic()
        with pytest.raises(TimeoutError), TimeLimit(began_s + 0.02):
            await asyncio.sleep(PATIENCE_S)
        assert time.monotonic() - began_s >= 0.02
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(main())


@RUN
def test_what_is_in_time_or_fails_is_as_it_is(run: Any) -> None:
    async def main() -> None:
        with TimeLimit(time.monotonic() + NEVER_S):
            await asyncio.sleep(0)
        with pytest.raises(KeyError), TimeLimit(time.monotonic() + NEVER_S):
            raise KeyError
        # It is past from the start, and nothing waits.
        with TimeLimit(time.monotonic() - 1):
            pass
        await asyncio.sleep(0.01)
        assert not timers()._calls

    run(main())


@RUN
def test_a_limit_moves(run: Any) -> None:
    async def main() -> None:
        began_s = time.monotonic()
        with TimeLimit(began_s + 0.01) as limit:
            limit.move(began_s + NEVER_S)
            await asyncio.sleep(0.05)
            limit.move(began_s)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE_S)
            # What it has cancelled cannot be taken back.
            limit.move(began_s + NEVER_S)
            raise asyncio.CancelledError

    with pytest.raises(TimeoutError):
        run(main())


@RUN
@pytest.mark.parametrize("outer_first", [True, False])
def test_of_two_limits_the_one_that_is_passed_raises(run: Any, outer_first: bool) -> None:
    async def main() -> str:
        now_s = time.monotonic()
        outer_s, inner_s = (now_s + 0.01, now_s + NEVER_S) if outer_first else (now_s + NEVER_S, now_s + 0.01)
        try:
            with TimeLimit(outer_s):
                try:
                    with TimeLimit(inner_s):
                        await asyncio.sleep(PATIENCE_S)
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    assert run(main()) == ("outer" if outer_first else "inner")


@RUN
def test_who_cancels_the_task_from_outside_is_not_taken_for_the_limit(run: Any) -> None:
    async def limited(at_s: float) -> None:
        with TimeLimit(at_s):
            await asyncio.sleep(PATIENCE_S)

    async def main() -> list[BaseException | None]:
        now_s = time.monotonic()
        cancelled = asyncio.create_task(limited(now_s + NEVER_S))
        both = asyncio.create_task(limited(now_s + 0.01))
        await asyncio.sleep(0)
        cancelled.cancel()
        # The limit passes while the task has been cancelled by somebody else, and does not run yet.
        until_s = now_s + 0.03
        while time.monotonic() < until_s:
            pass
        both.cancel()
        return list(await asyncio.gather(cancelled, both, return_exceptions=True))

    assert [type(each) for each in run(main())] == [asyncio.CancelledError] * 2


def test_as_many_limits_as_a_busy_server_has_pass_when_they_should() -> None:
    async def limited(seconds: float) -> bool:
        try:
            with TimeLimit(time.monotonic() + seconds):
                await asyncio.sleep(0.05 if seconds > 1 else PATIENCE_S)
        except TimeoutError:
            return True
        return False

    async def main() -> list[bool]:
        lengths = itertools.islice(itertools.cycle([0.001, NEVER_S, 0.01, NEVER_S]), 2000)
        return list(await asyncio.gather(*map(limited, lengths)))

    assert asyncio.run(main()) == [True, False] * 1000
