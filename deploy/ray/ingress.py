"""Bounds the bodies that Serve's proxy takes, within the proxy.

The proxy hands a body to a replica as fast as it comes, and the replica takes all of it before the application reads
any: no limit of the application bounds that memory. So this layer stands before the proxy, in its process, and lets no
more in than `max_inflight_bytes` at once. It holds requests to the key, `max_upload_bytes` and `upload_timeout_ms` too,
gives what Serve says by itself the shape of our errors, and leaves one `X-Request-ID` in an answer.

Ray calls `middlewares` in every proxy if the environment of `ray start` says so: see `HOOK`.
"""

import asyncio
import random
from collections.abc import Callable

import orjson
from ray.util.metrics import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import (
    DeadlineExceeded,
    NotFound,
    Overloaded,
    ServiceError,
    TooLarge,
    Unavailable,
    UploadTimeout,
    packlight_error,
)
from service.http.bodies.pace import Upload
from service.http.bodies.receive import too_many_bytes
from service.http.keys import Keys
from service.http.observe import is_request_id
from service.http.paths import DIALECTS_BY_PATH
from service.http.unread import DiscardUnread
from service.requests.admission.inflight import InflightBytes
from service.settings.loading import load_settings
from service.settings.settings import Settings

# The variable in which Ray looks for what stands before its proxy, and what it must say.
HOOK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "deploy.ray.ingress.middlewares")
# Serve's own pages: health and routes.
_SERVES_OWN = "/-/"


def middlewares() -> list[Middleware]:
    """For `HOOK`. Raises `SettingsError`."""
    refused = Counter(
        "packlight_ingress_refused", description="Requests refused before Serve's proxy.", tag_keys=("reason",)
    )
    return [Middleware(bounded, load_settings({}), lambda reason: refused.inc(tags={"reason": reason}))]


def bounded(app: ASGIApp, settings: Settings, refuse: Callable[[str], None]) -> ASGIApp:
    """The proxy, with bounds before it. refuse: is told the reason of each refusal."""
    return DiscardUnread(Ingress(app, settings, refuse))


class Ingress:
    """Lets a request through to the proxy or answers it."""

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Callable[[str], None]) -> None:
        self._app, self._settings, self._refuse = app, settings, refuse
        self._keys = Keys(settings)
        self._bytes = InflightBytes(settings.max_inflight_bytes, upload_timeout_s=settings.upload_timeout_ms / 1000)
        # Seeded by the system, so that no two proxies make the same ids.
        self._random = random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_SERVES_OWN):
            await self._app(scope, receive, send)
            return
        request_id = self._name(scope)
        exchange = _Exchange(self._upload(Headers(scope=scope)), self._bytes, receive, send)
        try:
            self._check(scope, exchange)
            await self._app(scope, exchange.receive, exchange.send)
        except ServiceError as error:
            exchange.refusal = error
        finally:
            exchange.give_back()
        if owed := exchange.owed():
            self._refuse(owed.reason)
            dialect = DIALECTS_BY_PATH.get(scope["path"])
            body = orjson.dumps((dialect.error if dialect else packlight_error)(owed))
            headers = owed.headers() | {"X-Request-ID": request_id}
            await Response(body, owed.status, headers, "application/json")(scope, receive, send)

    def _name(self, scope: Scope) -> str:
        """The request's id. Serve and the replica find it in its headers, and make none of their own."""
        headers = MutableHeaders(scope=scope)
        if not is_request_id(headers.get("x-request-id", "")):
            headers["X-Request-ID"] = f"{self._random.getrandbits(128):032x}"
        return headers["X-Request-ID"]

    def _upload(self, headers: Headers) -> Upload:
        announced = headers.get("content-length")
        if announced is None and "transfer-encoding" not in headers:
            announced = "0"
        return Upload(
            announced_bytes=None if announced is None else int(announced),
            copies=1,
            max_bytes=self._settings.max_upload_bytes,
            max_held_bytes=self._settings.max_inflight_bytes,
            timeout_s=self._settings.upload_timeout_ms / 1000,
        )

    def _check(self, scope: Scope, exchange: "_Exchange") -> None:
        self._keys.check(scope["path"], Headers(scope=scope))
        exchange.begin()


class _Exchange:
    """One request and its answer, between the client and the proxy.

    refusal: what to answer in place of the proxy's answer.
    """

    def __init__(self, upload: Upload, held: InflightBytes, receive: Receive, send: Send) -> None:
        self._upload, self._bytes, self._receive, self._send = upload, held, receive, send
        self._began_s = asyncio.get_running_loop().time()
        self._held = self._received = 0
        self._whole = upload.announced_bytes == 0
        self._gone = self._answered = False
        self.refusal: ServiceError | None = None

    def begin(self) -> None:
        """Raises `TooLarge` or `Overloaded` before any of the body is read."""
        announced = self._upload.announced_bytes or 0
        if announced > self._upload.max_bytes:
            raise too_many_bytes(self._upload.max_bytes)
        self._bytes.check(announced)
        self._reserve()

    def give_back(self) -> None:
        self._bytes.give_back(self._held)
        self._held = 0

    def owed(self) -> ServiceError | None:
        """What to answer, once the proxy is done, to a client that has no answer yet."""
        if self._answered or self._gone:
            return None
        return self.refusal or Unavailable("the replica that had the request is gone; send it again", reason="lost")

    async def receive(self) -> Message:
        """What the proxy reads. A refused upload looks to it like a client that has gone."""
        if self.refusal:
            return {"type": "http.disconnect"}
        try:
            if self._whole:
                message = await self._receive()
            else:
                async with asyncio.timeout_at(self._began_s + self._upload.limit_s(self._received)):
                    message = await self._receive()
            self._note(message)
        except TimeoutError:
            self.refusal = UploadTimeout(
                f"the body comes too slowly: {self._received} bytes of {self._upload.announced_bytes or 'more'}; "
                f"it may take {self._upload.timeout_s * 1000:.0f} ms (upload_timeout_ms)"
            )
        except (TooLarge, Overloaded) as error:
            self.refusal = error
        return {"type": "http.disconnect"} if self.refusal else message

    def _note(self, message: Message) -> None:
        if message["type"] != "http.request":
            self._gone = True
            return
        self._received += len(message.get("body", b""))
        if self._received > self._upload.max_bytes:
            raise too_many_bytes(self._upload.max_bytes)
        self._reserve()
        self._whole = not message.get("more_body", False)

    def _reserve(self) -> None:
        """Charges what may come next, or what has come if that is all."""
        size = self._upload.held_bytes(self._received)
        self._bytes.take(size - self._held)
        self._held = size

    async def send(self, message: Message) -> None:
        """What the proxy answers."""
        if self.refusal and not self._answered:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            named = headers.getlist("x-request-id")
            # The proxy adds the id to every answer. One that came from a replica has it twice.
            if len(named) == 1 and (error := _error_of_serve(message["status"], headers)):
                self.refusal = error
                return
            headers["X-Request-ID"] = named[0]
        self._answered = True
        await self._send(message)


def _error_of_serve(status: int, headers: Headers) -> ServiceError | None:
    """What Serve answers by itself, as one of our errors."""
    match status:
        case 429:
            return Overloaded(
                "overloaded: every replica has as many requests as it may (max_ongoing_requests, max_queued_requests)",
                retry_after_s=int(headers.get("retry-after", "1")),
                reason="serve_queue_full",
            )
        case 503:
            return Unavailable("no replica is ready")
        case 404:
            return NotFound("no application is served here")
        case 408:
            return DeadlineExceeded("the request took too long (request_timeout_s of Serve's http_options)")
    return None
