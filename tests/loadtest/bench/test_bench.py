"""What the benchmarks make of what they measured: rates, refusals, verdicts, and who sends what when."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench.clients.crowd import LEFT, Answer, Kind, timetable
from loadtest.bench.clients.figures import Stretch, goodput_over_capacity, outcome, retry_after, statuses, steady_rate
from loadtest.bench.overload import Plan, make_bodies
from loadtest.bench.servers.running import free_port, paused, running
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
