"""Connections and the heads of requests: a real server gets what no client should send, and goes on serving."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from model.running.runner import Runner
from service.http.paths import HEALTH_PATHS
from service.http.protocol.reserve import PLACES
from service.limits import ModelFacts
from tests import pictures
from tests.service.running import PATIENCE_S, Running, raw_request, read_answer, serving, until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client sends logs an error."""
    yield
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@pytest.fixture
def hasty(server: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr("service.http.protocol.connection._HEAD_S", 0.1)
    return server


def everything(connection: socket.socket) -> bytes:
    """Everything that the server sends before it closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def said(server: Running, *pieces: bytes) -> bytes:
    with server.connect() as connection:
        for piece in pieces:
            connection.sendall(piece)
        return everything(connection)


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of an error in our shape that closes the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower(), answer
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message", "param", "index"}
    assert error["message"]
    return int(head.split()[1]), error["code"]


# Not HTTP


NOISE = {
    "empty line and words": b"\r\nhello there\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http 9": b"GET /livez HTTP/9.9\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(189),
    "zeros": bytes(100),
    "a path with a zero byte": b"GET /li\0vez HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path beyond ascii": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "a header with a zero byte": b"GET /livez HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "a header without a colon": b"GET /livez HTTP/1.1\r\nHost\r\n\r\n",
    "a space before a colon": b"GET /livez HTTP/1.1\r\nHost : a\r\n\r\n",
    "bare line feeds in a header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\n b\r\n\r\n",
    "connect": b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a length below zero": raw_request(b"", "Content-Length: -1"),
    "a length in words": raw_request(b"", "Content-Length: many"),
    "a length with a sign": raw_request(b"", "Content-Length: +5"),
    "an empty length": raw_request(b"", "Content-Length:"),
    "a length beyond 64 bits": raw_request(b"", f"Content-Length: {2**64}"),
    "a length of 5000 digits": raw_request(b"", "Content-Length: " + "9" * 5000),
    "two lengths": raw_request(b"", "Content-Length: 5", "Content-Length: 6"),
    "a list of lengths": raw_request(b"", "Content-Length: 5, 5"),
    "a length and an encoding": raw_request(
        b"5\r\nabcde\r\n0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"
    ),
    "an encoding nobody knows": raw_request(b"", "Transfer-Encoding: gzip"),
    "chunked twice over": raw_request(b"", "Transfer-Encoding: chunked, chunked, identity"),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_bytes_that_are_no_request_get_400_in_our_shape(server: Running, noise: bytes) -> None:
    assert refusal(said(server, noise)) == (400, "bad_request")


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_bytes_that_are_no_request_get_400_when_they_come_one_by_one(server: Running, noise: bytes) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for byte in noise[:600]:
                connection.sendall(bytes([byte]))
        except OSError:
            return  # it was answered and closed before its end
        if len(noise) <= 600:
            assert b" 400 " in everything(connection)[:20]


def test_bytes_that_are_no_request_count_as_a_refusal(server: Running) -> None:
    before = server.metric("rejected_total", reason="bad_request")
    said(server, b"hello\r\n\r\n")
    assert server.metric("rejected_total", reason="bad_request") == before + 1


CHUNKS = {
    "a size in words": b"five\r\nabcde\r\n",
    "a size beyond 64 bits": b"fffffffffffffffff\r\n",
    "a size below zero": b"-1\r\n",
    "no line end behind a chunk": b"5\r\nabcdefgh\r\n",
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_an_invalid_chunk_ends_the_connection_and_gives_everything_back(server: Running, chunk: bytes) -> None:
    answer = said(server, raw_request(b"5\r\nabcde\r\n" + chunk, "Transfer-Encoding: chunked"))
    assert refusal(answer) == (400, "bad_request")
    until(server.is_empty)


# Strange requests


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /livez HTTP/1.0", 200),
        (b"GET /livez", 200),
        (b"GET http://elsewhere/livez HTTP/1.1", 200),
        (b"GET /livez?%zz=%&a=%ff%00 HTTP/1.1", 200),
        (b"GET /%00 HTTP/1.1", 404),
        (b"GET /%ff%fe HTTP/1.1", 404),
        (b"GET /%zz%2 HTTP/1.1", 404),
        (b"GET /../../etc/passwd HTTP/1.1", 404),
        (b"GET //livez HTTP/1.1", 404),
        (b"GET /livez/ HTTP/1.1", 404),
        (b"GET /livez%2f HTTP/1.1", 404),
        (b"HEAD /livez HTTP/1.1", 200),
        (b"HEAD /embed HTTP/1.1", 405),
        (b"TRACE /livez HTTP/1.1", 405),
        (b"OPTIONS /livez HTTP/1.1", 405),
        (b"DELETE /embed HTTP/1.1", 405),
    ],
)
def test_a_strange_but_valid_request_is_answered(server: Running, request_line: bytes, status: int) -> None:
    answer = said(server, request_line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert int(answer.split()[1]) == status, answer


@pytest.mark.parametrize(
    "query",
    [
        "max_tokens=%ff",
        "%ff=1",
        "max_tokens=%00",
        "max_tokens=%",
        "a&b&c",
        "max_tokens=1%0d%0aX-Header:1",
        "=",
        "\xe9=1",
    ],
)
def test_a_meaningless_query_is_refused(server: Running, query: str) -> None:
    request = raw_request(PNG, "Connection: close", path="/embed?Q").replace(b"?Q", b"?" + query.encode("latin-1"))
    answer = said(server, request)
    assert int(answer.split()[1]) in (400, 422)
    assert b"x-header" not in answer.lower().partition(b"\r\n\r\n")[0]


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    last = LIVEZ.replace(b"Host: a", b"Host: a\r\nConnection: close").replace(b"livez", b"readyz")
    answer = said(server, LIVEZ + raw_request(PNG) + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.index(b"alive") < answer.index(b"fingerprint") < answer.index(b'"ready"')


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize("count", [18, 5000])
def test_too_many_pipelined_requests_are_answered_up_to_the_limit_and_then_refused_with_429(
    server: Running, count: int
) -> None:
    answers = said(server, LIVEZ * count)
    assert statuses(answers) == [200] * 17 + [429]
    assert refusal(b"HTTP/1.1 " + answers.rpartition(b"HTTP/1.1 ")[2]) == (429, "overloaded")
    assert server.http.get("/livez").status_code == 200


def test_pipelined_requests_up_to_the_limit_are_all_answered(server: Running) -> None:
    last = LIVEZ.replace(b"Host: a", b"Host: a\r\nConnection: close")
    assert statuses(said(server, LIVEZ * 16 + last)) == [200] * 17


@pytest.mark.parametrize("first", [b"", LIVEZ], ids=["the first", "the second"])
def test_a_client_that_leaves_with_requests_behind_the_one_being_answered_stops_it(
    server: Running, first: bytes
) -> None:
    before = server.metric("images_total", outcome="abandoned")
    server.runner.hold()
    with server.connect() as connection:
        connection.sendall(first + raw_request(PNG) + LIVEZ)
        assert server.runner.entered.wait(PATIENCE_S)
    until(lambda: server.metric("images_total", outcome="abandoned") == before + 1)
    until(server.is_empty)
    server.runner.free.set()


@pytest.mark.parametrize(
    "broken",
    [
        b"hello there\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        raw_request(b"5\r\nabcdefgh\r\n", "Transfer-Encoding: chunked"),
    ],
    ids=["no request", "no host", "a broken body"],
)
def test_a_broken_request_behind_good_ones_is_refused_after_their_answers(server: Running, broken: bytes) -> None:
    assert statuses(said(server, LIVEZ + raw_request(PNG) + broken + LIVEZ)) == [200, 200, 400]


def test_a_late_request_behind_one_being_answered_is_refused_after_its_answer(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.sendall(raw_request(PNG) + LIVEZ[:10])
        answers = everything(connection)
    assert statuses(answers) == [200, 408]


# Host


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", 1, 200), ("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 1, 200), ("1.0", 0, 200), ("1.0", 2, 400)],
)
def test_a_request_needs_exactly_one_host_or_none_before_http_1_1(
    server: Running, version: str, hosts: int, status: int
) -> None:
    head = [f"GET /livez HTTP/{version}", "Connection: close", *["Host: a"] * hosts]
    answer = said(server, "\r\n".join([*head, "", ""]).encode())
    assert statuses(answer) == [status]
    if status == 400:
        assert refusal(answer) == (400, "bad_request")
        assert b"Host" in answer


# Size


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /livez?a=" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 60_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X" * 60_000 + b": a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: aaaaaaaaaa\r\n" * 4_000 + b"\r\n",
    ],
    ids=["path", "query", "header", "name", "headers"],
)
@pytest.mark.parametrize("complete", [True, False])
def test_headers_over_the_limit_are_431(server: Running, head: bytes, complete: bool) -> None:
    with server.connect() as connection:
        connection.sendall(head if complete else head[:-10])
        assert refusal(everything(connection)) == (431, "headers_too_large")


def test_too_many_header_lines_are_431(server: Running) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n"
    assert refusal(said(server, head)) == (431, "headers_too_large")


def test_headers_within_the_limit_are_read(server: Running) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"a" * 30_000 + b"\r\n\r\n"
    assert said(server, head, b"").startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "endless", [b"\r\n" * 50_000, b"GET /livez HTTP/1.1\r\nX: " + b"a" * 100_000], ids=["line ends", "header"]
)
def test_an_endless_head_is_cut(server: Running, endless: bytes) -> None:
    assert refusal(said(server, endless)) == (431, "headers_too_large")


@pytest.mark.parametrize("tail", [b"0\r\nX: " + b"a" * 100_000, b"5;" + b"a" * 100_000], ids=["trailer", "extension"])
def test_an_endless_trailer_or_chunk_extension_is_cut(server: Running, tail: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(raw_request(b"5\r\nabcde\r\n", "Transfer-Encoding: chunked"))
        until(lambda: server.metric("inflight_bytes") == 5)
        connection.sendall(tail)
        assert refusal(everything(connection)) == (431, "headers_too_large")
    until(server.is_empty)


# Time


@pytest.mark.parametrize("start", [b"G", LIVEZ[:-2], b"GET /livez HTTP/1.1\r\nHo", raw_request(PNG)[:40]])
def test_headers_that_do_not_come_are_408(hasty: Running, start: bytes) -> None:
    assert refusal(said(hasty, start)) == (408, "upload_timeout")


def test_headers_that_come_byte_by_byte_are_408_too(hasty: Running) -> None:
    """A byte does not start the time again."""
    with hasty.connect() as connection:
        connection.settimeout(0.02)
        answer = b""
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        for _ in range(500):
            connection.sendall(b"a")
            try:
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_silent_connection_outlives_the_time_for_headers(hasty: Running) -> None:
    """Load balancers connect ahead."""
    with hasty.connect() as connection:
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(15)
        connection.sendall(LIVEZ)
        assert read_answer(connection)[0].status == 200


def test_a_silent_connection_is_closed_after_the_keep_alive_time(
    loaded: tuple[Runner, ModelFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.protocol.server._KEEP_ALIVE_S", 0.2)
    with serving(loaded) as server:
        assert said(server) == b""


@pytest.mark.parametrize(("more", "answer"), [(b"\r\n", b""), (b"GET /", b"HTTP/1.1 408")])
def test_a_second_request_has_as_little_time_as_the_first(hasty: Running, more: bytes, answer: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(LIVEZ)
        assert read_answer(connection)[0].status == 200
        connection.sendall(more)
        assert everything(connection).startswith(answer)


def test_a_connection_is_kept_between_requests(hasty: Running) -> None:
    with hasty.connect() as connection:
        for _ in range(3):
            connection.sendall(LIVEZ)
            assert read_answer(connection)[0].status == 200
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(PATIENCE_S)


def test_a_request_that_takes_long_is_not_cut_by_the_time_for_headers(hasty: Running) -> None:
    hasty.runner.hold()
    with hasty.connect() as connection:
        connection.sendall(raw_request(PNG) + LIVEZ[:10])
        assert hasty.runner.entered.wait(PATIENCE_S)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
        hasty.runner.free.set()
        assert read_answer(connection)[0].status == 200


# Number


def test_one_connection_more_than_allowed_is_503_and_the_log_says_so(
    loaded: tuple[Runner, ModelFacts], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(loaded, max_connections=3) as server:
        held = [server.connect() for _ in range(3)]
        for connection in held:
            connection.sendall(LIVEZ)
            read_answer(connection)
        answer = said(server, MODELS)
        assert refusal(answer) == (503, "unavailable")
        assert b"Retry-After: 1\r\n" in answer
        assert b"max_connections" in answer
        assert server.metric("rejected_total", reason="connections") == 1
        assert "connections are refused: there are 3" in caplog.text
        held.pop().close()
        until(lambda: _answers(server))
        for connection in held:
            connection.sendall(LIVEZ)
            assert read_answer(connection)[0].status == 200
            connection.close()


def test_a_new_connection_replaces_the_oldest_silent_one(
    loaded: tuple[Runner, ModelFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.protocol.connection._HEAD_S", 0.0)
    with serving(loaded, max_connections=3) as server, ExitStack() as stack:
        used = stack.enter_context(server.connect())
        used.sendall(LIVEZ)
        assert read_answer(used)[0].status == 200
        oldest, unused, new = (stack.enter_context(server.connect()) for _ in range(3))
        assert everything(oldest) == b""
        for connection in (used, unused, new):
            connection.sendall(LIVEZ)
            assert read_answer(connection)[0].status == 200
        assert refusal(said(server, MODELS)) == (503, "unavailable")


def test_a_new_connection_does_not_replace_another_new_one(loaded: tuple[Runner, ModelFacts]) -> None:
    """Its request is on the way."""
    with serving(loaded, max_connections=1) as server, server.connect() as first:
        assert refusal(said(server, MODELS)) == (503, "unavailable")
        first.sendall(LIVEZ)
        assert read_answer(first)[0].status == 200


@pytest.fixture(scope="module")
def full(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    """All of its connections are taken, by clients that have asked and keep them."""
    with serving(loaded, max_connections=2) as server, ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(server.connect())
            connection.sendall(LIVEZ)
            assert read_answer(connection)[0].status == 200
        yield server


@pytest.mark.parametrize("path", HEALTH_PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_probe_is_answered_though_all_connections_are_taken(full: Running, path: str, method: str) -> None:
    before = full.metric("rejected_total", reason="connections")
    head = said(full, f"{method} {path}?verbose HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert head.split()[1] in (b"200", b"204")
    assert b"connection: close" in head.lower()
    assert full.metric("rejected_total", reason="connections") == before
    assert refusal(said(full, MODELS)) == (503, "unavailable")
    assert full.metric("rejected_total", reason="connections") == before + 1


def test_only_one_probe_is_answered_on_such_a_connection(full: Running) -> None:
    assert statuses(said(full, LIVEZ + LIVEZ)) == [200]
    assert statuses(said(full, LIVEZ + MODELS)) == [200]
    assert refusal(said(full, MODELS + LIVEZ)) == (503, "unavailable")
    assert refusal(said(full, raw_request(PNG))) == (503, "unavailable")
    assert refusal(said(full, b"GET /livez HTTP/1.1\r\n\r\n")) == (400, "bad_request")


def test_connections_that_ask_nothing_keep_no_probe_out(full: Running) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(full.connect()) for _ in range(PLACES + 2)]
        assert statuses(said(full, LIVEZ)) == [200]
        # The first three have left for others. The rest are told when it takes too long.
        assert [refusal(everything(each)) for each in silent] == [(503, "unavailable")] * len(silent)
    assert statuses(said(full, LIVEZ)) == [200]


def test_a_connection_that_waits_may_have_a_place_that_is_free_by_then(
    loaded: tuple[Runner, ModelFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.protocol.connection.WAIT_S", PATIENCE_S)
    with serving(loaded, max_connections=1) as server, ExitStack() as stack:
        first = stack.enter_context(server.connect())
        first.sendall(MODELS)
        assert read_answer(first)[0].status == 200
        second = stack.enter_context(server.connect())
        second.sendall(MODELS[:10])
        assert statuses(said(server, LIVEZ)) == [200]
        first.sendall(MODELS.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        assert statuses(everything(first)) == [200]
        for rest in (MODELS[10:], MODELS):
            second.sendall(rest)
            assert read_answer(second)[0].status == 200
        assert refusal(said(server, MODELS)) == (503, "unavailable")


def _answers(server: Running) -> bool:
    with server.connect() as connection:
        connection.sendall(MODELS)
        answer: Any = connection.recv(15)
        return bool(answer == b"HTTP/1.1 200 OK")
