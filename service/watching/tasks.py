"""Tasks of an event loop that must not end by themselves, and what became of those that have.

A task that was cancelled or has failed says nothing until somebody asks. A watch asks `lost`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

# As the threads of `model.threads`, these are the process's.
_kept: "set[asyncio.Task[None]]" = set()
_lost: list[str] = []


def lost() -> list[str]:
    """What became of kept tasks that have ended, in words, and what was reported."""
    return list(_lost)


def name_main() -> None:
    """Names the running task, which the process ends with."""
    if task := asyncio.current_task():
        task.set_name("main")


def report(why: str) -> None:
    """Something else has failed, and the process cannot make it good: it ends."""
    _lost.append(why)


def keep(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """A task that may return, and must neither fail nor be cancelled while the server runs."""
    task = asyncio.create_task(work, name=name)
    _kept.add(task)
    task.add_done_callback(_note)
    return task


def let_go() -> None:
    """Kept tasks may end now, as they do with their loop."""
    _kept.clear()


def _note(task: "asyncio.Task[None]") -> None:
    why = how_failed(task)
    if task in _kept and why:
        _lost.append(why)
    _kept.discard(task)


def how_failed(task: "asyncio.Task[Any]") -> str | None:
    """What became of a task that has ended; None if it has returned."""
    if task.cancelled():
        return f"the task {task.get_name()} was cancelled"
    if error := task.exception():
        return f"the task {task.get_name()} has failed: {type(error).__name__}: {error}"
    return None
