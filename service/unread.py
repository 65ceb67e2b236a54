"""Answers that come before the body has: a client that is still sending must be able to read its refusal.

Closing a connection with bytes unread resets it, and the answer may be lost on the way. So what remains of the body is
received and thrown away for a moment, and then the connection is closed.
"""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATIENCE_S = 2.0


class DiscardUnread:
    """The outermost layer: it knows whether the body was read to its end when the answer goes out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def send_then_discard(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] != "http.response.body" or message.get("more_body") or not unread:
                await send(message)
                return
            await send({**message, "more_body": True})
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    while unread:
                        await receive_and_note()
            except TimeoutError:
                pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_and_note, send_then_discard)
