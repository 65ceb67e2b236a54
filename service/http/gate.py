"""Refuses, in plain ASGI, what can be refused before a body is read: key, length, a full queue, bytes in flight.

While pictures are remembered, some requests pass a full queue: one that is known needs no place there.

A refusal costs a fraction of a millisecond. Neither FastAPI nor a decoder sees it.
"""

from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.client import EngineClient
from service.errors import Overloaded, ServiceError, Unavailable
from service.http.bodies.receive import too_many_bytes
from service.http.context import RequestContext
from service.http.forecast import Forecast
from service.http.keys import Keys
from service.http.responses import error_response
from service.requests.admission.admission import Admission
from service.requests.cache.lookups import Lookups
from service.settings.settings import Settings


class Gate:
    """Lets a request through or answers it."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        guarded_paths: Collection[str],
        admission: Admission,
        forecast: Forecast,
        client: EngineClient,
        draining: Callable[[], bool],
        lookups: Lookups | None = None,
    ) -> None:
        """guarded_paths: those whose POSTs bring images. lookups: None if no picture is remembered."""
        self._app = app
        self._guarded_paths = frozenset(guarded_paths)
        self._keys = Keys(settings)
        self._max_upload_bytes = settings.max_upload_bytes
        self._admission, self._forecast = admission, forecast
        self._client, self._draining, self._lookups = client, draining, lookups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
            except ServiceError as error:
                await error_response(error, RequestContext.of(scope))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        bulk = self._keys.check(scope["path"], headers)
        if scope["method"] != "POST" or scope["path"] not in self._guarded_paths:
            return
        hold = RequestContext.of(scope).hold
        hold.bulk = bulk or self._forecast.bulk(scope, headers)
        if self._draining():
            raise Unavailable("the server is draining")
        if not self._client.accepts_jobs:
            untrue = self._client.trust.untrue
            more = "" if untrue is None else f": the device gives wrong vectors, and is being replaced ({untrue})"
            raise Unavailable(f"the engine is not ready{more}")
        announced_bytes = self._announced_bytes(headers)
        try:
            self._admission.check_queue(self._forecast.tokens(scope, headers), bulk=hold.bulk)
        except Overloaded:
            lookup = self._lookups.begin(announced_bytes) if self._lookups is not None else None
            if lookup is None:
                raise
            hold.lookup = lookup
        self._admission.check_bytes(announced_bytes, bulk=hold.bulk)

    def _announced_bytes(self, headers: Headers) -> int:
        # The protocol refuses a Content-Length that is no number.
        announced_bytes = int(headers.get("content-length", "0"))
        if announced_bytes > self._max_upload_bytes:
            raise too_many_bytes(self._max_upload_bytes)
        return announced_bytes
