"""Work of a reload that takes seconds, off the event loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from model import threads

T = TypeVar("T")


async def in_thread(do: Callable[[], T]) -> T:
    """Its result. At its end the process does not wait for the thread, whose work may take minutes more."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle: Callable[[], Any] = _settled(future, do())
        except BaseException as error:
            settle = _failed(future, error)
        # Nobody waits on a loop that has closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    thread = threads.passing(run, "reload")
    try:
        return await future
    finally:
        if future.done() and not future.cancelled():
            # It is at its end, and has `do`, and all that is reached from there, until then.
            thread.join()


def _settled(future: "asyncio.Future[T]", result: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(result)


def _failed(future: "asyncio.Future[T]", error: BaseException) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)
