"""uvicorn's protocol with bounds that uvicorn lacks: on a request's head, on requests behind another one, on how long
a client may take nothing of its answer, and on the number of connections, beyond which only probes are answered.

A connection that breaks one first gets the answers that it is owed, then an error in our shape, and is closed.
This relies on what no documentation promises. `tests/test_bounds.py` names it, and `test_connection.py` tries it:

- uvicorn calls `config.http` with keywords and feeds an `HttpToolsProtocol`, whose overridden methods it calls itself.
- `connections` is a set of all connections. `cycle` is the latest request, with `response_started`,
  `response_complete`, `disconnected`, `message_event` and `keep_alive`, without which its answer closes the connection;
  `pipeline` has those that wait, the newest on the left.
  Its `scope` is what `on_message_begin` has made, and `flow` pauses and resumes reading.
  It writes to `transport`, a head in one piece with lower-case names, closes it, and asks whether it is closing.
  `headers` has lower-case names.
- `timeout_keep_alive_task` is a timer that runs between requests; data that comes unsets it.
- uvicorn feeds `parser`, which passes on what a callback raises as an `HttpParserError`; then uvicorn calls
  `send_400_response`.
- uvloop's `close()` waits for unsent bytes without end, and `abort()` does not; both call `connection_lost`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.descriptors import Descriptors
from service.errors import BadRequest, Overloaded, ServiceError, Unavailable, UploadTimeout
from service.http.protocol.answer_transport import AnswerTransport
from service.http.protocol.departure import Departure
from service.http.protocol.head import MAX_HEAD_BYTES, fault_of_head, headers_too_large
from service.http.protocol.parser import RequestParser
from service.http.protocol.reserve import PLACES, WAIT_S, Reserve
from service.http.responses import error_on_the_wire

_MAX_PIPELINED = 16
# What refusals for want of room count under. The log says those once a minute.
_OF_CONNECTIONS = "connections"
# From the first byte of a request to the last of its headers.
_HEAD_S = 10.0
# How long a client may take nothing of its answer.
_UNREAD_S = 60.0

# Counts a refusal by its reason.
Refuse = Callable[[str], None]

_log = logging.getLogger(__name__)


def bounded_protocol(
    max_connections: int, refuse: Refuse, *, processes: int = 0, probe_paths: Collection[str] = ()
) -> Any:
    """What uvicorn calls to make a connection's protocol. processes: as in `Descriptors`. probe_paths: as in
    `Reserve`."""
    descriptors = Descriptors(max_connections, processes=processes, reserved=PLACES)
    reserve = Reserve[BoundedProtocol](max_connections, probe_paths)
    return partial(BoundedProtocol, descriptors=descriptors, reserve=reserve, refuse=refuse)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        *given: Any,
        descriptors: Descriptors,
        reserve: "Reserve[BoundedProtocol]",
        refuse: Refuse,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.parser = RequestParser(self)  # type: ignore[assignment]
        self._descriptors, self._reserve, self._count_refusal = descriptors, reserve, refuse
        self._in_head = self._in_body = False
        # Received since the last head or piece of a body was complete.
        self._idle_bytes = 0
        self._trailer_bytes = 0
        # Raised by a callback; the parser passes on an error of its own.
        self._refusal: ServiceError | None = None
        # The error that follows the answers still owed.
        self._last_words = b""
        # The request that is being answered: `cycle`, unless others wait behind it.
        self._running: Any = None
        self._made_s = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Not the loop's time, which stands still while it accepts several connections.
        self._made_s = time.monotonic()
        refusal = self._no_room()
        if refusal is not None and not self._close_an_unused_connection():
            self._wait_in_reserve(refusal)
            return
        # Load balancers connect ahead, so an unused connection is kept as long as one between two requests.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_unread_timer()
        self._reserve.leave(self)
        self.parser.close()  # type: ignore[attr-defined]
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the newest request alone.
            self._running.disconnected = True
            self._running.message_event.set()
            if (departure := Departure.of(self._running.scope)) is not None:
                departure.tell()

    def data_received(self, data: bytes) -> None:
        if self._last_words or self.transport.is_closing():
            return
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._last_words or self.transport.is_closing():
            return
        if self._idle_bytes > MAX_HEAD_BYTES:
            self._refuse(headers_too_large())
        else:
            self._bound_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()
        self._bound_close()

    def shutdown(self) -> None:
        super().shutdown()
        self._bound_close()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_close()

    # Callbacks of the parser. What they raise reaches `send_400_response`.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        Departure(self.flow.resume_reading).put(self.scope)  # type: ignore[arg-type]
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._refusal = self._fault_of_request()
        if self._refusal is not None:
            raise self._refusal
        answering = self._answering()
        super().on_headers_complete()
        has_body = self.parser.get_method() != b"HEAD"
        self.cycle.transport = AnswerTransport(self.transport, has_body=has_body)  # type: ignore[assignment]
        if self in self._reserve:
            self.cycle.keep_alive = False
        if not answering:
            self._running = self.cycle
        self._in_head, self._in_body, self._idle_bytes, self._trailer_bytes = False, True, 0, 0

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_trailer(self, name: bytes, value: bytes) -> None:
        """Drops what comes behind a chunked body. `_idle_bytes` does not bound what comes all at once."""
        self._trailer_bytes += len(name) + len(value) + len(": \r\n")
        if self._trailer_bytes > MAX_HEAD_BYTES:
            self._refusal = headers_too_large()
            raise self._refusal

    def on_message_complete(self) -> None:
        self._in_body, self._idle_bytes = False, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or BadRequest("this is no HTTP/1 request, or a malformed one"))

    def on_response_complete(self) -> None:
        last = not self.pipeline
        self._running = None if last else self.pipeline[-1][0]
        super().on_response_complete()
        if last and self._last_words:
            self._close_with(self._last_words)
        elif self._in_head:
            self._bound_head()
        self._bound_close()

    def _fault_of_request(self) -> ServiceError | None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            message = f"more than {_MAX_PIPELINED} requests wait behind one that is being answered"
            return Overloaded(message, retry_after_s=1, reason=_OF_CONNECTIONS)
        # `_idle_bytes` does not bound a head that comes all at once.
        head = fault_of_head(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        return head or self._fault_in_reserve()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _descriptor(self) -> int:
        number: int = self.transport.get_extra_info("socket").fileno()
        return number

    def _no_room(self) -> Unavailable | None:
        """Why this connection is one too many."""
        if self._descriptors.run_short(self._descriptor):
            message = f"the server may have no more than {self._descriptors.limit} files open (ulimit -n)"
        elif not self._reserve.has_room(self, len(self.connections)):
            most = self._reserve.max_connections
            message = f"there are {most} connections, the most there may be (max_connections)"
        else:
            return None
        return Unavailable(message, reason=_OF_CONNECTIONS)

    def _wait_in_reserve(self, refusal: ServiceError) -> None:
        """There is no room, as `refusal` says, unless the request is a probe's."""
        self._head_timer = self.loop.call_later(WAIT_S, self._be_late)
        spent = self._descriptors.spent(self._descriptor)
        for one, why in [(self, refusal)] if spent else self._reserve.enter(self, refusal):
            one._refuse_for_room(why)

    def _fault_in_reserve(self) -> ServiceError | None:
        """Why the request of a connection that waits there is refused. None if there is room by now, or for a probe."""
        refusal = self._reserve.refusal(self)
        if refusal is None:
            return None
        if self._no_room() is None:
            self._reserve.leave(self)
        elif not self._reserve.answers(self, self.url):
            self._descriptors.warn(self._descriptor)
            return refusal
        return None

    def _refuse_for_room(self, refusal: ServiceError) -> None:
        self._descriptors.warn(self._descriptor)
        self._refuse(refusal)

    def _close_an_unused_connection(self) -> bool:
        """Makes room by closing the oldest connection that has been silent for as long as a head may take."""
        unused = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._is_unused()]
        if unused:
            min(unused, key=lambda one: one._made_s).transport.close()
        return bool(unused)

    def _is_unused(self) -> bool:
        silent = self.cycle is None and self.timeout_keep_alive_task is not None
        return silent and not self.transport.is_closing() and time.monotonic() - self._made_s >= _HEAD_S

    def _refuse(self, error: ServiceError) -> None:
        """Closes the connection behind the answers that it is owed, with an error unless one is half sent."""
        self._stop_head_timer()
        self._reserve.leave(self)
        self._count_refusal(error.reason)
        if error.reason != _OF_CONNECTIONS:
            _log.info("a connection is closed with %d: %s", error.status, error.message)
        words = error_on_the_wire(error)
        if self._in_body and self.pipeline:
            # The request that is at fault is the newest, and has not begun.
            self.pipeline.popleft()
            self._last_words = words
        elif not self._in_body and self._answering():
            self._last_words = words
        else:
            self._close_with(b"" if self._answering() and self.cycle.response_started else words)

    def _close_with(self, words: bytes) -> None:
        self.transport.write(words)
        self.transport.close()
        self._bound_close()

    def _bound_head(self) -> None:
        """Runs the timer of a request's head unless a request is under way."""
        if self._in_body or self._answering():
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_S, self._be_late)

    def _be_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self._in_body or self._answering():
            return
        if (refusal := self._reserve.refusal(self)) is not None:
            self._refuse_for_room(refusal)
        elif self._in_head:
            self._refuse(UploadTimeout(f"the request's headers took longer than {_HEAD_S:.0f} s to arrive"))
        else:
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _bound_close(self) -> None:
        """A closing transport waits until its last bytes are sent: for ever, if nobody reads them."""
        if self.transport.is_closing():
            self._start_unread_timer()

    def _start_unread_timer(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(_UNREAD_S, self._give_up_reader)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _give_up_reader(self) -> None:
        """Its request gives back what it holds in `connection_lost`, and not before."""
        self._unread_timer = None
        _log.info("a connection is cut: its client took nothing of an answer for %.0f s", _UNREAD_S)
        self.transport.abort()
