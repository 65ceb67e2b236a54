"""A real Redis between replicas; and servers that go on when it is slow, away, or says nonsense."""

import asyncio
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from service.metrics import StoreOutcome
from service.requests.cache import store as store_module
from service.requests.cache.seen import packed, unpacked
from tests import pictures
from tests.service.requests.cache.seen_pictures import DIM, key_of, seen
from tests.service.running import serving, until

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
needs_store = pytest.mark.skipif(SERVER is None, reason="needs redis-server or valkey-server (apt-get install)")
PICTURE = pictures.save(pictures.picture(48, 64), "PNG")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that keeps nothing on disk and takes 64 MB."""
    assert SERVER is not None
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "64mb", "--dir", str(folder)]
    running = subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL)
    try:
        until(lambda: answers(port))
        yield port
    finally:
        running.kill()
        running.wait()


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@needs_store
def test_a_replica_finds_what_another_embedded(loaded: tuple[Runner, ModelFacts], store: int) -> None:
    settings: dict[str, Any] = {
        "cache_url": f"redis://127.0.0.1:{store}/0",
        "cache_bytes": 10**6,
        "cache_timeout_ms": 5000,
    }
    with serving(loaded, **settings) as first:
        computed = first.embed(PICTURE, encoding="base64").json()
        until(lambda: first.metric("cache_store_total", outcome="written") == 1)
    with serving(loaded, **settings) as second:
        shared = second.embed(PICTURE, encoding="base64").json()
        assert second.decoder.decodes == 0
        assert shared["data"][0].pop("cached")
        assert shared["usage"].pop("cached_tokens") == computed["usage"]["tokens"]
        assert shared == computed
        assert second.metric("cache_images_total", outcome="shared") == 1
        assert second.embed(PICTURE).json()["data"][0]["cached"]
        assert second.metric("cache_images_total", outcome="hit") == 1
        assert second.metric("cache_store_total", outcome="found") == 1


@needs_store
def test_a_store_alone_serves_without_memory_of_its_own(loaded: tuple[Runner, ModelFacts], store: int) -> None:
    url = f"valkey://127.0.0.1:{store}/1"
    with serving(loaded, cache_url=url, cache_timeout_ms=5000) as server:
        server.embed(PICTURE)
        until(lambda: server.metric("cache_store_total", outcome="written") == 1)
        assert server.embed(PICTURE).json()["data"][0]["cached"]
        assert server.metric("cache_bytes") == 0


def test_a_store_that_is_away_fails_no_request_and_is_left_alone(loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded, cache_url=f"redis://127.0.0.1:{free_port()}/0") as server:
        assert server.embed(PICTURE).status_code == 200
        assert server.embed(PICTURE + b"\0").status_code == 200
        assert server.metric("cache_store_total", outcome="failed") >= 1
        assert server.metric("cache_store_total", outcome="written") == 0


@pytest.mark.parametrize("says", [b"", b"$3\r\nabc\r\n" * 50, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_store_that_is_silent_or_is_none_fails_no_request(loaded: tuple[Runner, ModelFacts], says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                taken.append(connection)
                connection.sendall(says)

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        port = listening.getsockname()[1]
        with serving(loaded, cache_url=f"redis://127.0.0.1:{port}/0", cache_bytes=10**6) as server:
            for number in range(20):
                answer = server.embed(PICTURE + b"\0" * (number % 5), max_tokens=8)
                assert answer.status_code == 200
            assert server.metric("cache_store_total", outcome="failed") >= 1
            assert server.metric("cache_store_total", outcome="found") == 0
        listening.shutdown(socket.SHUT_RDWR)
        taking.join()
        for connection in taken:
            connection.close()


class ClosingStore:
    """An empty store whose connection takes until `closed` to close."""

    def __init__(self) -> None:
        self.closing, self.closed = asyncio.Event(), asyncio.Event()

    async def mget(self, keys: list[bytes]) -> list[None]:
        return [None] * len(keys)

    async def aclose(self) -> None:
        self.closing.set()
        await self.closed.wait()


def test_a_request_that_comes_while_an_idle_connection_closes_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[StoreOutcome]:
        opened: list[ClosingStore] = []

        def client(url: str) -> ClosingStore:
            opened.append(ClosingStore())
            return opened[-1]

        monkeypatch.setattr(store_module, "_client", client)
        monkeypatch.setattr(store_module, "_IDLE_S", 0.0)
        outcomes: list[StoreOutcome] = []
        store = store_module.SharedStore("", timeout_s=1.0, ttl_s=1, count=outcomes.append)
        await store.get(b"1")
        await opened[0].closing.wait()
        await store.get(b"2")
        for each in opened:
            each.closed.set()
        return outcomes

    assert asyncio.run(main()) == ["missing", "missing"]


def test_what_is_stored_is_read_back_to_the_bit() -> None:
    for number in range(4):
        before = seen(number, segments=1 + 2 * (number % 2))
        after = unpacked(key_of(number), packed(key_of(number), before), dim=DIM)
        assert after is not None
        assert (after.plan, after.repaired, after.format) == (before.plan, before.repaired, before.format)
        assert after.pooled.tobytes() == before.pooled.tobytes()
        assert after.pooled.shape == before.pooled.shape


def test_what_is_not_this_pictures_is_not_taken() -> None:
    data = packed(key_of(1), seen(1))
    assert unpacked(key_of(2), data, dim=DIM) is None
    assert unpacked(key_of(1), data, dim=DIM + 1) is None
    assert unpacked(key_of(1), b"", dim=DIM) is None
    for at in range(len(data)):
        assert unpacked(key_of(1), data[:at], dim=DIM) is None
        changed = unpacked(key_of(1), data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :], dim=DIM)
        assert changed is None or changed.pooled.shape == (1, DIM)
