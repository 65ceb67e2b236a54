"""`packlight serve` where the system allows few file descriptors."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.process.server import Server, running
from tests.service.running import read_answer
from tests.waiting import until

LIMIT, CLIENTS = 64, 100
LIMITED = [
    "-c",
    "import resource, sys; from service.__main__ import main;"
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT})); sys.exit(main())",
    "serve",
]
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"


def connect_and_ask(server: Server) -> socket.socket:
    connection = server.connect()
    connection.sendall(MODELS)
    return connection


def test_a_connection_that_finds_no_descriptor_is_told_so_and_so_is_the_log() -> None:
    with running("--engine", "thread", program=LIMITED) as server:
        assert "ulimit -n" in server.log
        assert "max_connections" in server.log

        def visit(connection: socket.socket) -> int:
            answer, body = read_answer(connection)
            assert answer.status == 200 or b"ulimit -n" in body
            return answer.status

        with ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
            connections = list(pool.map(lambda _: connect_and_ask(server), range(CLIENTS)))
            for connection in connections:
                stack.enter_context(connection)
            statuses = list(pool.map(visit, connections))
            # Those that were answered keep their connections, and probes are answered all the same.
            with server.connect() as probe:
                probe.sendall(LIVEZ)
                assert read_answer(probe)[0].status == 200
        assert set(statuses) == {200, 503}
        assert statuses.count(200) > 10
        assert "connections are refused" in server.log
        until(server.is_ready)
