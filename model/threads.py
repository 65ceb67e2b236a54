"""Threads that live as long as what they serve, and the names of those that have ended all the same.

Every thread of a server is started here, so that none ends without a word: a watch asks `lost`. A pool of the standard
library never notices that one of its threads has ended, and what that thread had taken waits for ever.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from weakref import WeakSet

_lock = threading.Lock()
# As the interpreter's own list of threads, these are the process's.
_kept: set[threading.Thread] = set()
_pools: "WeakSet[ThreadPool]" = WeakSet()


def lost() -> list[str]:
    """Names of kept threads that have ended, although nobody let them go."""
    with _lock:
        threads = [*_kept, *(thread for pool in _pools for thread in pool.members)]
    return sorted(thread.name for thread in threads if not thread.is_alive())


def kept() -> list[threading.Thread]:
    """Those that are watched and run."""
    with _lock:
        threads = [*_kept, *(thread for pool in _pools for thread in pool.members)]
    return [thread for thread in threads if thread.is_alive()]


def keep(main: Callable[[], object], name: str) -> threading.Thread:
    """A running thread that must not end before `let_go`. Raises `RuntimeError` if the system has no room for it."""
    thread = threading.Thread(target=main, name=name, daemon=True)
    thread.start()
    with _lock:
        _kept.add(thread)
    return thread


def let_go(*threads: threading.Thread) -> None:
    """They may end now."""
    with _lock:
        _kept.difference_update(threads)


@contextmanager
def keeping(name: str) -> Iterator[list[threading.Thread]]:
    """Keeps the threads that a library starts meanwhile, under this name. The list has them afterwards."""
    before, found = set(threading.enumerate()), list[threading.Thread]()
    yield found
    found += set(threading.enumerate()) - before
    for thread in found:
        thread.name = name
    with _lock:
        _kept.update(found)


def passing(main: Callable[[], object], name: str) -> threading.Thread:
    """A running thread that ends with its work, for which the process does not wait. Raises as `keep`."""
    thread = threading.Thread(target=main, name=name, daemon=True)
    thread.start()
    return thread


class ThreadPool(ThreadPoolExecutor):
    """A pool whose threads all run, and are kept until `shutdown`, or until nobody has the pool.

    One that starts a thread for a request fails it if the system has no room. members: its threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Raises `RuntimeError` if the system has no room for the threads."""
        self.members: list[threading.Thread] = []
        # No method of this object: its threads would keep it.
        super().__init__(threads, name, _join, (self.members,))
        all_run = threading.Barrier(threads)
        try:
            for _ in range(threads):
                self.submit(all_run.wait)
        except RuntimeError:
            all_run.abort()
            raise
        with _lock:
            _pools.add(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with _lock:
            _pools.discard(self)
        super().shutdown(wait, cancel_futures=cancel_futures)


class CallThreads:
    """Threads that take calls one after the other. No call has a future, which a `ThreadPool` makes of it at several
    times the cost: it tells its outcome itself, and raises nothing.

    They end with `close`, or when nobody has the object any more.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Raises `RuntimeError` if the system has no room for the threads."""
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        members: list[threading.Thread] = []
        # Of no method of this object: its threads would keep it.
        self._end = weakref.finalize(self, _end_calls, self._calls, members)
        self._end.atexit = False
        try:
            for number in range(threads):
                members.append(keep(partial(_take_calls, self._calls), f"{name}_{number}"))
        except RuntimeError:
            self.close()
            raise

    def call(self, call: Callable[[], object]) -> None:
        """Has a thread call it, in the order in which calls come."""
        self._calls.put(call)

    def close(self) -> None:
        """What waits is dropped, and threads end with what they are at. Does not wait for that."""
        self._end()


def _take_calls(calls: "SimpleQueue[Callable[[], object] | None]") -> None:
    while (call := calls.get()) is not None:
        call()
        # It is kept by nobody while the thread waits for the next one.
        del call


def _end_calls(calls: "SimpleQueue[Callable[[], object] | None]", members: list[threading.Thread]) -> None:
    let_go(*members)
    with suppress(Empty):
        while True:
            calls.get_nowait()
    for _ in members:
        calls.put(None)


def _join(members: list[threading.Thread]) -> None:
    members.append(threading.current_thread())
