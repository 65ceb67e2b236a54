"""Runs one step for each item of a request, all at once, without holding the event loop, and in time. Knows no step."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

from model.errors import ModelError
from service.errors import DeadlineExceeded, ServiceError, from_model_error
from service.watching.timers import TimeLimit

# Items that begin in one turn of the event loop: 2,048 texts at once held it for 50 ms.
_ITEMS_A_TURN = 128

T = TypeVar("T")
Failed = TypeVar("Failed")


async def each(
    steps: Sequence[Callable[[], Awaitable[T]]], on_failure: Callable[[ServiceError], Failed]
) -> list[T | Failed]:
    """Runs one step for each item, all at once. What `on_failure` raises stops the others and is raised."""

    async def guarded(index: int, step: Callable[[], Awaitable[T]]) -> T | Failed:
        try:
            return await step()
        except ModelError as error:
            return on_failure(from_model_error(error, index=index))
        except ServiceError as error:
            error.index = index
            return on_failure(error)

    if len(steps) == 1:  # needs no task of its own
        return [await guarded(0, steps[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for index, step in enumerate(steps):
                tasks.append(group.create_task(guarded(index, step)))
                if len(tasks) % _ITEMS_A_TURN == 0:
                    await asyncio.sleep(0)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def raised(error: ServiceError) -> NoReturn:
    """The `on_failure` of steps that are of no use without one another."""
    raise error


async def in_time(work: Awaitable[T], deadline_s: float) -> T:
    """The result of `work`. deadline_s: of `time.monotonic`. Raises `DeadlineExceeded` if it is not there by then."""
    try:
        with TimeLimit(deadline_s):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(
            "the deadline passed before all images and texts were read (timeout_ms, default_timeout_ms)"
        ) from None
