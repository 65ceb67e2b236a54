"""Threads that compute side by side, each with a single PyTorch thread.

Two threads that never wait for each other waste less than two that share every product. Knows nothing of packs or
encoders.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from model.threads import ThreadPool

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """A fixed number of threads, for one caller at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPool(count, "forward")
        threads, all_here = torch.get_num_threads(), threading.Barrier(count)
        list(self._pool.map(_compute_alone, [all_here] * count))
        # PyTorch gives later threads the number that any thread set last. They must get what they had before.
        torch.set_num_threads(threads)

    def each(self, do: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """The results of the tasks, in order. Raises the first exception after all tasks have ended."""
        futures = [self._pool.submit(do, task) for task in tasks]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]


class Pool:
    """As many workers as were ever needed at once, for one caller at a time. A single task runs in the caller's thread,
    with all of PyTorch's."""

    def __init__(self) -> None:
        self._workers: Workers | None = None

    def each(self, do: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """As `Workers.each`."""
        if len(tasks) == 1:
            return [do(tasks[0])]
        if self._workers is None or self._workers.count < len(tasks):
            self._workers = Workers(len(tasks))
        return self._workers.each(do, tasks)


def _compute_alone(all_here: threading.Barrier) -> None:
    torch.set_num_threads(1)
    # PyTorch fixes a thread's number when the thread first asks for it. Later changes by other threads do not count.
    torch.get_num_threads()
    all_here.wait()
