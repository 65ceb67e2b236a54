"""A server of several processes ends with each part of its parent."""

from collections.abc import Iterator

import pytest

from tests.process.endings.ending import SERVER_OF_MANY, Part, Servers, named, servers
from tests.process.server import command_of
from tests.waiting import until

pytestmark = pytest.mark.slow

PARTS: set[Part] = {
    *(("task", name) for name in ("heartbeat", "keep engine-0", "keep http-0", "keep http-1", "main", "watch")),
    *(("thread", name) for name in ("MainThread", "log")),
}


HTTP_KEEPERS = [("task", "keep http-0"), ("task", "keep http-1")]


@pytest.fixture(scope="module")
def of_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("endings"), *SERVER_OF_MANY) as made:
        yield made


def test_these_are_its_parts(of_many: Servers) -> None:
    with of_many.loaded() as (server, _):
        server.check_parts(server.process.pid, PARTS)


@pytest.mark.parametrize("part", HTTP_KEEPERS, ids=lambda part: part[1])
def test_a_server_ends_with_what_keeps_one_of_its_http_processes(of_many: Servers, part: Part) -> None:
    check_end(of_many, part)


@pytest.fixture(scope="module")
def of_few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """With one HTTP process, because the others would start for nothing."""
    with servers(tmp_path_factory.mktemp("endings"), "--http-workers", "1", "--decode-threads", "2") as made:
        yield made


@pytest.mark.parametrize("part", sorted(PARTS - {*HTTP_KEEPERS}), ids=lambda part: part[1])
def test_a_server_outlives_no_other_part_of_its_parent(of_few: Servers, part: Part) -> None:
    check_end(of_few, part)


def check_end(of_some: Servers, part: Part) -> None:
    with of_some.loaded() as (server, load):
        children = server.children()
        server.end_part(server.process.pid, part, lambda: server.process.poll() is not None, load)
        assert server.wait()
        assert named(part) in server.log, server.log[-2000:]
        until(lambda: not any(command_of(pid) for pid in children))
