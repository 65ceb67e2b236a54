"""One real server for all clients, and what it saw of each."""

import asyncio
from collections.abc import Iterator

import pytest

from service.http.protocol.connection import BoundedProtocol
from service.loading import load_runner
from service.settings.settings import Settings
from tests.clients.asking import Seen
from tests.service.running import Running, serving, until


@pytest.fixture(scope="session")
def session_server() -> Iterator[Running]:
    with serving(load_runner(Settings(devices="cpu", dtype="float32"))) as running:
        yield running


@pytest.fixture
def server(session_server: Running) -> Iterator[Running]:
    # The test before may have left a request that only now ends.
    until(session_server.is_quiet)
    yield session_server
    until(session_server.is_empty)


@pytest.fixture
def seen(server: Running, monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    made, complete = BoundedProtocol.connection_made, BoundedProtocol.on_headers_complete

    def connection_made(self: BoundedProtocol, transport: asyncio.Transport) -> None:
        seen.connections += 1
        made(self, transport)

    def on_headers_complete(self: BoundedProtocol) -> None:
        seen.heads.append({name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers})
        complete(self)

    monkeypatch.setattr(BoundedProtocol, "connection_made", connection_made)
    monkeypatch.setattr(BoundedProtocol, "on_headers_complete", on_headers_complete)
    return seen
