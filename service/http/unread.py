"""Lets a client that is still sending its body read its refusal.

Closing a connection with unread bytes resets it, and the answer may be lost. So the rest of the body is received and
thrown away for up to two seconds, and then the connection is closed.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATIENCE_S = 2.0


class DiscardUnread:
    """The outermost layer: it sees whether the body was read to its end before the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope.get("headers", ())
        )
        closing = False

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def send_and_note(message: Message) -> None:
            """Sends the whole answer, but leaves it unfinished while the client may still be sending."""
            nonlocal closing
            if message["type"] == "http.response.start" and unread:
                closing = True
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] == "http.response.body" and closing:
                message = {**message, "more_body": True}
            await send(message)

        await self._app(scope, receive_and_note, send_and_note)
        if closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    while unread:
                        await receive_and_note()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
