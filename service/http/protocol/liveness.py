"""Answers 503 to whoever asks whether the process is alive, once it knows that it is not.

Outside of the application: a model that is loaded again gets another one.
"""

from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LIVENESS_PATHS = ("/livez", "/ping", "/.well-known/live")


class Liveness:
    """One of the layers of the server."""

    def __init__(self, app: ASGIApp, fault: Callable[[], str | None]) -> None:
        """fault: why the process is not live; None while it is."""
        self._app, self._fault = app, fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if (why := self._fault()) and scope["type"] == "http" and scope["path"] in LIVENESS_PATHS:
            app = JSONResponse({"status": why}, 503)
        await app(scope, receive, send)
