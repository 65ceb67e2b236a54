"""The two ways into a replica: through Serve, and to the pages that are its own."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError, packlight_error
from service.http.keys import Keys
from service.http.paths import EMBEDDING_PATHS, FIGURES_PATHS, HEALTH_PATHS
from service.settings.settings import Settings

# Where Prometheus finds the replicas.
REPLICAS_PATH = "/replicas"


class Door:
    """What Serve calls: the server, and the list of all replicas. It counts the requests that embed."""

    def __init__(
        self, app: ASGIApp, settings: Settings, targets: Callable[[], Awaitable[list[dict[str, Any]]]]
    ) -> None:
        """targets: of all replicas, as Prometheus' HTTP service discovery wants them."""
        self._app, self._keys, self._targets = app, Keys(settings), targets
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == REPLICAS_PATH:
            await (await self._list(Headers(scope=scope)))(scope, receive, send)
            return
        embeds = scope["type"] == "http" and scope["path"] in EMBEDDING_PATHS
        self.requests += embeds
        try:
            await self._app(scope, receive, send)
        finally:
            self.requests -= embeds

    async def _list(self, headers: Headers) -> JSONResponse:
        """To those who may read `/metrics`."""
        try:
            self._keys.check(FIGURES_PATHS[0], headers)
        except ServiceError as error:
            return JSONResponse(packlight_error(error), error.status, headers=error.headers())
        return JSONResponse(await self._targets())


class OwnPages:
    """Health and figures of one replica. Through Serve they would be those of any."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in (*FIGURES_PATHS, *HEALTH_PATHS):
            scope = {**scope, "path": "/nothing-else-here"}
        await self._app(scope, receive, send)
