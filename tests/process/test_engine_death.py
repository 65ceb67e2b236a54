"""While the engine is killed again and again, every request is answered once, with the bits of a quiet server."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.watching.exits import EXIT_LOST
from tests import pictures
from tests.process.programs.faulty_engine import GRAY, LOSES_THE_DEVICE, LOSES_THE_DEVICE_AND_THE_LOOP
from tests.process.server import FAULTY, PAUSE_S, SMALL_PACKS, Server, coloured, memory_bytes, open_files, running
from tests.service.running import error_of
from tests.waiting import until

DEATHS = 10
CLIENTS = 6
PHOTOGRAPH = pictures.photograph_file("rocket.jpg")


class Load:
    """Clients that ask again and again for the same picture under changing budgets, and keep every answer."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.answers: list[tuple[int, int, str]] = []
        self._clients = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for client in self._clients:
            client.start()

    def _ask(self, number: int) -> None:
        tokens = 16 + number
        while not self._over.wait(PAUSE_S):
            tokens = 16 + (tokens * 7 + number) % 100
            answer = self._server.embed(PHOTOGRAPH, max_tokens=tokens, encoding="base64")
            embedding = answer.json()["data"][0]["embedding"] if answer.status_code == 200 else answer.text
            self.answers.append((tokens, answer.status_code, embedding))

    def stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(*SMALL_PACKS) as running_server:
        yield running_server


def kill_engine(server: Server) -> float:
    """Seconds until the server says that it is ready again."""
    (engine,) = server.engines
    os.kill(engine, signal.SIGKILL)
    began_s = time.monotonic()
    until(lambda: server.engines not in ([], [engine]) and server.is_ready())
    return time.monotonic() - began_s


def test_ten_deaths_under_load_lose_nothing_change_nothing_and_leave_nothing(server: Server) -> None:
    quiet = {tokens: server.embed(PHOTOGRAPH, max_tokens=tokens, encoding="base64") for tokens in range(16, 116)}
    load = Load(server)
    (worker,) = server.http_processes
    times_s, sizes = [], []
    for _ in range(DEATHS):
        answered = len(load.answers)
        until(lambda answered=answered: len(load.answers) > answered + 2 * CLIENTS)  # type: ignore[misc]
        times_s.append(kill_engine(server))
        sizes.append((memory_bytes(worker), memory_bytes(server.process.pid), open_files(worker)))
    load.stop()

    assert {status for _, status, _ in load.answers} == {200}
    assert all(quiet[tokens].json()["data"][0]["embedding"] == embedding for tokens, _, embedding in load.answers)
    logged = re.findall(r"request request_id=(\w+) method=POST route=/embed status=200", server.log)
    until(lambda: len(set(re.findall(r"request_id=(\w+) method=POST", server.log))) == len(load.answers) + len(quiet))
    assert len(set(logged)) == len(logged)
    assert server.metric('engine_restarts_total{reason="died"}') == DEATHS
    assert server.metric("charged_tokens_total") <= server.metric('tokens_total{kind="image"}')
    until(server.is_empty)

    # Printed, not asserted (`pytest -rP`): on two quiet cores each should be under 3 s.
    print(f"ready again after {', '.join(f'{seconds:.1f}' for seconds in times_s)} s")  # noqa: T201
    # The first death allocates some things for good.
    (worker_bytes, parent_bytes, files), last = sizes[1], sizes[-1]
    assert last[0] < worker_bytes + 20e6
    assert last[1] < parent_bytes + 10e6
    assert last[2] <= files + 2


def test_a_death_at_rest_is_noticed_and_mended(server: Server) -> None:
    until(server.is_empty)
    before = server.embed(PHOTOGRAPH).content
    assert kill_engine(server) > 0
    assert server.embed(PHOTOGRAPH).content == before


def test_while_there_is_no_engine_the_server_is_alive_says_so_and_tells_an_image_that_waits_when_it_is_too_late(
    server: Server,
) -> None:
    # An engine that has run no pack is not started again at once.
    assert server.embed(PHOTOGRAPH).status_code == 200
    (engine,) = server.engines
    os.kill(engine, signal.SIGKILL)
    until(lambda: not server.is_ready())
    assert server.http.get("/livez").status_code == 200
    assert server.metric("engine_up") == 0
    assert server.embed(PHOTOGRAPH, timeout_ms=100).status_code == 504
    assert server.embed(PHOTOGRAPH).status_code == 200
    until(server.is_ready)
    assert server.metric("engine_up") == 1
    until(server.is_empty)


# An engine that is a thread of the server


def test_a_server_whose_engine_thread_dies_answers_what_it_can_says_why_and_exits() -> None:
    # The fourth image fills the pack, and nothing else ends the wait for it: a square takes exactly 256 tokens.
    patience = ["--max-wait-ms", "300000", "--default-timeout-ms", "600000"]
    options = ["--engine", "thread", "--max-batch-tokens", str(4 * 256), *patience]
    with running(*options, program=FAULTY) as server, ThreadPoolExecutor(4) as pool:
        images = [coloured(colour, (64, 64)) for colour in (LOSES_THE_DEVICE, *[GRAY] * 3)]
        waiting = [pool.submit(server.embed, image) for image in images]
        assert server.wait() == EXIT_LOST
        assert {error_of(answer.result())[:2] for answer in waiting} == {(500, "engine_fault")}
        assert "the engine thread has died" in server.log
        assert "an illegal memory access was encountered" in server.log


def test_a_server_whose_engine_thread_dies_exits_even_if_its_event_loop_is_stuck() -> None:
    with running("--engine", "thread", *SMALL_PACKS, program=FAULTY) as server:
        with pytest.raises(httpx.TransportError):
            server.embed(coloured(LOSES_THE_DEVICE_AND_THE_LOOP))
        assert server.wait() == EXIT_LOST
        assert "the engine thread has died" in server.log
