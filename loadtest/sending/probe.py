"""Questions to a server before and after a run: does it take these requests, what is it, what are its metrics.

If it does not take them, a `TargetError` names the address and the reason in one line. A probe sends no load.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from loadtest.errors import TargetError, UsageError
from loadtest.sending.answers import read_error
from loadtest.traffic.bodies import Wire

_HINTS = {
    401: "give --api-key",
    403: "give --api-key",
    404: "is the URL right? --path names another route",
    405: "is the URL right? --path names another route",
    503: "the server is not ready",
}


def base_url(text: str) -> str:
    """A URL without trailing slashes. Raises `UsageError` unless it is http or https, without a query."""
    with suppress(ValueError):
        parts = urlsplit(text)
        # A port that is no number shows when it is read.
        if (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and not parts.query + parts.fragment
        ):
            return text.rstrip("/")
    raise UsageError(f"{text!r} is not a URL such as http://127.0.0.1:8000")


class Probe:
    """A few requests to one server, before and after its load."""

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout_s: float) -> None:
        self._url = url
        self._headers = dict(headers)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def try_each(self, wires: Sequence[Wire], names: Sequence[str]) -> None:
        """Sends each request once. The server must take them all, except that it may refuse for load (429)."""
        async with aiohttp.ClientSession(timeout=self._timeout) as session:
            for wire in wires:
                await self._try(session, wire, names[wire.class_index])

    async def _try(self, session: aiohttp.ClientSession, wire: Wire, name: str) -> None:
        url = self._url + wire.target.partition("?")[0]
        try:
            # A generator instead of bytes: aiohttp warns of large bodies that are written in one piece.
            async with session.post(self._url + wire.target, data=_pieces(wire), headers=_sized(wire)) as response:
                status, reason, body = response.status, response.reason, await response.read()
        except TimeoutError as error:
            raise TargetError(f"POST {url}: no answer in {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TargetError(f"POST {url}: {_why(error)}") from error
        if status != 429 and not 200 <= status < 300:
            hint = f" ({_HINTS[status]})" if status in _HINTS else ""
            asked = f', for a request of class "{name}"' if status in (400, 413, 415, 422) else ""
            raise TargetError(f"POST {url}: {status} {reason}{asked}: {read_error(body) or 'no reason given'}{hint}")

    async def metrics(self) -> str | None:
        """The text of `/metrics`, or none if there is no such route."""
        return await self._get("/metrics")

    async def info(self) -> dict[str, Any]:
        """The content of `/info`, empty if there is none."""
        text = await self._get("/info")
        try:
            content = json.loads(text or "")
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    async def _get(self, path: str) -> str | None:
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, headers=self._headers) as session,
                session.get(self._url + path) as response,
            ):
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError):
            return None


async def _pieces(wire: Wire) -> Any:
    for start in range(0, len(wire.body), 1 << 19):
        yield wire.body[start : start + (1 << 19)]


def _sized(wire: Wire) -> dict[str, str]:
    return {**wire.headers, "Content-Length": str(len(wire.body))}


def _why(error: Exception) -> str:
    """An error of aiohttp or the system in a few words."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no such host"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
        return f"cannot connect ({reason})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    return f"not an HTTP answer ({type(error).__name__})"
