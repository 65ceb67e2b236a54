"""Fetches images from URLs, within limits of addresses, time, redirects and type.

A host is resolved once for each URL. The addresses are checked, and the connection goes to one of them and to nothing
else. Each redirect is a URL like any other. httpcore sends the request: it knows no proxy, cookie, password file,
redirect or content coding, and opens connections only through `connection.py`.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from importlib import import_module
from importlib.metadata import version
from io import BytesIO
from ipaddress import IPv4Address, IPv6Network
from typing import Final, Protocol, cast

import httpcore2 as httpcore

from service.errors import Invalid, ServiceError
from service.fetching.addresses import Address, is_private, is_public
from service.fetching.allowlist import Allowed, Allowlist, Trust
from service.fetching.connection import MAX_HEAD_BYTES, CheckedBackend, HeadTooLarge
from service.fetching.failures import FetchOutcome, failed, no_public_address, outcome_of, timed_out
from service.fetching.resolver import Resolver
from service.fetching.turns import Turns
from service.fetching.urls import Url

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# To connect to one address, and between two pieces of an answer.
_CONNECT_S, _SILENCE_S = 4.0, 5.0
# Reserved before any byte of an image has come, and then this many times what has come, as for uploads: a host that
# announces much and sends little takes nobody's room.
_FIRST_BYTES, _AHEAD = 64 * 1024, 8
# Each piece of a chunked body takes the event loop some 20 µs: a body of single bytes would take minutes.
_FREE_PIECES, _BYTES_A_PIECE, _PIECES_A_TURN = 4096, 256, 64
_BINARY_TYPES = frozenset((b"", b"application/octet-stream", b"binary/octet-stream"))
_IDLE: Final = {"connect": _CONNECT_S, "read": _SILENCE_S, "write": _SILENCE_S}

_log = logging.getLogger(__name__)


class Room(Protocol):
    """What an image is charged to while it comes. Both raise `ServiceError` if so many bytes do not fit."""

    def check(self, size: int) -> None:
        """Whether the image may have so many bytes."""

    def reserve(self, size: int) -> None:
        """Makes the bytes charged for the image exactly `size`."""


class Fetcher:
    """Fetches for many requests at once. A turn is held only while a host is connected to."""

    def __init__(
        self,
        allowlist: Allowlist,
        *,
        resolver: Resolver,
        timeout_s: float,
        turns: Turns,
        count: Callable[[FetchOutcome], None] = lambda outcome: None,
        trace_headers: Callable[[], Sequence[tuple[str, str]]] = tuple,
        tcp: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """timeout_s: the longest that a host may be looked for, and that it may take to answer. turns: of fetches at
        once, by host, address and request. count: called once for each fetch. trace_headers: further ones of the
        request that is fetched for, which hosts of `url_allowlist` get and others do not. tcp: opens connections to
        addresses. tls: by default trusts the authorities that the system trusts."""
        self._allowlist, self._resolver, self._count = allowlist, resolver, count
        self._trace_headers = trace_headers
        self._timeout_s, self._turns = timeout_s, turns
        self._tcp = tcp or httpcore.AnyIOBackend()
        self._tls = tls
        if allowlist.allowed != "off":
            # Takes 20 ms.
            self._tls = tls or httpcore.default_ssl_context()
            # Otherwise loaded by the first connection, which would hold the event loop for 200 ms.
            with suppress(ImportError):
                import_module("anyio._backends._asyncio")
        self._agent = f"packlight/{version('packlight')}"

    @property
    def allowed(self) -> Allowed:
        return self._allowlist.allowed

    def read(self, text: str) -> Url:
        """Raises `Invalid` for a URL that may not be fetched. Asks no name server: that comes with the fetch."""
        return self._allowlist.read(text)

    async def fetch(self, url: Url, room: Room, *, request: str, bulk: bool = False) -> bytes:
        """The bytes under a URL, which are charged to `room` before they are held.

        request: names the request among those that fetch now. bulk: its class. Raises `Invalid` if a URL on the way may
        not be fetched, `FetchFailed` if a host does not give the image, and what `room` raises.
        """
        began_s, error = time.monotonic(), None
        outcome: FetchOutcome = "abandoned"
        try:
            data = await self._follow(url, room, request, bulk=bulk)
            outcome = "fetched"
            return data
        except ServiceError as raised:
            outcome, error = outcome_of(raised), raised.message
            raise
        finally:
            self._count(outcome)
            if error is not None:
                # No path and no query: they may be signed.
                ms = round((time.monotonic() - began_s) * 1000, 2)
                fields = {"host": url.netloc, "outcome": outcome, "ms": ms, "error": error}
                _log.info("fetch", extra={"fields": fields})

    async def _follow(self, url: Url, room: Room, request: str, *, bulk: bool) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = await self._visit(url, room, request, bulk=bulk)
            if isinstance(answer, bytes):
                return answer
            url = self._redirected(url, answer)
        raise failed(f"its host redirects more than {_MAX_REDIRECTS} times")

    def _redirected(self, url: Url, location: str) -> Url:
        try:
            following = url.joined(location)
            self._allowlist.trust(following)
        except Invalid as error:
            raise Invalid(f"the URL redirects to one that is not fetched: {error.message}", param="image") from None
        if (url.scheme, following.scheme) == ("https", "http"):
            raise failed("its host redirects from https to http")
        return following

    async def _visit(self, url: Url, room: Room, request: str, *, bulk: bool) -> bytes | str:
        """The image, or where it is to be found."""
        addresses = await self._addresses(url, self._allowlist.trust(url), bulk=bulk)
        kinds = f"request {request}", f"host {url.host}", f"address {_site(addresses[0])}"
        async with self._turns.turn(*kinds, bulk=bulk):
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._get(url, addresses, room)
            except TimeoutError:
                raise timed_out(f"its host took over {self._timeout_s * 1000:.0f} ms (url_timeout_ms)") from None

    async def _addresses(self, url: Url, trust: Trust, *, bulk: bool) -> list[Address]:
        """Every address of the host, if all may be connected to: otherwise a name with one good address would do."""
        found: list[Address] = [url.address] if url.address else []
        if not found:
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await self._resolver.addresses(url.host, searched=trust == "private", bulk=bulk)
            except TimeoutError:
                raise timed_out("no name server answered for its host") from None
        if not found and trust == "private":
            raise failed("its host has no address")
        if not found or not all(is_public(each) or (trust == "private" and is_private(each)) for each in found):
            raise no_public_address()
        return found

    async def _get(self, url: Url, addresses: list[Address], room: Room) -> bytes | str:
        backend = CheckedBackend(addresses, self._tcp)
        where = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        connection = httpcore.AsyncHTTPConnection(where.origin, ssl_context=self._tls, network_backend=backend)
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", url.netloc),
            ("User-Agent", self._agent),
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        if self._allowlist.names(url):
            headers += self._trace_headers()
        asked = httpcore.Request("GET", where, headers=headers, extensions={"timeout": _IDLE})
        try:
            response = await connection.handle_async_request(asked)
            backend.head_came()
            return await _read_answer(response, room)
        except (httpcore.ConnectTimeout, httpcore.ReadTimeout, httpcore.WriteTimeout):
            raise timed_out("its host does not answer") from None
        except httpcore.ConnectError as error:
            tls = isinstance(error.__cause__, ssl.SSLError)
            raise failed("the TLS of its host is not accepted" if tls else "its host takes no connection") from None
        except HeadTooLarge:
            raise failed(f"its host answers with over {MAX_HEAD_BYTES} bytes of headers") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            raise failed("its host broke off, or does not speak HTTP/1.1") from None
        finally:
            await backend.aclose()


def _site(address: Address) -> str:
    """What one owner has: an address, or 2**64 of IPv6."""
    return str(address) if isinstance(address, IPv4Address) else str(IPv6Network((address, 64), strict=False))


async def _read_answer(response: httpcore.Response, room: Room) -> bytes | str:
    """The image, or where a redirect points. Raises `FetchFailed` for any other answer."""
    headers = [(name.lower(), value.strip()) for name, value in response.headers]
    if response.status in _REDIRECTS:
        for name, value in headers:
            if name == b"location":
                return value.decode("utf-8", "replace")
    if response.status != 200:
        raise failed(f"its host answers with status {response.status}")
    for name, value in headers:
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise failed("its host compresses it, although it was asked not to")
        if name == b"content-type" and not _is_image_type(value):
            raise failed(f"its host answers with {value[:60].decode('latin-1')!a}, not with an image")
    announced = next((int(value) for name, value in headers if name == b"content-length"), 0)
    # The whole has to fit now. What is kept for it grows with what comes.
    room.check(announced)
    body = BytesIO()
    async with aclosing(aiter(cast(AsyncIterator[bytes], response.stream))) as pieces:  # type: ignore[type-var]
        await _write_body(pieces, body, announced, room)
    if not body.tell():
        raise failed("its host answers with nothing")
    room.reserve(body.tell())
    return body.getvalue()


async def _write_body(pieces: AsyncIterator[bytes], body: BytesIO, announced: int, room: Room) -> None:
    count = 0
    room.reserve(min(announced, _FIRST_BYTES))
    async for piece in pieces:
        count += 1
        received = body.tell() + len(piece)
        if count > _FREE_PIECES + received // _BYTES_A_PIECE:
            raise failed("its host sends it in too small pieces")
        room.reserve(max(received, min(announced, max(_FIRST_BYTES, _AHEAD * received))))
        body.write(piece)
        if count % _PIECES_A_TURN == 0:
            # Pieces that came together are read without waiting.
            await asyncio.sleep(0)


def _is_image_type(value: bytes) -> bool:
    """Stores often know no type of a file."""
    kind = value.partition(b";")[0].strip().lower()
    return kind.startswith(b"image/") or kind in _BINARY_TYPES
