"""Around every request: its id, its metrics, its trace, its line in the log, and the return of everything it held.

Only `DiscardUnread` is further out, so this sees every answer, refusal and fault.
"""

import asyncio
import logging
import random
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.errors import Unavailable, let_go, unknown_error
from service.http.context import RequestContext
from service.http.dialects.dialect import Dialect
from service.http.paths import FIGURES_PATHS, HEALTH_PATHS
from service.http.responses import CLIENT_GONE_STATUS, error_response
from service.metrics import Metrics
from service.priority import PRIORITY_HEADER
from service.requests.admission.admission import Admission
from service.requests.admission.hold import Hold
from service.tracing import current

if TYPE_CHECKING:
    from service.tracing.request import RequestTrace
    from service.tracing.spans import Tracing

_MAX_REQUEST_ID = 128
_OURS = "packlight"
_PRIORITY = PRIORITY_HEADER.lower().encode()
# A path below one of these counts as that one.
_GROUPS = ("/v1/models", "/pages", "/docs")
# Paths that are asked again and again, or by everyone who looks at the page. Their lines say nothing if all is well.
_QUIET = frozenset({*HEALTH_PATHS, *FIGURES_PATHS, "/", "/pages", "/docs"})

_log = logging.getLogger("packlight.request")
_faults = logging.getLogger(__name__)


class Observe:
    """Gives each request its context."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Collection[str],
        embedding: Collection[str],
        dialects: Mapping[str, Dialect],
        admission: Admission,
        metrics: Metrics,
        model: str,
        tracing: "Tracing | None" = None,
    ) -> None:
        """routes: the paths that metrics may name; any other counts as `other`. embedding: those that embed, which are
        traced. dialects: by the paths where they are spoken. model: the name of the one that is served."""
        self._app, self._routes = app, frozenset(routes)
        self._embedding, self._dialects = frozenset(embedding), dialects
        self._admission, self._metrics = admission, metrics
        self._model, self._tracing = model, tracing
        # Seeded by the system, so that no two processes make the same ids.
        self._random = random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._route(scope["path"])
        trace = self._trace(scope, route)
        status = CLIENT_GONE_STATUS
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                if trace is not None:
                    trace.answered()
                if context.refusal and not hold.admitted:
                    self._metrics.refuse(context.refusal, bulk=hold.bulk)
                _sign(message, context)
            await send(message)

        with Hold(self._admission) as hold:
            context = self._context(scope, route, hold)
            logs.request_id.set(context.request_id)
            context.put(scope)
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:
                # The server is stopping, and drain_s has passed.
                if not answered:
                    late = Unavailable("the server is shutting down, and the request was not done in time (drain_s)")
                    await error_response(late, context)(scope, receive, send_with_id)
            except Exception as error:
                _faults.exception("request %s failed", context.request_id)
                let_go(error)
                if not answered:
                    await error_response(unknown_error(), context)(scope, receive, send_with_id)
            finally:
                self._record(scope, context, status, trace)

    def _context(self, scope: Scope, route: str, hold: Hold) -> RequestContext:
        """In the dialect of the path, until the body is known."""
        context = RequestContext(self._request_id(Headers(scope=scope)), time.monotonic(), hold, route, scope["method"])
        if dialect := self._dialects.get(route):
            context.speak(dialect.name, dialect.error)
        elif route in self._embedding:
            context.dialect = _OURS
        return context

    def _trace(self, scope: Scope, route: str) -> "RequestTrace | None":
        """None if the request is not traced."""
        if self._tracing is None:
            return None
        current.forget()
        return self._tracing.begin(scope, self._model) if route in self._embedding else None

    def _record(self, scope: Scope, context: RequestContext, status: int, trace: "RequestTrace | None") -> None:
        seconds = time.monotonic() - context.started_s
        self._metrics.requests.labels(context.route, str(status), context.dialect).inc()
        if context.timed:
            exemplar = trace.exemplar if trace else None
            self._metrics.request_seconds.labels(context.route, context.dialect).observe(seconds, exemplar)
            if context.dialect:
                self._metrics.priority_requests[context.hold.bulk].observe(seconds)
        if status == 200:
            self._metrics.charged_tokens.inc(context.tokens)
        for stage in ("receive", "respond"):
            if stage in context.stages_s:
                self._metrics.stages[stage].observe(context.stages_s[stage])
        if trace is not None:
            trace.end(context, status)
        quiet = context.route in _QUIET and status in (200, 204, 304)
        fields = {
            "request_id": context.request_id,
            "method": scope["method"],
            "route": context.route,
            **({"dialect": context.dialect} if context.dialect else {}),
            "status": status,
            "ms": round(seconds * 1000, 2),
            "images": context.images,
            **({"texts": context.texts} if context.texts else {}),
            "tokens": context.tokens,
            **({"cached_tokens": context.cached_tokens} if context.cached_tokens else {}),
            **({"priority": context.priority} if context.hold.bulk else {}),
            "error": context.error_code,
            # Which limit it was, where one code has several.
            **({"reason": context.refusal} if context.refusal not in (None, context.error_code) else {}),
            **{f"{stage}_ms": round(value * 1000, 2) for stage, value in context.stages_s.items()},
        }
        logs.log_event(_log, logging.DEBUG if quiet else logging.INFO, "request", fields)

    def _route(self, path: str) -> str:
        """The path of one model counts as that of the list, and a file of the page as all of them."""
        for group in _GROUPS:
            if path.startswith(f"{group}/"):
                return group
        return path if path in self._routes else "other"

    def _request_id(self, headers: Headers) -> str:
        """The caller's own id if it is printable and short, since it is echoed and logged; otherwise a new one."""
        given = headers.get("x-request-id", "")
        if is_request_id(given):
            return given
        # `uuid` would ask the system, which releases the interpreter's lock. An id is no secret.
        return f"{self._random.getrandbits(128):032x}"


def _sign(answer: Message, context: RequestContext) -> None:
    headers = [*answer.get("headers", ()), (b"x-request-id", context.request_id.encode())]
    if context.hold.bulk:
        headers.append((_PRIORITY, context.priority.encode()))
    answer["headers"] = headers


def is_request_id(given: str) -> bool:
    """Whether a caller's id is short and printable."""
    return 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable()
