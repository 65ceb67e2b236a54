import asyncio
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from service.fetching.resolver import SystemResolver
from tests.service.running import PATIENCE_S


class System:
    """Stands for `getaddrinfo`, the system's only way to ask: answers as it says, and late for names that hang."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()

    def __call__(self, host: str, port: None, **options: Any) -> list[Any]:
        self.asked.append(host)
        if "hang" in host:
            self.free.wait(PATIENCE_S)
        if "none" in host:
            raise socket.gaierror(socket.EAI_NONAME)
        return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("1.1.1.1", "1.1.1.2", "1.1.1.1")]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    made = System()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.free.set()


def test_the_system_resolves_the_names_of_this_machine() -> None:
    found = asyncio.run(SystemResolver(1).addresses("localhost", searched=True))
    assert ip_address("127.0.0.1") in found or ip_address("::1") in found


def test_addresses_keep_their_order_and_a_name_without_any_has_none(system: System) -> None:
    async def main() -> None:
        resolver = SystemResolver(4)
        assert list(map(str, await resolver.addresses("a.test", searched=False))) == ["1.1.1.1", "1.1.1.2"]
        assert await resolver.addresses("none.test", searched=False) == []

    asyncio.run(main())


def test_a_name_is_whole_unless_the_domains_of_the_system_are_meant(system: System) -> None:
    async def main() -> None:
        await SystemResolver(4).addresses("a.test", searched=False)
        await SystemResolver(4).addresses("minio", searched=True)

    asyncio.run(main())
    assert system.asked == ["a.test.", "minio"]


def test_questions_of_bulk_leave_a_turn_to_others(system: System) -> None:
    async def main() -> None:
        resolver = SystemResolver(4, interactive_share=0.25)
        hanging = [
            asyncio.create_task(resolver.addresses(f"hang.evil{n}.test", searched=False, bulk=True)) for n in range(9)
        ]
        assert await resolver.addresses("a.good.test", searched=False)
        assert sum("hang" in host for host in system.asked) == 3
        system.free.set()
        await asyncio.gather(*hanging)

    asyncio.run(main())


def test_a_domain_whose_name_servers_hang_makes_nobody_else_wait(system: System) -> None:
    async def main() -> None:
        resolver = SystemResolver(8)
        hanging = [asyncio.create_task(resolver.addresses(f"hang{n}.evil.test", searched=False)) for n in range(20)]
        assert await resolver.addresses("a.good.test", searched=False)
        assert not any(task.done() for task in hanging)
        assert sum("hang" in host for host in system.asked) == 2
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        # Their threads still wait, and the turns are theirs.
        stuck = asyncio.create_task(resolver.addresses("b.evil.test", searched=False))
        assert await resolver.addresses("c.good.test", searched=False)
        assert not stuck.done()
        system.free.set()
        assert await stuck

    asyncio.run(main())
