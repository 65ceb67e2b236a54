"""The sender against real servers: its records are what happened, and unsent requests are not hidden."""

import asyncio
import time

import numpy as np
import pytest

from loadtest.runs.summary import Frame, summarise
from loadtest.sending.records import CONNECTION, TIMEOUT, UNSENT, Records
from loadtest.sending.sender import Load, Sender
from loadtest.traffic.arrivals import Pattern, due_times
from tests.loadtest.fakes import FakePacklight, Stall, plain_wires

WIRES = plain_wires()


def send(url: str, *, rate: float, duration_s: float, pattern: Pattern = "constant", **options: float) -> Records:
    due_s = due_times(pattern, rate=rate, duration_s=duration_s, seed=1)
    return asyncio.run(_sender(url, duration_s, due_s, **options).run())


def _sender(url, duration_s, due_s, **options) -> Sender:
    count = 1000 if due_s is None else len(due_s)
    templates = [n % len(WIRES) for n in range(count)]
    return Sender(url, WIRES, Load(time.monotonic() + 0.05, duration_s, templates, range(count), due_s, **options))


def summary(records: Records, duration_s: float, concurrency: int | None = None, slo_ms: float | None = None):
    frame = Frame(concurrency, 0.0, duration_s, slo_ms, ("only",))
    return summarise(records, frame, body_bytes=[len(wire.body) for wire in WIRES])


def test_percentiles_are_those_of_the_servers_delays():
    # In every hundred requests 89 take 20 ms, 9 take 300 ms and 2 take 900 ms.
    delays = {**dict.fromkeys(range(9), 0.3), 50: 0.9, 51: 0.9}
    with FakePacklight(lambda number: delays.get(number * 37 % 100, 0.02)) as server:
        records = send(server.url, rate=200, duration_s=1, pattern="poisson")
        seen = np.percentile(np.array(server.took_s) * 1e3, [50, 95, 99.5])
    found = summary(records, 1)
    overhead_ms = records.latency_ms - records.stages_ms["forward"]
    assert (overhead_ms >= 0).all()
    assert found.latency_ms.count == 200
    for level, mine in zip(
        seen, (found.latency_ms.p50, found.latency_ms.p95, float(np.percentile(records.latency_ms, 99.5))), strict=True
    ):
        assert level <= mine <= level + overhead_ms.max()
    assert 20 <= found.latency_ms.p50 < 300 <= found.latency_ms.p95 < 900 <= found.latency_ms.p99 + overhead_ms.max()


def test_a_stall_of_two_seconds_shows_in_every_request_that_was_due_in_it():
    with FakePacklight(Stall(at_s=0.3, for_s=2.0)) as server:
        records = send(server.url, rate=50, duration_s=2.6)
    found = summary(records, 2.6, slo_ms=500)
    # Requests are due evenly over the stall: the first waits for all of it, the last for none. Load adds to it.
    waited = np.count_nonzero(records.latency_ms > 500)
    assert found.latency_ms.max >= 1950
    assert 50 * 1.5 * 0.95 <= waited < 130
    assert found.goodput_share == pytest.approx(1 - waited / 130)
    assert found.unsent == 0


def test_a_rate_that_cannot_be_held_is_reported():
    with FakePacklight(lambda number: 0.5) as server:
        records = send(server.url, rate=100, duration_s=1, max_in_flight=10)
    found = summary(records, 1)
    assert not found.held
    assert found.offered == 100
    assert found.unsent > 50
    assert found.sent == found.offered - found.unsent == np.count_nonzero(records.status != UNSENT)
    assert found.offered_rate == 100 > 2 * found.sent_rate


def test_more_than_a_process_can_send_is_late_or_unsent_and_counted():
    with FakePacklight() as server:
        records = send(server.url, rate=20_000, duration_s=0.5)
    found = summary(records, 0.5)
    assert found.offered == 10_000
    assert not found.held
    assert found.late + found.unsent > 5_000


def test_waiting_for_the_sender_counts_as_latency():
    with FakePacklight() as server:

        async def with_a_busy_loop() -> Records:
            due_s = due_times("constant", rate=20, duration_s=1, seed=1)
            running = asyncio.create_task(_sender(server.url, 1.0, due_s).run())
            await asyncio.sleep(0.3)
            time.sleep(0.4)  # noqa: ASYNC251
            return await running

        records = asyncio.run(with_a_busy_loop())
    found = summary(records, 1)
    assert found.latency_ms.max > 250
    assert found.late >= 5
    assert not found.held


def test_a_closed_loop_keeps_as_many_in_flight_as_it_is_told():
    with FakePacklight(lambda number: 0.05) as server:
        records = asyncio.run(_sender(server.url, 0.6, None, concurrency=4).run())
        took_s = float(np.mean(server.took_s))
    found = summary(records, 0.6, concurrency=4)
    assert found.mode == "closed"
    assert found.answered_rate == pytest.approx(4 / (found.service_ms.mean / 1e3), rel=0.02)
    assert found.answered_rate < 4 / took_s


def test_errors_are_named_by_their_status_and_kept_out_of_the_percentiles():
    with FakePacklight(lambda number: 0.03, refuse=lambda number: (0, 429, 503)[number % 3]) as server:
        records = send(server.url, rate=120, duration_s=0.5)
    found = summary(records, 0.5)
    assert found.errors == {"503": 20, "429": 20}
    assert found.latency_ms.count == 20
    assert found.latency_ms.p50 >= 30


def test_a_timeout_and_a_lost_connection_are_told_apart():
    with FakePacklight(lambda number: 5.0) as server:
        records = send(server.url, rate=20, duration_s=0.2, timeout_s=0.3)
    assert set(records.status) == {TIMEOUT}
    records = send(server.url, rate=20, duration_s=0.2)
    assert set(records.status) == {CONNECTION}


def test_stopping_keeps_the_answers_and_abandons_the_rest():
    with FakePacklight(lambda number: 0.01 if number < 10 else 1000) as server:

        async def stopped() -> Records:
            due_s = due_times("constant", rate=40, duration_s=1000, seed=1)
            sender = _sender(server.url, 1000, due_s, grace_s=0.1)
            running = asyncio.create_task(sender.run())
            while len(server.took_s) < 10 or len(server.bodies) < 12:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            sender.stop()
            return await running

        records = asyncio.run(stopped())
    assert np.count_nonzero(records.ok) == 10
    assert 12 <= len(records) < 10_000
