"""Real hosts in threads of the tests, a resolver that answers as a test says, and a fetcher of both."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpcore2 as httpcore

from service.errors import TooLarge
from service.fetching.addresses import Address
from service.fetching.allowlist import Allowlist, Trust
from service.fetching.fetcher import Fetcher
from service.fetching.turns import Turns
from service.fetching.urls import Url
from tests.service.running import PATIENCE_S

# Of images.example.com, signed by itself, and valid until 2125.
CERTIFICATE = Path(__file__).with_name("host.pem")

Reply = bytes | Callable[[socket.socket], None]


def reply(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """An answer with its length, unless it is left out."""
    lengths = [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([f"HTTP/1.1 {status}", *lengths, *headers, "", ""]).encode() + body


def image(body: bytes) -> bytes:
    return reply(body, "Content-Type: image/png")


def redirect(location: str, status: str = "302 Found") -> bytes:
    return reply(b"", f"Location: {location}", status=status)


def hang(connection: socket.socket) -> None:
    """Says nothing until the other side leaves."""
    with suppress(OSError):
        connection.recv(1)


class Host:
    """A server of a few answers by path, which keeps the heads of the requests that it got."""

    def __init__(
        self, answers: dict[str, Reply] | None = None, *, address: str = "127.0.0.1", tls: bool = False
    ) -> None:
        """heads: of the requests that came. names: those asked for in TLS. left: counts connections that ended."""
        self.answers = answers or {}
        self.heads: list[str] = []
        self.names: list[str | None] = []
        self.left = threading.Semaphore(0)
        self._tls = tls
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listening = socket.create_server((address, 0), family=family, backlog=128)
        self.port = int(self._listening.getsockname()[1])

    def url(self, path: str = "/", *, name: str = "images.test") -> str:
        return f"http{'s' if self._tls else ''}://{name}:{self.port}{path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # `close` alone would not wake the thread.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(PATIENCE_S)
            with self._secured(connection) as secured:
                self._converse(secured)
        self.left.release()

    def _converse(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(65536)):
                return
            head += piece
        self.heads.append(head.decode())
        answer = self.answers.get(head.split()[1].decode(), reply(status="404 Not Found"))
        if isinstance(answer, bytes):
            connection.sendall(answer)
        else:
            answer(connection)

    def _secured(self, connection: socket.socket) -> socket.socket:
        if not self._tls:
            return connection
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        context.sni_callback = lambda _, name, __: self.names.append(name)
        return context.wrap_socket(connection, server_side=True)


class Listener:
    """Counts connections on all addresses of this machine, and says nothing."""

    def __init__(self) -> None:
        self._sockets = [socket.create_server(("", 0))]
        with suppress(OSError):  # no IPv6 here
            self._sockets.append(socket.create_server(("::", self.port), family=socket.AF_INET6, dualstack_ipv6=False))
        for each in self._sockets:
            each.setblocking(False)

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def heard(self) -> int:
        """Connections since it was last asked. The system has made them before anybody accepts them."""
        count = 0
        for each in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    each.accept()[0].close()
                    count += 1
        return count

    def close(self) -> None:
        for each in self._sockets:
            each.close()


class Names:
    """A resolver of a test's own. A host has one list of addresses, or one after the other, and at last the same."""

    def __init__(self, **answers: Any) -> None:
        """answers: by host, with _ for a dot: addresses, or lists of addresses."""
        self._answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[tuple[str, bool]] = []

    async def addresses(self, host: str, *, searched: bool, bulk: bool = False) -> list[Address]:
        self.asked.append((host, searched))
        answer = self._answers.get(host, [])
        if answer and isinstance(answer[0], list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return [ip_address(each) for each in answer]


class AllAllowed(Allowlist):
    """Lets every URL through, of any port: only the check of addresses is left."""

    def __init__(self) -> None:
        super().__init__(public=True)

    def trust(self, url: Url) -> Trust:
        return "public"


class Wiretap(httpcore.AsyncNetworkBackend):
    """Notes the addresses that it is asked for, and connects to this machine in their place."""

    def __init__(self, *broken: str) -> None:
        """broken: addresses that take no connection."""
        self.asked: list[str] = []
        self._broken = broken
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        if host in self._broken:
            raise httpcore.ConnectError
        return await self._tcp.connect_tcp("127.0.0.1", port, timeout)


class Room:
    """What a fetch is charged to. It has no room for more than `most`."""

    def __init__(self, most: int = 10**6) -> None:
        self.most, self.bytes = most, 0
        self.checked: list[int] = []
        self.reserved: list[int] = []

    def check(self, size: int) -> None:
        self.checked.append(size)
        if size > self.most:
            raise TooLarge("over the limit")

    def reserve(self, size: int) -> None:
        if size > self.most:
            raise TooLarge("over the limit")
        self.bytes = size
        self.reserved.append(size)


# That of the system takes 20 ms to make, and tests make hundreds of fetchers.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def trusting(*hosts: Host, resolver: Names | None = None, timeout_s: float = PATIENCE_S, **others: Any) -> Fetcher:
    """A fetcher that is allowed to ask these hosts, under the names images.test and localhost."""
    entries = [f"private http://{name}:{host.port}" for host in hosts for name in ("images.test", "localhost")]
    resolver = resolver or Names(images_test=["127.0.0.1"], localhost=["127.0.0.1"])
    return Fetcher(Allowlist(entries), resolver=resolver, timeout_s=timeout_s, turns=Turns(8), tls=NO_TLS, **others)


def fetch(fetcher: Fetcher, url: str, room: Room | None = None) -> bytes:
    room = room or Room()
    data = asyncio.run(fetcher.fetch(fetcher.read(url), room, request="1"))
    assert room.bytes == len(data), "the bytes charged are not those held"
    return data
