"""Servers whose threads, tasks and processes end as a test says."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

from model.child_process import children_of
from tests.process.endings.load import Load, quiet_of, under_load
from tests.process.server import REAL, SMALL_PACKS, Server
from tests.waiting import PATIENCE_S, until

HOOKS = Path(__file__).parents[1] / "programs" / "hooks"
# A stopped parent, and an HTTP process that is silent, are given up after that.
HANG_AFTER_S = 3
SERVER_OF_ONE = ("--engine", "thread", "--decode-threads", "2")
SERVER_OF_MANY = ("--http-workers", "2", "--decode-threads", "2")

Part = tuple[str, str]
"""`thread` or `task`, and its name."""

# Exists while somebody listens.
STATS = ("task", "stats")
# What is replaced inside of its process, and by the word of the log that says so.
REPLACED = {("task", "shared cache"): "another takes its place", STATS: "listeners of /stats are let go"}

# This one has to start a process meanwhile.
_TOLD_AGAIN_S = {("thread", "starter"): 3.0}


class Ending(Server):
    """A server whose processes do as a test says."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        super().__init__(
            REAL, "--hang-after-s", str(HANG_AFTER_S), "--tracing-endpoint", "http://127.0.0.1:1",
            "--tracing-sample-ratio", "1", "--cache-url", "redis://127.0.0.1:1", "--cache-bytes", "1", *SMALL_PACKS,
            *options,
            TEST_ENDINGS=str(folder), PYTHONPATH=f"{HOOKS}:{os.environ.get('PYTHONPATH', '')}",
            # A process that ends tries to send its last traces for two seconds, unless it may try no second time.
            OTEL_BSP_SCHEDULE_DELAY="100", OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
        )  # fmt: skip

    def tell(self, pid: int, kind: str, name: str = "", *, waits: bool = True) -> Any:
        self._answer(pid).unlink(missing_ok=True)
        (self._folder / f"{pid}.command").write_text(json.dumps([kind, name]))
        os.kill(pid, signal.SIGUSR2)
        return self._await_answer(pid) if waits else None

    def _answer(self, pid: int) -> Path:
        return self._folder / f"{pid}.answer"

    def _await_answer(self, pid: int, done: Callable[[], object] = lambda: False) -> Any:
        """None if it is done before there is one."""
        answer = self._answer(pid)
        until(lambda: answer.exists() or done())
        return json.loads(answer.read_text()) if answer.exists() else None

    def parts(self, pid: int) -> set[Part]:
        """The threads of a process, those of a pool as one, and its tasks but those of requests."""
        listed = self.tell(pid, "list")
        named = {("thread", name.partition("_")[0]) for name, _ in listed["threads"]}
        return named | {("task", name) for name in listed["tasks"] if not name.startswith(("Task-", "hear "))}

    def check_parts(self, pid: int, parts: set[Part]) -> None:
        """There are these and no others, and all threads are named, and watched unless they are the main one."""
        # Some are started when they are needed.
        until(lambda: parts <= self.parts(pid))
        assert self.parts(pid) - {STATS} == parts - {STATS}
        listed = self.tell(pid, "list")
        assert {name for name, kept in listed["threads"] if not kept} <= {"MainThread"}
        assert not {name for name, _ in listed["threads"] if name.startswith(("Thread-", "ThreadPool"))}

    def end_part(self, pid: int, part: Part, done: Callable[[], object], load: Load) -> None:
        """Until it is done. A thread that is at work when it is told gives what it is told to whom it works for. So it
        is told again, and from the third time on while nobody asks for anything: it ends with the next request."""
        for times in count():
            if done():
                return
            with suppress(ProcessLookupError), load.paused() if times >= 2 else nullcontext():
                self.tell(pid, *part, waits=False)
                if times >= 2:
                    self._await_answer(pid, done)
            if part[1] == "starter":
                # It works when a process that decodes images is to be started, and at no other time.
                for child in children_of(pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
            with suppress(AssertionError):
                until(done, patience_s=_TOLD_AGAIN_S.get(part, PATIENCE_S if part[0] == "task" else 0.5))

    def replaces_in_place(self, pid: int, part: Part, load: Load) -> None:
        """Ends a part that takes nothing with it, and waits until the log says that another one is there."""
        said = len(self.log)
        self.end_part(pid, part, lambda: REPLACED[part] in self.log[said:], load)


class Servers:
    """Servers with the same options, one at a time: each test takes the one that the test before has left whole."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        self._server: Ending | None = None
        # Of the first, which all others have to equal.
        self._quiet: dict[int, str] | None = None

    @contextmanager
    def loaded(self) -> Iterator[tuple[Ending, Load]]:
        """A server that clients ask without end. Their answers are checked."""
        server = self._whole()
        self._quiet = self._quiet or quiet_of(server)
        try:
            with under_load(server, self._quiet) as load:
                yield server, load
        except BaseException:
            self.close()
            raise

    def _whole(self) -> Ending:
        if self._server is None or self._server.process.poll() is not None:
            self.close()
            self._server = Ending(self._folder, *self._options)
            self._server.start()
        return self._server

    def close(self) -> None:
        if self._server:
            self._server.close()
        self._server = None


@contextmanager
def servers(folder: Path, *options: str) -> Iterator[Servers]:
    made = Servers(folder, *options)
    try:
        yield made
    finally:
        made.close()


def named(part: Part) -> str:
    """What the log says of it."""
    if part == ("thread", "MainThread"):
        return "nterrupt"
    if part == ("task", "main"):
        return "main task"
    return "the engine thread has died" if part[1].startswith("engine") else part[1]
