"""More load than a server can take: each request is finished or refused, and nothing stays behind."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from loadtest.bench.clients.crowd import LEFT, Answer, Crowd, Kind, timetable
from loadtest.bench.overload import SHARES, Bodies, Plan, make_bodies
from loadtest.traffic.bodies import Wire
from tests.process.server import Server, memory_bytes, running
from tests.waiting import PATIENCE_S, until

TOKENS = 576
# Room for a few images, so that any rate is too much.
QUEUE_TOKENS = 8 * TOKENS
SETTINGS = [
    "--max-image-tokens", str(TOKENS), "--max-batch-tokens", str(2 * TOKENS), "--max-queue-tokens", str(QUEUE_TOKENS),
    "--upload-timeout-ms", "1000",
]  # fmt: skip
SECONDS = 3.0
# Memory that caches and allocators may still take after the first load.
SOME_BYTES = 64 * 1024**2


def load(server: Server, bodies: Bodies, *, seconds: float) -> list[Answer]:
    """Three times what the server can do, and slow uploads. Returns one answer a request."""

    async def send() -> tuple[int, list[Answer]]:
        url = f"http://127.0.0.1:{server.port}"
        async with Crowd(url, timeout_s=PATIENCE_S) as crowd:
            await crowd.closed_loop(bodies.patient, clients=4, seconds=1.0)
            rate = 3 * len(crowd.answers)
        wires: dict[Kind, Sequence[Wire]] = {"good": bodies.good, "corrupt": bodies.corrupt, "leaving": bodies.good}
        arrivals = timetable(wires, SHARES, rate=rate, seconds=seconds, seed=1)
        async with Crowd(url, timeout_s=PATIENCE_S) as crowd, asyncio.TaskGroup() as group:
            group.create_task(crowd.open_loop(arrivals))
            group.create_task(crowd.slow_uploads(bodies.good[0], clients=3, seconds=seconds))
        return len(arrivals), crowd.answers

    offered, answers = asyncio.run(send())
    assert sum(answer.kind != "slow" for answer in answers) == offered
    return answers


@pytest.mark.parametrize("engine", ["thread", "process"])
def test_three_times_the_capacity_is_refused_or_answered_and_leaves_nothing_behind(engine: str) -> None:
    bodies = make_bodies(Plan(timeout_s=PATIENCE_S, tokens=TOKENS), distinct=6)
    with running(*SETTINGS, "--engine", engine) as server:
        load(server, bodies, seconds=SECONDS)
        until(server.is_empty)
        memory_before = memory_of(server)
        answers = load(server, bodies, seconds=SECONDS)
        counts = {
            kind: Counter(answer.status for answer in answers if answer.kind == kind) for kind in ("good", "slow")
        }
        assert counts["good"].keys() <= {200, 429}
        assert counts["good"][200] > 0
        assert counts["good"][429] > 0
        assert counts["slow"].keys() <= {408, 429, LEFT}
        assert {answer.status for answer in answers if answer.kind == "corrupt"} <= {422, 429}
        assert all((answer.retry_after_s or 0) >= 1 for answer in answers if answer.status == 429)
        until(server.is_empty)
        assert memory_of(server) < memory_before + SOME_BYTES
        assert server.embed(bodies.good[0].body).status_code == 200


def memory_of(server: Server) -> int:
    return sum(memory_bytes(pid) for pid in (server.process.pid, *server.children()))
