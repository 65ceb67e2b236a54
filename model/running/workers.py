"""Threads that compute side by side, each on its own with a single thread of PyTorch's.

Two that never wait for one another waste less than two that share every product. Knows nothing of packs or encoders.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """A fixed number of threads, for one caller at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="forward")
        threads, all_here = torch.get_num_threads(), threading.Barrier(count)
        list(self._pool.map(_compute_alone, [all_here] * count))
        # What a thread sets is also what PyTorch gives to threads that come later, and they are to have what they had.
        torch.set_num_threads(threads)

    def each(self, do: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """What comes of the tasks, in order. The first exception is raised once all have ended."""
        futures = [self._pool.submit(do, task) for task in tasks]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]


def _compute_alone(all_here: threading.Barrier) -> None:
    torch.set_num_threads(1)
    # Asked once so that it is settled for this thread, whatever is set in others later.
    assert torch.get_num_threads() == 1
    all_here.wait()
