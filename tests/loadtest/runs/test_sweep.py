"""The search for the knee: its decisions on handmade steps, and a whole sweep of a server of known capacity."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.__main__ import main
from loadtest.runs.summary import summarise
from loadtest.runs.sweep import Plan, Step, Verdict, bracket, judge, next_rate
from tests.loadtest.fakes import FakePacklight, Queue
from tests.loadtest.runs.test_summary import frame, rows

PLAN = Plan(start=10, factor=2, tolerance=0.05)
SUMMARY = summarise(rows([0.0], [0.1]), frame(), body_bytes=[1])


def step(rate: float, reason: str = "", **more) -> Step:
    return Step(rate, SUMMARY, Verdict(reason, **more))


def test_the_rate_is_raised_while_it_holds():
    assert next_rate([], PLAN)[0] == 10
    assert next_rate([step(10), step(20)], PLAN)[0] == 40


def test_the_highest_rate_allowed_ends_the_sweep():
    plan = Plan(start=10, factor=2, tolerance=0.05, stop=15)
    assert next_rate([step(10)], plan)[0] == 15
    rate, why = next_rate([step(10), step(15)], plan)
    assert rate is None
    assert "no more" in why


def test_the_capacity_of_an_overloaded_step_guides_the_search():
    assert next_rate([step(10), step(40, "late", capacity=30)], PLAN)[0] == pytest.approx(29.4)


def test_a_sender_that_cannot_hold_the_rate_ends_the_sweep_without_blaming_the_server():
    rate, why = next_rate([step(10), step(20, "sender", by_sender=True)], PLAN)
    assert rate is None
    assert "sender" in why


def test_a_server_overloaded_from_the_start_is_tried_at_lower_rates_and_given_up():
    assert next_rate([step(10, "late")], PLAN)[0] == 5
    steps = [step(10 / 2**n, "late") for n in range(7)]
    assert next_rate(steps, PLAN) == (None, "overloaded at every rate that was tried")


@given(st.floats(0.5, 5000), st.booleans())
def test_any_capacity_is_bracketed(capacity, known):
    steps: list[Step] = []
    while (rate := next_rate(steps, PLAN)[0]) is not None:
        over = rate > capacity
        steps.append(step(rate, "late" if over else "", capacity=capacity if over and known else None))
    low, high = bracket(steps)
    assert low is not None
    assert high is not None
    assert low <= capacity < high.rate <= low * 1.0501


def test_every_reason_is_stated():
    due_s = [n / 100 for n in range(1000)]
    late = rows(due_s, [0.1 + due / 2 for due in due_s])
    found = judge(summarise(late, frame(), body_bytes=[1]), late)
    assert found.reason == "latency grows by 0.50 s every second"
    assert found.capacity == pytest.approx(100 / 1.5)
    failing = rows(due_s, [0.1] * 1000, status=429)
    assert (
        "100% of the requests failed (1000 × 429)" in judge(summarise(failing, frame(), body_bytes=[1]), failing).reason
    )
    steady = rows(due_s, [0.1] * 1000)
    assert not judge(summarise(steady, frame(), body_bytes=[1]), steady).reason
    assert "over the SLO" in judge(summarise(steady, frame(slo_ms=50), body_bytes=[1]), steady).reason


@pytest.mark.slow
def test_the_knee_of_a_server_of_known_capacity_is_found(tmp_path, capsys):
    with FakePacklight(Queue(1 / 80)) as server:
        status = main(
            f"sweep --url {server.url} --from 60 --factor 1.8 --step 1 --arrivals constant --mix thumbnails "
            f"--distinct 5 --quiet --json {tmp_path / 's.json'} --html {tmp_path / 's.html'}".split()
        )
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "s.json").read_text())
    assert status == 0
    # A busy machine holds less than the server could. No machine holds more, and the first rate is far below.
    assert 60 <= found["knee"] <= 80 * 1.1
    assert "The knee is at" in out
    # Where much else runs, the sender may be the first that cannot hold the rate, and must say so.
    assert any(why in found["ended"] for why in ("latency grows", "failed", "the sender could not hold the rate"))
    assert "Goodput by rate" in (tmp_path / "s.html").read_text()
