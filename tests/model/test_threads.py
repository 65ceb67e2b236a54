import ctypes
import gc
import threading
import weakref
from functools import partial
from weakref import WeakSet

import pytest

from model import threads
from model.threads import CallThreads, ThreadPool
from tests.service.running import PATIENCE_S, until


class Ended(BaseException):
    pass


@pytest.fixture(autouse=True)
def none_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_kept", set())
    monkeypatch.setattr(threads, "_pools", WeakSet())


def end(thread: threading.Thread) -> None:
    """What no thread does to another, except in tests."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Ended))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_kept_thread_that_ends_is_lost_until_it_is_let_go() -> None:
    over = threading.Event()
    thread = threads.keep(over.wait, "waits")
    assert thread in threads.kept()
    assert "waits" not in threads.lost()
    over.set()
    until(lambda: "waits" in threads.lost())
    threads.let_go(thread)
    assert "waits" not in threads.lost()


@pytest.mark.parametrize("count", [1, 3])
def test_a_thread_of_a_pool_that_ends_is_lost_though_the_pool_goes_on(count: int) -> None:
    pool = ThreadPool(count, "few")
    until(lambda: len(pool.members) == count)
    victim = pool.members[0]

    def ended() -> bool:
        # One that is at work gives it to whom it works for.
        end(victim)
        pool.submit(int)
        # A second one would meet it while it reports the first.
        victim.join(1.0)
        return not victim.is_alive()

    # It wakes for work, and the work that it has taken is never done.
    until(ended)
    assert threads.lost() == [victim.name]
    pool.shutdown(wait=False, cancel_futures=True)
    assert threads.lost() == []


def test_a_pool_runs_all_its_threads_from_the_start_and_they_end_with_it() -> None:
    pool = ThreadPool(2, "both")
    until(lambda: len(pool.members) == 2)
    members = list(pool.members)
    assert {thread.name for thread in members} == {"both_0", "both_1"} <= {each.name for each in threads.kept()}
    pool.shutdown()
    assert not any(thread.is_alive() for thread in members)
    assert not set(members) & set(threads.kept())


def test_a_pool_that_nobody_has_is_not_lost() -> None:
    pool = ThreadPool(1, "forgotten")
    members, known = pool.members, weakref.ref(pool)
    until(lambda: members)
    (thread,) = members
    del pool
    gc.collect()
    thread.join(PATIENCE_S)
    assert known() is None
    assert threads.lost() == []


def test_call_threads_take_calls_in_their_order_and_end_with_what_they_are_at() -> None:
    taken: list[int] = []
    begun, go_on = threading.Event(), threading.Event()
    calling = CallThreads(1, "one")
    (thread,) = threads.kept()
    assert thread.name == "one_0"
    for number in range(3):
        calling.call(partial(taken.append, number))
    until(lambda: taken == [0, 1, 2])

    calling.call(begun.set)
    calling.call(partial(go_on.wait, PATIENCE_S))
    calling.call(partial(taken.append, 3))
    assert begun.wait(PATIENCE_S)
    calling.close()
    go_on.set()
    thread.join(PATIENCE_S)
    calling.close()

    assert not thread.is_alive()
    assert taken == [0, 1, 2]
    assert threads.lost() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_thread_that_ends_is_lost() -> None:
    calling = CallThreads(1, "one")
    (victim,) = threads.kept()
    calling.call(lambda: 1 // 0)
    victim.join(PATIENCE_S)
    assert not victim.is_alive()
    assert threads.lost() == ["one_0"]
    calling.close()
    assert threads.lost() == []


def test_call_threads_that_nobody_has_end_and_keep_no_call() -> None:
    class Held:
        pass

    held = Held()
    known = weakref.ref(held)
    calling = CallThreads(2, "two")
    members = threads.kept()
    calling.call(partial(isinstance, held, Held))
    del held
    until(lambda: known() is None)
    del calling
    for thread in members:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in members)
    assert threads.lost() == []


def test_call_threads_that_the_system_has_no_room_for_leave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = threading.Thread.start
    begun: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        CallThreads(3, "three")
    for thread in begun:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in begun)
    assert threads.lost() == []


def test_threads_that_a_library_starts_are_kept_under_the_name_given() -> None:
    over = threading.Event()
    with threads.keeping("theirs") as kept:
        threading.Thread(target=over.wait, daemon=True).start()
    assert [thread.name for thread in kept] == ["theirs"]
    over.set()
    until(lambda: "theirs" in threads.lost())
    threads.let_go(*kept)
    assert threads.lost() == []


def test_a_passing_thread_is_never_lost() -> None:
    threads.passing(lambda: None, "short").join(PATIENCE_S)
    assert threads.lost() == []
