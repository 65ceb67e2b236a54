"""A server of one process ends with each of its parts but two."""

from collections.abc import Iterator

import pytest

from service.watching.exits import EXIT_LOST
from tests.process.endings.ending import REPLACED, SERVER_OF_ONE, Part, Servers, named, servers

pytestmark = pytest.mark.slow

PARTS: set[Part] = {
    *(("thread", name) for name in ("MainThread", "decode", "engine-0", "forward", "header", "helper", "log")),
    *(("thread", name) for name in ("starter", "traces", "watchdog")),
    *(("task", name) for name in ("main", "shared cache", "stats")),
}


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("endings"), *SERVER_OF_ONE) as made:
        yield made


def test_these_are_its_parts(of_one: Servers) -> None:
    assert REPLACED.keys() <= PARTS
    with of_one.loaded() as (server, _):
        server.check_parts(server.process.pid, PARTS)


@pytest.mark.parametrize("part", REPLACED, ids=lambda part: part[1])
def test_what_is_replaced_takes_nothing_with_it(of_one: Servers, part: Part) -> None:
    with of_one.loaded() as (server, load):
        server.replaces_in_place(server.process.pid, part, load)
        load.goes_on()


@pytest.mark.parametrize("part", sorted(PARTS - REPLACED.keys()), ids=lambda part: part[1])
def test_it_outlives_no_other_part(of_one: Servers, part: Part) -> None:
    with of_one.loaded() as (server, load):
        server.end_part(server.process.pid, part, lambda: server.process.poll() is not None, load)
        status = server.wait()
        assert status == EXIT_LOST or (part[1] == "MainThread" and status)
        assert named(part) in server.log, server.log[-2000:]


def test_if_its_event_loop_is_held_it_ends_and_says_where(of_one: Servers) -> None:
    with of_one.loaded() as (server, _):
        server.tell(server.process.pid, "hold", waits=False)
        assert server.wait() == EXIT_LOST
        assert "the event loop has been held for 3 s" in server.log
        assert "threading.Event().wait()" in server.log
