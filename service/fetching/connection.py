"""A connection to an address that was checked, for httpcore: it asks this module for every connection that it opens."""

import ssl
from collections.abc import Iterable, Sequence

import httpcore2 as httpcore

from service.fetching.addresses import Address

# The most bytes of an answer before its body. They are parsed on the event loop, which more would hold for tens of ms.
MAX_HEAD_BYTES = 32 * 1024
# A host may be broken over one kind of address: this many of each kind are tried.
_TRIED_OF_A_KIND = 2


class HeadTooLarge(Exception):
    """The answer does not get to its body."""


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to given addresses, whatever host it is asked for. TLS verifies the host's name, and not the address."""

    def __init__(self, addresses: Sequence[Address], tcp: httpcore.AsyncNetworkBackend) -> None:
        """tcp: opens connections to literal addresses."""
        self._addresses = _tried(addresses)
        self._tcp = tcp
        self._opened: httpcore.AsyncNetworkStream | None = None
        self._head_bytes_left: int | None = MAX_HEAD_BYTES

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Tries one address after the other. timeout: seconds for each."""
        for address in self._addresses[:-1]:
            try:
                return await self._connect(address, port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(self._addresses[-1], port, timeout)

    async def _connect(self, address: Address, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
        self._opened = await self._tcp.connect_tcp(str(address), port, timeout)
        return _Stream(self._opened, self)

    def head_came(self) -> None:
        """The answer's head is read. What follows is the body."""
        self._head_bytes_left = None

    def may_read(self, most: int) -> int:
        """How many bytes may be read now. Raises `HeadTooLarge`."""
        if self._head_bytes_left is None:
            return most
        if not self._head_bytes_left:
            raise HeadTooLarge
        return min(most, self._head_bytes_left)

    def was_read(self, size: int) -> None:
        if self._head_bytes_left is not None:
            self._head_bytes_left -= size

    async def aclose(self) -> None:
        """Closes the connection in any state, also if TLS had not begun to be one."""
        if self._opened is not None:
            await self._opened.aclose()


class _Stream(httpcore.AsyncNetworkStream):
    """Bytes of a connection, within the bounds of its backend."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, backend: CheckedBackend) -> None:
        self._stream, self._backend = stream, backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(self._backend.may_read(max_bytes), timeout)
        self._backend.was_read(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._backend)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _tried(addresses: Sequence[Address]) -> list[Address]:
    """The first of each kind, in their order."""
    kinds = [[address for address in addresses if address.version == version][:_TRIED_OF_A_KIND] for version in (4, 6)]
    return [address for address in addresses if address in kinds[0] or address in kinds[1]]
