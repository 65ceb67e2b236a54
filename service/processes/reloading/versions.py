"""The application of the served model as one that can be replaced.

A request stays with the application that it began with, to the end of its answer. The next one on the same connection
goes to the one that is served then.
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class Version:
    """One application, and the requests that are with it. retired: another has taken its place."""

    def __init__(self, number: int = 0) -> None:
        """number: of the model, counted from the start of the server."""
        self.number = number
        self.app: ASGIApp | None = None
        self.retired = False
        self.requests = 0
        self.on_idle: Callable[[], None] = lambda: None

    async def idle(self) -> None:
        """Waits until it is retired and no request is with it."""
        if not self.retired or self.requests:
            idle = asyncio.Event()
            self.on_idle = idle.set
            await idle.wait()


class Versions:
    """Requests go to the newest version. Belongs to one event loop."""

    def __init__(self, first: Version) -> None:
        self.current = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = self.current
        assert version.app is not None
        version.requests += 1
        try:
            await version.app(scope, receive, send)
        finally:
            version.requests -= 1
            if version.retired and not version.requests:
                version.on_idle()

    def replace(self, newer: Version) -> Version:
        """Returns the one before, which is retired."""
        before, self.current = self.current, newer
        before.retired = True
        return before
