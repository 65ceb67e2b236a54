import asyncio
import logging
import threading
import time
from weakref import WeakSet

import pytest

from model import threads
from service.watching import tasks, watchdog
from service.watching.watchdog import Silence, Watchdog, lasting
from tests.service.running import PATIENCE_S, until


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_LOOK_S", 0.01)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(threads, "_kept", set())
    monkeypatch.setattr(threads, "_pools", WeakSet())


class Watched:
    """A loop in a thread, and what its watchdog did."""

    def __init__(self, *checks: watchdog.Check, hang_after_s: float = 100.0) -> None:
        self.ended = threading.Event()
        self.beats = 0
        self.other = threading.Event()
        self.dog = Watchdog(
            self.ended.set, hang_after_s=hang_after_s, checks=[(check, self.other.set) for check in checks],
            on_beat=self._beat,
        )  # fmt: skip
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _beat(self) -> None:
        self.beats += 1

    def _run(self) -> None:
        self.loop.call_soon(self.dog.begin)
        self.loop.run_forever()
        self.loop.close()

    def __enter__(self) -> "Watched":
        until(lambda: self.beats)
        return self

    def __exit__(self, *_: object) -> None:
        self.dog.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)


def test_a_process_of_which_all_lives_goes_on() -> None:
    with Watched(lambda: None) as watched:
        beats = watched.beats
        until(lambda: watched.beats > beats + 10)
        assert watched.dog.fault is None
        assert not watched.ended.is_set()


def test_a_thread_that_ends_ends_the_process_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with Watched() as watched:
        thread = threads.keep(lambda: None, "helpless")
        assert watched.ended.wait(PATIENCE_S)
        threads.let_go(thread)
    assert watched.dog.fault == "the thread helpless has ended"
    assert ("service.watching.watchdog", logging.CRITICAL, f"this process must end: {watched.dog.fault}") in (
        caplog.record_tuples
    )


def test_a_task_that_is_cancelled_ends_the_process() -> None:
    async def cancelled() -> None:
        tasks.keep(asyncio.Event().wait(), "hopeless").cancel()  # type: ignore[arg-type]

    with Watched() as watched:
        asyncio.run_coroutine_threadsafe(cancelled(), watched.loop)
        assert watched.ended.wait(PATIENCE_S)
    assert watched.dog.fault == "the task hopeless was cancelled"


def test_a_loop_that_is_held_ends_the_process_and_the_log_says_where(caplog: pytest.LogCaptureFixture) -> None:
    free = threading.Event()

    def hold() -> None:
        free.wait(PATIENCE_S)

    with Watched(hang_after_s=0.1) as watched:
        watched.loop.call_soon_threadsafe(hold)
        assert watched.ended.wait(PATIENCE_S)
        free.set()
    assert "the event loop has been held for 0.1 s" in caplog.text
    assert "free.wait(PATIENCE_S)" in caplog.text


def test_a_check_that_fails_has_its_own_end() -> None:
    with Watched(lambda: None, lambda: "the parent is gone") as watched:
        assert watched.other.wait(PATIENCE_S)
    assert watched.dog.fault == "the parent is gone"
    assert not watched.ended.is_set()


def test_the_loop_watches_the_watchdog() -> None:
    def broken() -> str | None:
        raise SystemExit

    with Watched(broken) as watched:
        assert watched.ended.wait(PATIENCE_S)
        assert watched.dog.fault == "the thread watchdog has ended"


def test_a_process_that_cannot_write_its_log_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_LOG_S", 0.01)
    free = threading.Event()
    monkeypatch.setattr(watchdog._log, "critical", lambda *_: free.wait(PATIENCE_S))
    with Watched(lambda: "no") as watched:
        assert watched.other.wait(PATIENCE_S)
        free.set()


@pytest.mark.parametrize("wrong", ["no", SystemExit], ids=["check", "watchdog"])
def test_a_process_without_room_for_a_thread_ends_all_the_same(
    wrong: str | type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    def check() -> str:
        if isinstance(wrong, str):
            return wrong
        raise wrong

    monkeypatch.setattr(threads, "passing", no_room)
    with Watched(check) as watched:
        assert (watched.other if wrong == "no" else watched.ended).wait(PATIENCE_S)
    assert f"this process must end: {watched.dog.fault}" in caplog.text


def test_what_is_wrong_by_the_clock_alone_is_not_wrong_until_it_lasts() -> None:
    wrong: list[str | None] = [None, "late", "late", None, "late", "late", "late"]
    check = lasting(iter(wrong).__next__, 0.02)
    assert [check() for _ in wrong] == [None, None, None, None, None, None, "late"]


def test_silence_is_counted_in_looks_so_that_a_pause_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = Silence("nothing for {} s", 0.02)
    assert [silence.look(), silence.look()] == [None, None]
    assert silence.look() == "nothing for 0.02 s"
    silence.heard()
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    assert silence.look() is None
