"""What the benchmarks make of what they measured: rates, refusals, verdicts, and who sends what when."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench import soak
from loadtest.bench.clients.crowd import LEFT, Answer, Kind, timetable
from loadtest.bench.clients.figures import Stretch, goodput_over_capacity, outcome, retry_after, statuses, steady_rate
from loadtest.bench.overload import Plan, make_bodies
from loadtest.bench.servers.processes import ProcessUse
from loadtest.bench.servers.running import free_port, paused, running
from loadtest.bench.soak import Sample, slope_per_hour, verdicts
from loadtest.sending.records import TIMEOUT
from loadtest.traffic.bodies import Wire
from tests.service.running import until

WIRE = Wire("/embed", {}, b"", 1, 0)


def answer(
    done_s: float, status: int = 200, *, kind: Kind = "good", sent_s: float = 0.0, retry_after_s: int | None = None
) -> Answer:
    return Answer(kind, sent_s, sent_s, done_s, status, 1, retry_after_s)


# Rates


@given(st.integers(1, 32), st.floats(0.05, 2.0), st.floats(0.0, 1.0))
def test_the_rate_of_answers_that_come_in_packs_is_exact_wherever_the_window_lies(
    images: int, pack_s: float, shift: float
) -> None:
    done_s = [number * pack_s for number in range(200) for _ in range(images)]
    start_s = (20 + shift) * pack_s
    assert steady_rate(done_s, start_s, start_s + 50.5 * pack_s) == pytest.approx(images / pack_s)


def test_answers_that_stop_half_way_count_against_the_whole_window() -> None:
    assert steady_rate([0.5, 1.0, 1.5, 2.0], 0.0, 10.0) == pytest.approx(0.4)
    assert steady_rate([], 0.0, 10.0) == 0.0


# Outcomes


def test_an_answer_after_its_deadline_is_no_goodput_and_a_miss() -> None:
    answers = [
        answer(1.0),
        answer(2.0),
        answer(6.0),
        answer(3.0, 504),
        answer(0.1, 429),
        answer(1, 422, kind="corrupt"),
    ]
    row, goodput = outcome(answers, seconds=4.0, timeout_s=5.0)
    assert goodput == pytest.approx(1.0)
    assert (row["accepted"], row["missed_504"], row["missed_late_200"]) == (4, 1, 1)
    assert row["p50_ms"] == 2000.0


def test_goodput_leaves_out_the_time_in_which_the_queue_fills() -> None:
    answers = [answer(2.0), *(answer(done_s) for done_s in (4.0, 5.0, 6.0, 7.0, 8.0))]
    assert outcome(answers, seconds=8.0, timeout_s=9.0)[1] == pytest.approx(6 / 8)
    assert outcome(answers, seconds=8.0, timeout_s=9.0, settling_s=4.0)[1] == pytest.approx(1.0)


def test_each_goodput_is_held_against_the_capacity_on_both_its_sides() -> None:
    capacities = [Stretch(images_per_s, 2.0, 0.0) for images_per_s in (10.0, 8.0, 12.0, 10.0)]
    row = goodput_over_capacity(capacities, [Stretch(goodput, 2.0, 0.2) for goodput in (9.0, 9.0, 12.1)])
    assert row == {"median": 1.0, "each": [1.0, 0.9, 1.1], "sender_off": 1.111}


def test_answers_are_counted_by_name() -> None:
    answers = [answer(1), answer(1), answer(1, TIMEOUT), answer(1, LEFT, kind="leaving"), answer(1, 408, kind="slow")]
    assert statuses(answers, "good", "leaving") == {"200": 2, "no answer in time": 1, "left": 1}


def test_what_refusals_said_is_held_against_the_next_answer() -> None:
    refused = [answer(1.0, 429, retry_after_s=1), answer(1.5, 429, retry_after_s=1), answer(5.0, 429, retry_after_s=1)]
    row = retry_after([*refused, answer(3.0), answer(2.25, 422, kind="corrupt"), answer(9.0, 429)])
    assert (row["refused"], row["without"], row["said_s"]) == (4, 1, {1: 2})
    assert row["room_by_then"] == 0.5
    assert row["room_max_s"] == 1.25


def test_without_refusals_there_is_nothing_to_hold_against() -> None:
    assert retry_after([answer(1.0)])["room_by_then"] is None


# Who sends what when


def test_each_kind_has_its_share_and_those_that_leave_know_when() -> None:
    wires: dict[Kind, Sequence[Wire]] = {"good": [WIRE], "corrupt": [WIRE], "leaving": [WIRE]}
    arrivals = timetable(wires, {"corrupt": 0.05, "leaving": 0.1}, rate=50, seconds=4, seed=3)
    assert Counter(arrival.kind for arrival in arrivals) == {"good": 170, "corrupt": 10, "leaving": 20}
    assert [arrival.due_s for arrival in arrivals] == sorted(arrival.due_s for arrival in arrivals)
    assert all((arrival.leaves_after_s is None) == (arrival.kind != "leaving") for arrival in arrivals)


def test_the_same_seed_is_the_same_timetable() -> None:
    wires: dict[Kind, Sequence[Wire]] = {"good": [WIRE], "corrupt": [WIRE]}
    first, again, other = (timetable(wires, {"corrupt": 0.2}, rate=30, seconds=2, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_every_request_of_the_overload_has_its_deadline_and_broken_ones_lack_their_end() -> None:
    bodies = make_bodies(Plan(timeout_s=2.5), distinct=2)
    assert all("timeout_ms=2500" in wire.target for wire in (*bodies.good, *bodies.corrupt))
    assert not any("timeout_ms" in wire.target for wire in bodies.patient)
    assert all(
        whole.body.startswith(broken.body) and len(broken.body) < len(whole.body)
        for whole, broken in zip(bodies.good, bodies.corrupt, strict=True)
    )


# Servers side by side


def test_a_paused_server_stands_still_and_goes_on() -> None:
    port = free_port()
    with running([sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1"], port=port, ready_path="/") as one:
        with paused([one]):
            until(lambda: state_of(one.pid) == "T")
        until(lambda: state_of(one.pid) != "T")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


# The verdicts of a soak


def samples(memory_mb: Sequence[float], files: Sequence[int]) -> list[Sample]:
    return [
        Sample(
            10.0 * place, [ProcessUse(1, "engine", int(mb * 1e6), 0, 5, 0.0), ProcessUse(2, "http", 0, 0, count, 0.0)]
        )
        for place, (mb, count) in enumerate(zip(memory_mb, files, strict=True))
    ]


def verdict_of(memory_mb: Sequence[float], files: Sequence[int], answers: Sequence[Answer]) -> dict[object, object]:
    seconds = 10.0 * len(memory_mb)
    return {row["case"]: row["verdict"] for row in verdicts(samples(memory_mb, files), answers, seconds)}


def answers_taking(ms: Sequence[float], seconds: float) -> list[Answer]:
    step_s = seconds / len(ms)
    return [answer(n * step_s + took / 1e3, sent_s=n * step_s) for n, took in enumerate(ms)]


def test_a_run_that_stays_as_it_is_is_flat_in_everything() -> None:
    found = verdict_of([300, 350, *[400.0, 900.0] * 19], [20, 35] * 20, answers_taking([50, 60] * 200, 400))
    assert set(found.values()) == {"flat"}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("what", "memory_mb", "files", "ms", "lost"),
    [
        ("memory, MB", [400 + 2 * n for n in range(40)], [20] * 40, [50] * 400, 0),
        ("open files", [400] * 40, [20 + n // 4 for n in range(40)], [50] * 400, 0),
        ("p50, ms", [400] * 40, [20] * 40, [50 + n / 4 for n in range(400)], 0),
        ("p99, ms", [400] * 40, [20] * 40, [50] * 320 + [*[50] * 9, 500] * 8, 0),
        ("requests without an answer", [400] * 40, [20] * 40, [50] * 400, 1),
    ],
)
def test_what_grows_is_said_to_grow_and_nothing_else(
    what: str, memory_mb: list[float], files: list[int], ms: list[float], lost: int
) -> None:
    answers = [*answers_taking(ms, 400), *[answer(1.0, TIMEOUT)] * lost]
    found = verdict_of(memory_mb, files, answers)
    growing = {name for name, verdict in found.items() if verdict == "grows"}
    assert what in growing
    assert growing <= {what, "p99, ms"}


def test_the_slope_is_by_the_hour_of_the_least_of_each_minute_and_leaves_out_what_was_before() -> None:
    at_s = [10.0 * n for n in range(60)]
    values = [0.0 if at < 120 else at / 60 if at % 60 == 20 else 500.0 for at in at_s]
    assert slope_per_hour(at_s, values, 120.0) == pytest.approx(60.0)


def test_latency_is_by_the_minute_in_which_a_request_was_due() -> None:
    rows = soak.minutes(answers_taking([100.0] * 60 + [300.0] * 60, 120), 120)
    assert [(row["case"], row["answered"], row["p50_ms"]) for row in rows] == [
        ("minute 1", 60, 100.0),
        ("minute 2", 60, 300.0),
    ]
