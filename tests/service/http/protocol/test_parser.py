"""The parser against httptools' own: an Upgrade header changes nothing, and trailers are apart."""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.protocol.parser import RequestParser

UPGRADES = [b"h2c", b"websocket", b"TLS/1.0", b"", b"h2c, websocket"]
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
TRAILERS = b"X-Checksum: 7\r\nX-Empty:\r\n"


class Events:
    """Notes what a parser calls, and what the parser says of the request when its head is complete."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.parser = make(self)
        self.in_head = False

    def on_message_begin(self) -> None:
        self.in_head = True
        self.seen.append(("begin",))

    def on_url(self, url: bytes) -> None:
        self._add("url", url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.seen.append(("header", name, value))
        else:
            self.on_trailer(name, value)

    def on_headers_complete(self) -> None:
        self.in_head = False
        parser = self.parser
        self.seen.append(("head", parser.get_method(), parser.get_http_version(), parser.should_keep_alive()))

    def on_body(self, body: bytes) -> None:
        self._add("body", body)

    def on_trailer(self, name: bytes, value: bytes) -> None:
        self.seen.append(("trailer", name, value))

    def on_message_complete(self) -> None:
        self.seen.append(("complete",))

    def _add(self, kind: str, more: bytes) -> None:
        """A parser passes on what it has: how it is cut says nothing."""
        last = self.seen.pop()
        self.seen += [(kind, last[1] + more)] if last[0] == kind else [last, (kind, more)]

    def all_but_upgrades(self) -> list[tuple[Any, ...]]:
        return [event for event in self.seen if event[0] != "header" or event[1].lower() != b"upgrade"]


def parsed(make: Callable[[Any], Any], pieces: Sequence[bytes]) -> tuple[list[tuple[Any, ...]], bool]:
    """The events without Upgrade headers, and whether the parser refused the bytes."""
    events = Events(make)
    try:
        for piece in pieces:
            events.parser.feed_data(piece)
    except httptools.HttpParserError:
        return events.all_but_upgrades(), True
    return events.all_but_upgrades(), False


def plain(events: Any) -> Any:
    """httptools' own parser, set as uvicorn sets it."""
    parser = httptools.HttpRequestParser(events)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


@dataclass(frozen=True)
class Request:
    line: bytes
    fields: tuple[bytes, ...]
    upgrade: bytes | None
    body: bytes

    def written(self, *, upgrade: bool) -> bytes:
        fields = [b"Host: a", *self.fields]
        if upgrade and self.upgrade is not None:
            fields.insert(len(fields) // 2, b"uPgrade: " + self.upgrade)
        return b"\r\n".join([self.line, *fields, b"", b""]) + self.body


def chunked(pieces: Sequence[bytes], trailers: bytes) -> bytes:
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return chunks + b"0\r\n" + trailers + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> Request:
    line = draw(
        st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"POST /a HTTP/1.0", b"M-SEARCH * HTTP/1.1"])
    )
    fields = draw(
        st.lists(
            st.sampled_from([
                b"Connection: Upgrade", b"connection: keep-alive, UPGRADE , x", b"Connection: close",
                b"Expect: 100-continue", b"X:", b"X:  a \t",
            ]),
            max_size=4,
        )
    )  # fmt: skip
    framing = draw(st.sampled_from(["none", "length", "chunks", "both", "unknown"]))
    content = draw(st.binary(max_size=40))
    body = b""
    if framing in ("length", "both"):
        fields.append(b"Content-Length: %d" % len(content))
        body = content
    if framing in ("chunks", "both"):
        fields.append(b"Transfer-Encoding: chunked")
        body = chunked([content[:9], content[9:]], draw(st.sampled_from([b"", TRAILERS, b"Upgrade: h2c\r\n"])))
    if framing == "unknown":
        fields.append(b"Transfer-Encoding: gzip")
    return Request(line, tuple(fields), draw(st.sampled_from([None, *UPGRADES])), body)


@given(st.lists(requests(), min_size=1, max_size=4), st.data())
def test_any_requests_in_any_pieces_are_those_without_their_upgrades(asked: list[Request], data: st.DataObject) -> None:
    sent = b"".join(request.written(upgrade=True) for request in asked)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6), label="cuts"))
    pieces = [sent[start:end] for start, end in pairwise([0, *cuts, len(sent)])]
    expected = parsed(plain, [b"".join(request.written(upgrade=False) for request in asked)])
    assert parsed(RequestParser, pieces) == expected


@given(st.lists(requests(), min_size=1, max_size=3))
def test_requests_that_come_byte_by_byte_are_those_without_their_upgrades(asked: list[Request]) -> None:
    sent = b"".join(request.written(upgrade=True) for request in asked)
    expected = parsed(plain, [b"".join(request.written(upgrade=False) for request in asked)])
    assert parsed(RequestParser, [bytes([byte]) for byte in sent]) == expected


@given(
    st.lists(requests(), min_size=1, max_size=3), st.lists(st.tuples(st.integers(0), st.binary(max_size=1)), max_size=4)
)
def test_damaged_bytes_are_parsed_as_before_or_refused(asked: list[Request], damage: list[tuple[int, bytes]]) -> None:
    sent = b"".join(request.written(upgrade=True) for request in asked)
    for place, byte in damage:
        place %= len(sent)
        sent = sent[:place] + byte + sent[place + 1 :]
    found = parsed(RequestParser, [sent])
    try:
        expected = parsed(plain, [sent])
    except httptools.HttpParserUpgrade:
        return
    assert found == expected


def test_a_body_behind_an_upgrade_is_passed_on_and_so_is_the_next_request() -> None:
    events = Events(RequestParser)
    events.parser.feed_data(b"POST /a HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n")
    kinds = [event[0] for event in events.seen if event[0] != "header"]
    assert kinds == ["begin", "url", "head", "body", "complete", "begin", "url", "head", "complete"]
    assert ("body", b"abc") in events.seen


@pytest.mark.parametrize("upgrade", [b"", UPGRADE], ids=["plain", "upgrade"])
def test_trailers_are_no_headers(upgrade: bytes) -> None:
    events = Events(RequestParser)
    events.parser.feed_data(
        b"POST / HTTP/1.1\r\n" + upgrade + b"Transfer-Encoding: chunked\r\n\r\n" + chunked([b"abc"], TRAILERS)
    )
    assert [event for event in events.seen if event[0] == "trailer"] == [
        ("trailer", b"X-Checksum", b"7"), ("trailer", b"X-Empty", b""),
    ]  # fmt: skip
    assert events.seen[-1] == ("complete",)


@pytest.mark.parametrize("call", ["on_headers_complete", "on_body", "on_trailer", "on_message_complete"])
@pytest.mark.parametrize("upgrade", [b"", UPGRADE], ids=["plain", "upgrade"])
def test_what_a_callback_raises_ends_the_parsing(upgrade: bytes, call: str) -> None:
    def refuse(*given: bytes) -> None:
        raise RuntimeError

    class Refusing(Events):
        def __init__(self) -> None:
            setattr(self, call, refuse)
            super().__init__(RequestParser)

    sent = b"POST / HTTP/1.1\r\n" + upgrade + b"Transfer-Encoding: chunked\r\n\r\n" + chunked([b"abc"], TRAILERS)
    with pytest.raises(httptools.HttpParserError):
        Refusing().parser.feed_data(sent)


def test_a_closed_parser_needs_no_garbage_collector() -> None:
    events: Events | None = Events(RequestParser)
    assert events is not None
    events.parser.feed_data(b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n")
    gc.disable()
    try:
        gone = weakref.ref(events)
        events.parser.close()
        del events.parser
        events = None
        assert gone() is None
    finally:
        gc.enable()
