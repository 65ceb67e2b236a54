"""Requests that ask for an upgrade are answered as any other (RFC 9110, 7.8), and trailers change no answer."""

import re
import socket
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import pictures
from tests.examples import many
from tests.service.running import Running, raw_request, read_answer, until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
# What Java's HttpClient and `curl --http2` send, and what a browser sends for a WebSocket.
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
WEBSOCKET = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
UPGRADES = {"h2c": H2C, "websocket": WEBSOCKET, "unknown": ("Connection: upgrade", "Upgrade: TLS/1.0")}
CHUNKED = "Transfer-Encoding: chunked"


def chunks(body: bytes, trailers: bytes = b"") -> bytes:
    pieces = [body[:100], body[100:]]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def post(*headers: str, framing: str = "length", path: str = "/embed?max_tokens=4&encoding=base64") -> bytes:
    """A PNG."""
    if framing == "length":
        return raw_request(PNG, *headers, path=path)
    return raw_request(chunks(PNG), *headers, CHUNKED, path=path)


def answered(connection: socket.socket, pieces: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Status and body of each answer, until the server closes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        connection.sendall(piece)
    received = b""
    while piece := connection.recv(65536):
        received += piece
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        size = int(length[1]) if length else 0
        yield int(head.split()[1]), received[:size]
        received = received[size:]


def answers(server: Running, *pieces: bytes) -> list[tuple[int, bytes]]:
    with server.connect() as connection:
        return list(answered(connection, pieces))


def all_of(server: Running, *requests: bytes) -> list[tuple[int, bytes]]:
    return answers(server, b"".join(requests))


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_upgrade_changes_no_answer_to_a_body_and_none_to_the_request_behind_it(
    server: Running, framing: str, upgrade: tuple[str, ...]
) -> None:
    expected = all_of(server, post(framing=framing), LAST)
    assert [status for status, _ in expected] == [200, 200]
    assert all_of(server, post(*upgrade, framing=framing), LAST) == expected


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
def test_a_request_without_a_body_is_answered_and_so_is_the_one_behind_it(
    server: Running, upgrade: tuple[str, ...]
) -> None:
    first = LIVEZ.replace(b"Host: a", "\r\n".join(("Host: a", *upgrade)).encode())
    assert all_of(server, first, post(*upgrade), first, LAST) == all_of(server, LIVEZ, post(), LIVEZ, LAST)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_may_come_behind_its_head(server: Running, framing: str) -> None:
    """As Java sends it: in a segment of its own."""
    head, _, body = post(*H2C, "X-Request-ID: behind", framing=framing).partition(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        if framing == "length":
            until(lambda: server.metric("inflight_bytes") > 0)
        connection.sendall(body)
        answer, _ = read_answer(connection)
        assert (answer.status, answer.headers["X-Request-ID"]) == (200, "behind")
        connection.sendall(LIVEZ)
        assert read_answer(connection)[0].status == 200


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_may_come_byte_by_byte(server: Running, framing: str) -> None:
    request = post(*H2C, framing=framing) + LAST
    assert answers(server, *(bytes([byte]) for byte in request)) == all_of(server, post(framing=framing), LAST)


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(server: Running) -> None:
    with server.connect() as connection:
        head, _, body = post(*H2C, "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection)[0].status == 200


def test_http_1_0_knows_no_upgrade(server: Running) -> None:
    request = post(*H2C).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert all_of(server, request) == all_of(server, post("Connection: close"))


def test_a_client_that_closes_behind_an_upgrade_gets_no_second_answer(server: Running) -> None:
    closing = (H2C[0] + ", close", *H2C[1:])
    assert [status for status, _ in all_of(server, post(*closing), LAST)] == [200]


def test_a_tunnel_is_refused(server: Running) -> None:
    for target in (b"example.com:443", b"/livez"):
        ((status, body),) = all_of(server, b"CONNECT " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", LAST)
        assert status == 400
        assert b"CONNECT" in body


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_any_pieces_get_the_answers_of_requests_without_an_upgrade(server: Running, framing: str) -> None:
    sent = post(*H2C, framing=framing) + post(*WEBSOCKET, framing=framing) + LAST
    expected = all_of(server, post(framing=framing), post(framing=framing), LAST)

    @many(25)
    @given(st.lists(st.integers(0, len(sent)), max_size=8).map(sorted))
    def same(cuts: list[int]) -> None:
        assert answers(server, *(sent[start:end] for start, end in pairwise([0, *cuts, len(sent)]))) == expected

    same()


def test_a_request_with_an_upgrade_counts_once_and_so_do_its_image_and_its_tokens(server: Running) -> None:
    def counts() -> list[float]:
        tokens, embedded = server.counted("charged_tokens_total"), server.counted("images_total", outcome="embedded")
        return [server.counted("requests_total", route="/embed", status="200"), embedded, tokens]

    before = counts()
    assert [status for status, _ in all_of(server, post(*H2C, "Connection: close"))] == [200]
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 4]


# The bounds hold as they do without an upgrade


def test_a_body_of_more_bytes_than_allowed_is_refused_by_its_head(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(raw_request(b"", *H2C, f"Content-Length: {server.settings.max_upload_bytes + 1}"))
        assert read_answer(connection)[0].status == 413


def test_a_chunked_body_of_more_bytes_than_allowed_is_refused_on_its_way(server: Running) -> None:
    piece = b"%x\r\n%b\r\n" % (2**20, bytes(2**20))
    with server.connect() as connection:
        connection.sendall(raw_request(b"", *H2C, CHUNKED))
        for _ in range(server.settings.max_upload_bytes // 2**20 + 1):
            connection.sendall(piece)
        answer, _ = read_answer(connection)
        assert (answer.status, answer.headers["Connection"]) == (413, "close")


def test_a_head_over_the_limit_is_431(server: Running) -> None:
    ((status, _),) = all_of(server, post(*H2C, "X: " + "a" * 33_000))
    assert status == 431


def test_a_refusal_before_the_body_closes_the_connection(server: Running) -> None:
    request = raw_request(LIVEZ, *H2C, kind="text/plain")
    ((status, _),) = all_of(server, request, LIVEZ)
    assert status == 415


def test_more_requests_than_may_wait_are_refused(server: Running) -> None:
    first = LIVEZ.replace(b"Host: a", "\r\n".join(("Host: a", *H2C)).encode())
    assert [status for status, _ in all_of(server, first * 18)] == [200] * 17 + [429]


# Trailers


def test_trailers_change_neither_the_answer_nor_the_next_one(server: Running) -> None:
    trailers = b"X-API-Key: a\r\nContent-Type: text/plain\r\nAccept: application/x-npy\r\nExpect: 100-continue\r\n"
    path = "/embed?max_tokens=4&encoding=base64"
    answered = all_of(server, raw_request(chunks(PNG, trailers), CHUNKED, path=path), LAST)
    assert answered == all_of(server, post(framing="chunks"), LAST)


@pytest.mark.parametrize("upgrade", [(), H2C], ids=["plain", "upgrade"])
@pytest.mark.parametrize(
    "trailers", [b"X: " + b"a" * 40_000 + b"\r\n", b"X: a\r\n" * 10_000], ids=["a long one", "too many"]
)
def test_trailers_over_the_limits_of_a_head_are_431(server: Running, trailers: bytes, upgrade: tuple[str, ...]) -> None:
    ((status, body),) = all_of(server, raw_request(chunks(PNG, trailers), *upgrade, CHUNKED))
    assert status == 431
    assert b"trailers" in body
    until(server.is_empty)
