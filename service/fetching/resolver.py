"""Names of hosts to addresses, as the system resolves them."""

import asyncio
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Protocol

from model import threads
from service.fetching.addresses import Address
from service.fetching.turns import Turns


class Resolver(Protocol):
    """What a fetcher asks once for each URL."""

    async def addresses(self, host: str, *, searched: bool, bulk: bool = False) -> list[Address]:
        """All addresses of a host, those to try first in front; none if it has none.

        searched: short names are looked up in the system's own domains too. bulk: asked for a bulk request.
        """


class SystemResolver:
    """Asks the system, in a thread for each question: the answer cannot be given up, and may take half a minute.

    A thread of a pool that others use would make them wait for the slowest name server in the world.
    """

    def __init__(self, most: int, *, interactive_share: float = 0.0) -> None:
        """most: questions at once. One domain may have a quarter of them, however many names are in it.
        interactive_share: as in `Turns`."""
        self._turns = Turns(most, interactive_share=interactive_share)

    async def addresses(self, host: str, *, searched: bool, bulk: bool = False) -> list[Address]:
        domain = ".".join(host.split(".")[-2:])
        await self._turns.take(domain, bulk=bulk)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()

        def take_answer(found: list[Address]) -> None:
            self._turns.give_back(domain, bulk=bulk)
            if not answer.done():
                answer.set_result(found)

        def ask() -> None:
            found: list[Address] = []
            try:
                # A dot at the end makes the name a whole one, which no domain of the system is appended to.
                found = _look_up(host if searched else f"{host}.")
            finally:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(take_answer, found)

        try:
            # A daemon: at its end the server does not wait for name servers.
            threads.passing(ask, "resolve")
        except RuntimeError:
            self._turns.give_back(domain, bulk=bulk)
            return []
        return await answer


def _look_up(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
