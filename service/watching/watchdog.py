"""What a process of a server does about parts of its own that have ended or hang: a thread looks twice a second.

Time is counted in looks, so that a pause of the whole process, as of a container that is frozen, counts for nothing.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from model import threads
from service import logs
from service.watching import tasks

# How long a process that must end may take over its last answers.
LAST_ANSWERS_S = 3.0

_LOOK_S = 0.5
# How long the log may take before the process ends without it.
_LOG_S = 1.0

_log = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""Says what is wrong, once in each look; None if nothing is."""

End = Callable[[], None]
"""Ends what cannot go on, and waits until that is so."""


class Silence:
    """How long something has not been heard of."""

    def __init__(self, sentence: str, patience_s: float) -> None:
        """sentence: said once the patience is over, with the seconds in place of `{}`."""
        self._sentence, self._patience_s = sentence, patience_s
        self._looks = 0

    def heard(self) -> None:
        self._looks = 0

    def look(self) -> str | None:
        self._looks += 1
        return self._sentence.format(f"{self._patience_s:g}") if self._looks * _LOOK_S > self._patience_s else None


def lasting(check: Check, patience_s: float) -> Check:
    """Says what is wrong once that has been so for all this time, and not at once after a pause of the process."""
    silence = Silence("", patience_s)

    def look() -> str | None:
        why = check()
        if why is None:
            silence.heard()
            return None
        return why if silence.look() is not None else None

    return look


class Watchdog:
    """Watches the kept threads and tasks, the event loop, and what else there is to check.

    fault: why the process is not live; None while it is. `/livez` says it.
    """

    def __init__(
        self,
        end: End,
        *,
        hang_after_s: float,
        checks: Sequence[tuple[Check, End]] = (),
        on_beat: Callable[[], object] = lambda: None,
    ) -> None:
        """end: what becomes of the process if a thread or a task has ended, or if its loop hangs. checks: others, each
        with what follows. on_beat: called by the loop as long as it runs."""
        self.fault: str | None = None
        self._end, self._on_beat = end, on_beat
        self._loop = Silence("the event loop has been held for {} s", hang_after_s)
        self._checks = [(_ended, end), *checks]
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop_thread: int | None = None

    def begin(self) -> None:
        """Called on the event loop."""
        self._loop_thread = threading.get_ident()
        self._thread = threads.keep(self._main, "watchdog")
        threading.excepthook = _log_end
        self._beat()

    def close(self) -> None:
        """Everything may end now."""
        self._over.set()
        if self._thread:
            threads.let_go(self._thread)

    def _beat(self) -> None:
        """On the loop, which watches the watchdog."""
        if self._over.is_set():
            return
        self._loop.heard()
        self._on_beat()
        if self._thread and not self._thread.is_alive():
            _in_passing(lambda: self._fail("the thread watchdog has ended", self._end), "last answers")
            return
        asyncio.get_running_loop().call_later(_LOOK_S, self._beat)

    def _main(self) -> None:
        while not self._over.wait(_LOOK_S):
            if held := self._loop.look():
                self._fail(f"{held}:\n{self._stack()}", self._end)
                return
            for check, end in self._checks:
                if why := check():
                    self._fail(why, end)
                    return

    def _stack(self) -> str:
        """Where the loop's thread is."""
        frame = sys._current_frames().get(self._loop_thread or 0)
        return "".join(traceback.format_stack(frame)).rstrip()

    def _fail(self, why: str, end: End) -> None:
        if self._over.is_set() or self.fault:
            return
        self.fault = why
        # Whoever reads the log may be what hangs.
        _in_passing(lambda: _say(why), "last words", wait_s=_LOG_S)
        end()


def _in_passing(do: Callable[[], object], name: str, *, wait_s: float = 0.0) -> None:
    """In a thread, waited for so long; here and now if the system has no room for one."""
    try:
        thread = threads.passing(do, name)
    except RuntimeError:
        do()
        return
    thread.join(wait_s)


def _say(why: str) -> None:
    _log.critical("this process must end: %s", why)
    logs.flush()


def _ended() -> str | None:
    if ended := tasks.lost():
        return ended[0]
    names = threads.lost()
    return f"the thread {names[0]} has ended" if names else None


def _log_end(args: threading.ExceptHookArgs) -> None:
    """The one of the interpreter writes past the log."""
    name = args.thread.name if args.thread else "unknown"
    error = args.exc_value or args.exc_type()
    _log.critical("the thread %s has failed", name, exc_info=(args.exc_type, error, args.exc_traceback))
