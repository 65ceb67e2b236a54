"""Refuses, in plain ASGI, what can be refused before a body is read: key, length, a full queue, bytes in flight.

A refusal costs a fraction of a millisecond. Neither FastAPI nor a decoder sees it.
"""

import base64
import hmac
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.client import EngineClient
from service.errors import ServiceError, Unauthorized, Unavailable
from service.http.bodies.receive import too_many_bytes
from service.http.context import RequestContext
from service.http.forecast import Forecast
from service.http.paths import FIGURES_PATHS, HEALTH_PATHS
from service.http.responses import error_response
from service.requests.admission import Admission
from service.settings import Settings

# Health checks come from machines without a key. The pages hold nothing secret, and ask for the key themselves.
_OPEN_PATHS = frozenset({*HEALTH_PATHS, "/", "/docs", "/openapi.json"})
_OPEN_FOLDERS = ("/pages/", "/docs/")


def open_paths(settings: Settings) -> frozenset[str]:
    """The routes that take no key, and do not stand in a folder of files."""
    return _OPEN_PATHS.union(FIGURES_PATHS) if settings.metrics_open else _OPEN_PATHS


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
    ) -> None:
        """guarded_paths: those whose POSTs bring images."""
        self._app = app
        self._guarded_paths = frozenset(guarded_paths)
        self._api_keys = [key.encode() for key in settings.all_api_keys()]
        self._open_paths = open_paths(settings)
        self._max_upload_bytes = settings.max_upload_bytes
        self._admission, self._forecast = admission, forecast
        self._client, self._draining = client, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
            except ServiceError as error:
                await error_response(error, RequestContext.of(scope))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._api_keys and not self._is_open(scope["path"]):
            self._check_key(headers)
        if scope["method"] != "POST" or scope["path"] not in self._guarded_paths:
            return
        if self._draining() or not self._client.accepts_jobs:
            raise Unavailable("the server is draining" if self._draining() else "the engine is not ready")
        announced_bytes = self._announced_bytes(headers)
        self._admission.check_queue(self._forecast.tokens(scope, headers))
        self._admission.check_bytes(announced_bytes)

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(_OPEN_FOLDERS)

    def _check_key(self, headers: Headers) -> None:
        given = _given_key(headers).strip().encode()
        # Comparing every key in constant time keeps the time from telling anything about them.
        matches = sum(hmac.compare_digest(given, key) for key in self._api_keys)
        if not matches:
            raise Unauthorized("send one of the server's keys as Authorization: Bearer KEY or X-API-Key (api_keys)")

    def _announced_bytes(self, headers: Headers) -> int:
        # The protocol refuses a Content-Length that is no number.
        announced_bytes = int(headers.get("content-length", "0"))
        if announced_bytes > self._max_upload_bytes:
            raise too_many_bytes(self._max_upload_bytes)
        return announced_bytes


def _given_key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return token
        case "basic":
            return _password(token)
    return headers.get("x-api-key", "")


def _password(token: str) -> str:
    """The password of a URL, where some clients can only take a key; empty if it cannot be read."""
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
