"""Each thread, task and process of a server is ended in turn, under load: it is replaced, or the server ends, and why
is in the log. What there is to end is what a running server lists."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.watching.watchdog import EXIT_LOST
from tests import pictures
from tests.process.server import REAL, Server, command_of
from tests.service.running import PATIENCE_S, until

# Whole servers, many of them in turn.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PHOTOGRAPH = pictures.photograph_file("rocket.jpg")
TIFF = pictures.save(pictures.picture(48, 64), "TIFF")
HOOKS = Path(__file__).parent / "programs" / "hooks"
# A stopped parent, and an HTTP process that is silent, are given up after that.
HANG_AFTER_S = 3
THREAD, PROCESSES = "thread", "process"


class Load:
    """Clients that ask without pause for pictures and metrics, and keep what they get."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._over = threading.Event()
        self.vectors: list[tuple[int, str]] = []
        self.statuses: set[int] = set()
        self.hanging: list[str] = []
        asking = [self._photograph, self._photograph, self._tiff, self._metrics]
        self._clients = [threading.Thread(target=self._run, args=(ask,)) for ask in asking]
        for client in self._clients:
            client.start()

    def _run(self, ask: Callable[[httpx.Client, int], None]) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            number = 0
            while not self._over.is_set():
                number += 1
                try:
                    ask(client, 16 + number % 5)
                except httpx.TimeoutException as error:
                    self.hanging.append(repr(error))
                except httpx.TransportError:
                    self._over.wait(0.01)

    def _photograph(self, client: httpx.Client, tokens: int) -> None:
        self._embed(client, PHOTOGRAPH, tokens)

    def _tiff(self, client: httpx.Client, tokens: int) -> None:
        # On new connections, so that all HTTP processes decode: one that is idle is missed when it is to be used.
        client.headers["Connection"] = "close"
        self._embed(client, TIFF, tokens + 100)

    def _embed(self, client: httpx.Client, image: bytes, tokens: int) -> None:
        parameters = {"max_tokens": str(tokens % 100), "encoding": "base64"}
        answer = client.post("/embed", content=image, params=parameters, headers={"Content-Type": "image/*"})
        self.statuses.add(answer.status_code)
        if answer.status_code == 200:
            self.vectors.append((tokens, answer.json()["data"][0]["embedding"]))

    def _metrics(self, client: httpx.Client, tokens: int) -> None:
        client.get("/metrics")

    def stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    @property
    def answers(self) -> int:
        return len(self.vectors)


class Ending(Server):
    """A server whose processes do as a test says."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        super().__init__(
            REAL, "--hang-after-s", str(HANG_AFTER_S), "--tracing-endpoint", "http://127.0.0.1:1",
            "--tracing-sample-ratio", "1", "--cache-url", "redis://127.0.0.1:1", "--cache-bytes", "1", *options,
            TEST_ENDINGS=str(folder), PYTHONPATH=f"{HOOKS}:{os.environ.get('PYTHONPATH', '')}",
            OTEL_BSP_SCHEDULE_DELAY="100",
        )  # fmt: skip

    def tell(self, pid: int, kind: str, name: str = "", *, waits: bool = True) -> Any:
        answer = self._folder / f"{pid}.answer"
        answer.unlink(missing_ok=True)
        (self._folder / f"{pid}.command").write_text(json.dumps([kind, name]))
        os.kill(pid, signal.SIGUSR2)
        if waits:
            until(answer.exists)
            return json.loads(answer.read_text())
        return None

    def parts(self, pid: int) -> set[tuple[str, str]]:
        """The threads of a process, those of a pool as one, and its tasks but those of requests."""
        listed = self.tell(pid, "list")
        named = {("thread", name.partition("_")[0]) for name, _ in listed["threads"]}
        return named | {("task", name) for name in listed["tasks"] if not name.startswith(("Task-", "hear "))}


@contextmanager
def ending(folder: Path, *options: str) -> Iterator[Ending]:
    server = Ending(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.close()


def quiet_of(server: Server) -> dict[int, str]:
    def vector(image: bytes, tokens: int) -> str:
        return str(server.embed(image, max_tokens=tokens, encoding="base64").json()["data"][0]["embedding"])

    photographs = {tokens: vector(PHOTOGRAPH, tokens) for tokens in range(16, 21)}
    return photographs | {100 + tokens: vector(TIFF, tokens) for tokens in range(16, 21)}


def check_answers(load: Load, quiet: dict[int, str]) -> None:
    """None was wrong, none hangs, and faults of the server were said to be such."""
    load.stop()
    assert load.hanging == []
    # 422: the process that decoded a picture was ended, for which the picture may be to blame.
    assert load.statuses <= {200, 422, 500, 503}
    assert {(tokens, vector) for tokens, vector in load.vectors} <= set(quiet.items())


def end_part(server: Ending, pid: int, kind: str, name: str, done: Callable[[], object]) -> None:
    """Until it is done. A thread that is at work when it is told gives what it is told to whom it works for."""
    while not done():
        with suppress(ProcessLookupError):
            _end_part(server, pid, kind, name)
        with suppress(AssertionError):
            until(done, patience_s=PATIENCE_S if kind == "task" else 3)


def _end_part(server: Ending, pid: int, kind: str, name: str) -> None:
    server.tell(pid, kind, name, waits=False)
    if name == "starter":
        # It works when a process that decodes images is to be started, and at no other time.
        for child in children_of(pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in children_in(task)]


def children_in(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


# What is replaced inside of its process, and by the word of the log that says so.
REPLACED = {("task", "shared cache"): "another takes its place", ("task", "stats"): "listeners of /stats are let go"}
SERVER_OF_ONE = ("--engine", "thread", "--decode-threads", "2")
SERVER_OF_MANY = ("--http-workers", "2", "--decode-threads", "2")


@contextmanager
def listening(server: Server) -> Iterator[None]:
    """Follows /stats, until the stream or the server ends."""
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            with suppress(httpx.TransportError), server.http.stream("GET", "/stats") as stream:
                for _ in stream.iter_lines():
                    if over.is_set():
                        return

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()


@contextmanager
def under_load(server: Server) -> Iterator[Load]:
    """Answers are checked at the end."""
    quiet = quiet_of(server)
    with listening(server):
        load = Load(server.port)
        try:
            until(lambda: load.answers > 5)
            yield load
        finally:
            load.stop()
    check_answers(load, quiet)


def test_every_thread_is_named_and_watched_or_is_the_main_one(tmp_path: Path) -> None:
    for options in (SERVER_OF_ONE, SERVER_OF_MANY):
        with ending(tmp_path, *options) as server, under_load(server):
            for pid in [server.process.pid, *server.children()]:
                listed = server.tell(pid, "list")
                assert {name for name, kept in listed["threads"] if not kept} <= {"MainThread"}
                assert not {name for name, _ in listed["threads"] if name.startswith(("Thread-", "ThreadPool"))}


def parts_of_a_server_of_one(folder: Path) -> list[tuple[str, str]]:
    with ending(folder, *SERVER_OF_ONE) as server, under_load(server):
        # The task exists while somebody listens.
        until(lambda: ("task", "stats") in server.parts(server.process.pid))
        return sorted(server.parts(server.process.pid))


def test_a_server_of_one_process_outlives_no_part_that_ends(tmp_path: Path) -> None:
    for kind, name in parts_of_a_server_of_one(tmp_path):
        with ending(tmp_path, *SERVER_OF_ONE) as server, under_load(server) as load:
            pid = server.process.pid
            if (kind, name) in REPLACED:
                end_part(server, pid, kind, name, lambda: REPLACED[kind, name] in server.log)  # noqa: B023
                answers = load.answers
                until(lambda answers=answers: load.answers > answers + 5)  # type: ignore[misc]
                continue
            end_part(server, pid, kind, name, lambda: server.process.poll() is not None)
            status = server.wait()
            assert status == EXIT_LOST or (name == "MainThread" and status), name
            assert named(kind, name) in server.log, server.log[-2000:]


def named(kind: str, name: str) -> str:
    """What the log says of it."""
    if (kind, name) == ("thread", "MainThread"):
        return "nterrupt"
    if (kind, name) == ("task", "main"):
        return "main task"
    return "the engine thread has died" if name.startswith("engine") else name


@pytest.mark.parametrize("module", ["http_process", "engine_process"])
def test_a_process_that_has_lost_a_part_is_replaced(module: str, tmp_path: Path) -> None:
    with ending(tmp_path, *SERVER_OF_MANY) as server, under_load(server):
        parts = sorted(server.parts(server.children(module)[0]) - {("task", "stats")})
    if module == "engine_process":
        # It waits for the one message that an engine gets, which ends it.
        parts.remove(("thread", "channel"))
    # The more often a process has died soon, the later it is started again.
    for some in batched(parts, 3):
        with ending(tmp_path, *SERVER_OF_MANY) as server, under_load(server) as load:
            for kind, name in some:
                lose_part(server, module, kind, name)
                answers = load.answers
                until(lambda: load.answers > answers + 5)  # noqa: B023


def batched(parts: list[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(parts), size):
        yield parts[start : start + size]


def lose_part(server: Ending, module: str, kind: str, name: str) -> None:
    """Ends a part of the first process of a kind, and waits for what follows."""
    pids, said = server.children(module), len(server.log)
    pid = pids[0]
    until(lambda: (kind, name) in server.parts(pid))
    if (kind, name) in REPLACED:
        end_part(server, pid, kind, name, lambda: REPLACED[kind, name] in server.log[said:])
        return
    end_part(server, pid, kind, name, lambda: pid not in server.children(module))
    until(lambda: named(kind, name) in server.log[said:])
    until(lambda: f"(pid {pid}) died: it ended with" in server.log[said:])
    until(lambda: len(server.children(module)) == len(pids) and server.is_ready())


def test_a_server_outlives_no_part_of_its_parent(tmp_path: Path) -> None:
    with ending(tmp_path, *SERVER_OF_MANY) as server:
        parts = sorted(server.parts(server.process.pid))
    assert ("task", "keep http-1") in parts
    for kind, name in parts:
        with ending(tmp_path, *SERVER_OF_MANY) as server, under_load(server):
            children = server.children()
            end_part(server, server.process.pid, kind, name, lambda: server.process.poll() is not None)
            assert server.wait(), name
            assert named(kind, name) in server.log, server.log[-2000:]
            until(lambda: not any(command_of(pid) for pid in children))  # noqa: B023


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("module", ["http_process", "engine_process", "images.worker"])
def test_a_process_that_is_killed_or_stopped_is_replaced(module: str, number: int, tmp_path: Path) -> None:
    with ending(tmp_path, *SERVER_OF_MANY) as server, under_load(server) as load:
        parents = server.http_processes if module == "images.worker" else [server.process.pid]

        def running() -> list[int]:
            return [child for pid in parents for child in children_of(pid) if module in command_of(child)]

        until(running)
        pid = running()[0]
        os.kill(pid, number)
        until(lambda: pid not in running() and running() and server.is_ready())
        until(lambda: "ended with signal SIGKILL" in server.log)
        answers = load.answers
        until(lambda: load.answers > answers + 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_its_parent_a_server_ends(number: int, tmp_path: Path) -> None:
    with ending(tmp_path, *SERVER_OF_MANY) as server, under_load(server):
        children = server.children()
        server.process.send_signal(number)
        assert server.process.wait(60) == -signal.SIGKILL
        until(lambda: not any(command_of(pid) for pid in children))
        if number == signal.SIGSTOP:
            assert "the parent process has said nothing for 3 s, so the server ends" in server.log


@pytest.mark.parametrize("options", [SERVER_OF_ONE, SERVER_OF_MANY], ids=[THREAD, PROCESSES])
def test_a_process_whose_event_loop_is_held_ends_and_says_where(options: tuple[str, ...], tmp_path: Path) -> None:
    with ending(tmp_path, *options) as server, under_load(server):
        pid = [*server.http_processes, server.process.pid][0]
        server.tell(pid, "hold", waits=False)
        if options == SERVER_OF_ONE:
            assert server.wait() == EXIT_LOST
        else:
            until(lambda: f"(pid {pid}) died: it ended with status {EXIT_LOST}" in server.log)
            until(lambda: len(server.http_processes) == 2 and server.is_ready())
        assert "the event loop has been held for 3 s" in server.log
        assert "threading.Event().wait()" in server.log
