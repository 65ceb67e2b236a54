"""httptools' parser of requests, for a server that offers no upgrade and reads no trailers.

- A request that asks for an upgrade is parsed as any other (RFC 9110, 7.8). httptools stops behind the head of such a
  request and drops its body (its issue 124). Java's HttpClient and `curl --http2` send `Upgrade: h2c` with their first
  request.
- Trailers of a chunked body go to `on_trailer`. httptools would append them to the headers of the running request.

`tests/test_bounds.py` names what this relies on inside httptools, and `test_parser.py` tries it.
"""

from typing import Protocol

import httptools


class ParserEvents(Protocol):
    """What `httptools.HttpRequestParser` calls, and `on_trailer`."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_trailer(self, name: bytes, value: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class RequestParser:
    """Takes the place of `httptools.HttpRequestParser`. `close` it: it and httptools' parser refer to one another."""

    def __init__(self, events: ParserEvents) -> None:
        self._events = events
        # httptools calls it directly.
        self.on_body = events.on_body
        self._head: list[tuple[bytes, bytes]] = []
        self._in_head = self._repeating = False
        self._parser = self._made()

    def _made(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # As uvicorn does: what follows a request with `Connection: close` is ignored, and that request is answered.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def feed_data(self, data: bytes) -> None:
        """Raises `httptools.HttpParserError` for what is no request, and for whatever a callback raises."""
        rest: bytes | memoryview = data
        while True:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as stopped:
                rest = memoryview(rest)[stopped.args[0] :]
                self._repeat_head()

    def _repeat_head(self) -> None:
        """Gives the head to a new parser without its Upgrade header, so that the body is parsed as the head says.

        Only the version of the request line matters to the body and to what follows it.
        """
        lines = [b"%b:%b" % header for header in self._head if header[0].lower() != b"upgrade"]
        head = [b"POST / HTTP/" + self._parser.get_http_version().encode(), *lines, b"", b""]
        self._parser = self._made()
        self._repeating = True
        self._parser.feed_data(b"\r\n".join(head))

    def close(self) -> None:
        """Nothing may be fed afterwards."""
        del self._parser

    def should_upgrade(self) -> bool:
        return False

    def should_keep_alive(self) -> bool:
        return self._parser.should_keep_alive()

    def get_http_version(self) -> str:
        return self._parser.get_http_version()

    def get_method(self) -> bytes:
        return self._parser.get_method()

    # Called by httptools' parser.

    def on_message_begin(self) -> None:
        if not self._repeating:
            self._in_head, self._head = True, []
            self._events.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._repeating:
            self._events.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._repeating:
            return
        if not self._in_head:
            self._events.on_trailer(name, value)
            return
        self._head.append((name, value))
        self._events.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._repeating:
            self._repeating = False
            return
        self._in_head = False
        self._events.on_headers_complete()

    def on_message_complete(self) -> None:
        # A parser that stops at an upgrade takes the message to end behind its head.
        if not self._parser.should_upgrade():
            self._events.on_message_complete()
