"""What a process keeps of memory that is no longer used: the allocator's blocks, and objects that await collection."""

import ctypes
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Of glibc's malloc.h.
_M_ARENA_MAX = -8

# Net allocations before the youngest objects are collected; Python's default is 700. Every tenth time older ones are
# collected too, as by default. Collections walk all queued images again and again: with 10,000 in the queue an image
# cost 2.1 to 2.6 times what it costs with 300, and 1.0 to 1.2 times with this (`python -m loadtest.bench scale`).
_YOUNG_ALLOCATIONS = 10_000
# Giving back takes 15 ms of a process of some hundred megabytes, and the next pack some more to take its memory again.
_RETURN_EVERY_S = 60.0


def give_memory_back() -> None:
    """Gives all of it back to the system, in some hundredths of a second for a gigabyte. Only glibc can do that."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class MemoryReturns:
    """Gives memory back now and then, for threads that work on and on.

    Blocks of many sizes that were freed leave holes between those in use, and the allocator keeps them: an engine of
    packlight-tiny that runs mixed packs comes to 750 MB and uses 300 of them.
    """

    def __init__(self, *, every_s: float = _RETURN_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._returned_s = clock()

    def work_done(self) -> None:
        """Called whenever a piece of work is done."""
        now_s = self._clock()
        if now_s - self._returned_s > self._every_s:
            self._returned_s = now_s
            give_memory_back()


def limit_arenas(cores: int) -> None:
    """Has glibc allocate from one arena a core, at least two, where by default there are eight. To be called before
    threads start; `MALLOC_ARENA_MAX` in the environment stands.

    An arena keeps what its largest pictures and packs took, and `malloc_trim` gives only parts of it back. The threads
    of a reloaded model take other arenas than those before: reload after reload they filled one after another.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, max(2, cores))


@contextmanager
def starting(cores: int) -> Iterator[None]:
    """Collects no garbage meanwhile, and exempts from later collections all that is there at the end.

    Nearly all that a start makes stays. Walking it again and again took a tenth of the start. cores: as in
    `limit_arenas`.
    """
    limit_arenas(cores)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def settle() -> None:
    """Exempts all objects made until now from collection, and gives back what the start is done with.

    Walking those objects held an event loop for 110 ms at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_ALLOCATIONS, 10, 10)
    give_memory_back()


def settle_again() -> None:
    """The same once much was let go of that was exempt."""
    gc.unfreeze()
    settle()
