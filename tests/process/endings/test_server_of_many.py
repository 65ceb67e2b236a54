"""A server of several processes replaces an engine, an HTTP process or a process that decodes, whatever ends in it."""

import os
import signal
from collections.abc import Iterator

import pytest

from model.child_process import children_of
from service.watching.exits import EXIT_LOST
from tests.process.endings.ending import (
    HANG_AFTER_S,
    REPLACED,
    SERVER_OF_MANY,
    STATS,
    Ending,
    Part,
    Servers,
    named,
    servers,
)
from tests.process.endings.load import Load
from tests.process.server import command_of
from tests.waiting import until

pytestmark = pytest.mark.slow

HTTP, ENGINE, DECODES = "http_process", "engine_process", "images.worker"
COMMON: set[Part] = {
    ("task", "main"),
    *(("thread", name) for name in ("MainThread", "channel", "log", "watchdog")),
}
PARTS: dict[str, set[Part]] = {
    HTTP: COMMON
    | {("task", "shared cache"), STATS}
    | {("thread", name) for name in ("decode", "header", "helper", "starter", "traces")},
    ENGINE: COMMON | {("thread", "engine-0"), ("thread", "forward")},
}
# It waits for the one message that an engine gets, which ends it.
NOT_ENDED = {ENGINE: {("thread", "channel")}, HTTP: {STATS}}


def losses() -> list[tuple[str, Part]]:
    """Evenly mixed: an HTTP process that has died soon is started later, and the more often it has, the later."""
    ended = {module: sorted(parts - NOT_ENDED[module]) for module, parts in PARTS.items()}
    placed = [
        ((place + 0.5) / len(parts), module, part)
        for module, parts in ended.items()
        for place, part in enumerate(parts)
    ]
    return [(module, part) for _, module, part in sorted(placed)]


@pytest.fixture(scope="module")
def of_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("endings"), *SERVER_OF_MANY) as made:
        yield made


def is_whole(server: Ending) -> bool:
    return len(server.http_processes) == 2 and len(server.engines) == 1 and server.is_ready()


@pytest.mark.parametrize("module", PARTS)
def test_these_are_its_parts(of_many: Servers, module: str) -> None:
    with of_many.loaded() as (server, _):
        for pid in server.children(module):
            server.check_parts(pid, PARTS[module] - {STATS})


@pytest.mark.parametrize(
    ("module", "part"), losses(), ids=lambda given: given if isinstance(given, str) else " ".join(given)
)
def test_a_process_that_has_lost_a_part_is_replaced(of_many: Servers, module: str, part: Part) -> None:
    with of_many.loaded() as (server, load):
        lose_part(server, module, part, load)
        load.goes_on()


def lose_part(server: Ending, module: str, part: Part, load: Load) -> None:
    """Ends a part of the first process of a kind, and waits for what follows."""
    said, pid = len(server.log), server.children(module)[0]
    until(lambda: part in server.parts(pid))
    if part in REPLACED:
        server.replaces_in_place(pid, part, load)
        return
    server.end_part(pid, part, lambda: pid not in server.children(module), load)
    until(lambda: named(part) in server.log[said:])
    until(lambda: f"(pid {pid}) died: it ended with" in server.log[said:])
    until(lambda: is_whole(server))


@pytest.mark.parametrize("module", [ENGINE, HTTP, DECODES])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_is_replaced(of_many: Servers, module: str, number: int) -> None:
    with of_many.loaded() as (server, load):
        said = len(server.log)
        parents = server.http_processes if module == DECODES else [server.process.pid]

        def running() -> list[int]:
            return [child for pid in parents for child in children_of(pid) if module in command_of(child)]

        until(running)
        pid = running()[0]
        os.kill(pid, number)
        until(lambda: pid not in running() and running() and is_whole(server))
        until(lambda: "ended with signal SIGKILL" in server.log[said:])
        load.goes_on()


def test_an_http_process_whose_event_loop_is_held_is_replaced_and_says_where(of_many: Servers) -> None:
    with of_many.loaded() as (server, load):
        said, pid = len(server.log), server.http_processes[0]
        server.tell(pid, "hold", waits=False)
        until(lambda: f"(pid {pid}) died: it ended with status {EXIT_LOST}" in server.log[said:])
        until(lambda: is_whole(server))
        assert f"the event loop has been held for {HANG_AFTER_S} s" in server.log[said:]
        assert "threading.Event().wait()" in server.log[said:]
        load.goes_on()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_its_parent_it_ends(of_many: Servers, number: int) -> None:
    with of_many.loaded() as (server, _):
        children = server.children()
        server.process.send_signal(number)
        assert server.wait() == -signal.SIGKILL
        until(lambda: not any(command_of(pid) for pid in children))
        if number == signal.SIGSTOP:
            assert f"the parent process has said nothing for {HANG_AFTER_S} s, so the server ends" in server.log
