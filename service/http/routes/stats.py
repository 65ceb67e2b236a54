"""`GET /stats`: how the server is doing and which packs it ran, line after line for as long as a client reads."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import Overloaded, Unavailable
from service.http import schemas
from service.http.context import RequestContext
from service.http.stats.feed import StatsFeed
from service.http.stats.line import StatsLine

_MEDIA_TYPE = "application/x-ndjson"
_DESCRIPTION = (
    "A line of JSON about every half second: an object of the shape shown, the first at once. `full` says that its "
    "packs are the last ones; otherwise they are those since the line before. The answer ends when the server drains."
)


def stats_router(feed: StatsFeed, *, draining: Callable[[], bool]) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/stats",
        response_model=None,
        responses={200: stats_answer(), **schemas.described((Overloaded,))},
        summary="Packs, queue and latencies as they are, as a stream",
    )
    async def stats(request: Request) -> Response:
        if draining():
            raise Unavailable("the server is draining")
        context = RequestContext.of(request.scope)
        # A stream lasts as long as somebody looks, which says nothing of the server.
        context.timed = False
        return _StatsResponse(feed, only_head=context.method == "HEAD")

    return router


def stats_answer() -> dict[str, Any]:
    return {"model": StatsLine, "description": _DESCRIPTION}


class _StatsResponse(Response):
    """Sends a line whenever there is one and the client has taken the one before."""

    def __init__(self, feed: StatsFeed, *, only_head: bool) -> None:
        # Proxies that keep answers, or gather them before they pass them on, would show an old state.
        super().__init__(media_type=_MEDIA_TYPE, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._feed, self._only_head = feed, only_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._only_head:
            await self._send_start(send)
        else:
            with self._feed.listening() as listener:
                await self._send_start(send)
                gone = asyncio.create_task(_until_gone(receive))
                try:
                    while not gone.done() and (line := await listener.next_line()) is not None:
                        await send({"type": "http.response.body", "body": line, "more_body": True})
                finally:
                    gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _until_gone(receive: Receive) -> None:
    """uvicorn takes what is sent to a closed connection without a word."""
    while (await receive())["type"] != "http.disconnect":
        pass
