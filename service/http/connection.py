"""uvicorn's protocol with bounds on what comes before a body: its time, its size, and how many connections there are.

uvicorn bounds none of them. A connection that breaks one gets an answer in our shape where none is under way, and is
closed. What is relied on of uvicorn: that bytes come in by `data_received`, that the parser calls `on_…` on this
object, that a malformed request ends in `send_400_response`, and what `cycle` (the latest request), `pipeline` (those
that wait behind another), `url` and `headers` are. `tests/service/http/test_connection.py` holds it to that.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import BadRequest, HeadersTooLarge, ServiceError, Unavailable, UploadTimeout
from service.http.responses import error_on_the_wire

MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADERS = 128
_MAX_PIPELINED = 16
_HEAD_S = 10.0
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


def bounded_protocol(max_connections: int, refuse: Callable[[str], None]) -> Any:
    """What uvicorn makes a connection's protocol with. `refuse` counts a refusal by its reason."""
    return partial(BoundedProtocol, max_connections=max_connections, refuse=refuse)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, max_connections: int, refuse: Callable[[str], None], **named: Any) -> None:
        super().__init__(*given, **named)
        self._max_connections, self._count_refusal = max_connections, refuse
        self._in_head = self._in_body = False
        # What was received since anything at all came of it.
        self._idle_bytes = 0
        self._refusal: ServiceError | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            message = f"there are {self._max_connections} connections, the most there may be (max_connections)"
            self._refuse(Unavailable(message, reason="connections"))
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._idle_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._idle_bytes > MAX_HEAD_BYTES:
            self._refuse(_headers_too_large())
        elif not self._waiting():
            self._stop_timer()
        elif self._head_timer is None:
            self._start_timer()

    # Callbacks of the parser. What they raise reaches `send_400_response`.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        # A head that comes all at once is no more than the system hands over at once.
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES or len(self.headers) > _MAX_HEADERS:
            self._raise(_headers_too_large())
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._raise(BadRequest(f"more than {_MAX_PIPELINED} requests wait behind one that is being answered"))
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            self._raise(BadRequest("the parser drops a body that comes with an Upgrade header: send it without one"))
        super().on_headers_complete()
        self._in_head, self._in_body, self._idle_bytes = False, True, 0

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._idle_bytes = False, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or BadRequest("this is no HTTP/1 request, or a malformed one"))

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is not offered may be ignored (RFC 9110, 7.8), and is no news."""

    def _raise(self, refusal: ServiceError) -> None:
        self._refusal = refusal
        raise refusal

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _waiting(self) -> bool:
        """For a request's headers, or for a request at all, with nothing else to do."""
        return not (self._in_body or self._answering())

    def _refuse(self, error: ServiceError) -> None:
        """Closes the connection, with an answer unless that would run into another one."""
        self._stop_timer()
        self._count_refusal(error.reason)
        if not self.pipeline and not (self._answering() and self.cycle.response_started):
            self.transport.write(error_on_the_wire(error))
        self.transport.close()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_S, self._be_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _be_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or not self._waiting():
            return
        if self._in_head:
            self._refuse(UploadTimeout(f"the request's headers took longer than {_HEAD_S:.0f} s to arrive"))
        else:
            self.transport.close()


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"the request line and headers are over {MAX_HEAD_BYTES} bytes or {_MAX_HEADERS} lines, the most they may be"
    )
