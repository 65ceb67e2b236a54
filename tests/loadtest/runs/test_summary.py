"""Figures from rows that are written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.runs.backlog import latency_slope
from loadtest.runs.summary import Frame, summarise
from loadtest.sending.records import UNSENT, Records, Row, from_rows, join

NAN = float("nan")


def rows(due_s, latency_s, *, status=200, klass=0, tokens=100) -> Records:
    made = [
        Row(n, 0, klass, float(due), float(due), float(due + late), status, 1, 1, tokens, 10)
        for n, (due, late) in enumerate(zip(due_s, latency_s, strict=True))
    ]
    return from_rows(made, [{"forward": 1.0}] * len(made))


def frame(end_s=10.0, *, start_s=0.0, slo_ms=None, classes=("a", "b")) -> Frame:
    return Frame(None, start_s, end_s, slo_ms, classes)


def test_the_ramp_is_left_out():
    due_s = np.arange(100) / 10
    found = summarise(rows(due_s, np.full(100, 0.1)), frame(start_s=5.0), body_bytes=[7])
    assert (found.offered, found.offered_rate, found.answered_rate) == (50, 10, 10)
    assert found.sent_bytes == 350


def test_goodput_is_the_share_of_offered_requests_answered_in_time():
    due_s = np.arange(10.0)
    late = np.where(due_s < 4, 0.05, 0.5)
    unsent = from_rows([Row(99, 0, 0, 5.0, NAN, NAN, UNSENT, 1, -1, -1, 0)], [{}])
    found = summarise(join([rows(due_s, late), unsent]), frame(slo_ms=100), body_bytes=[7])
    assert found.goodput_share == pytest.approx(4 / 11)
    assert (found.offered, found.sent, found.unsent) == (11, 10, 1)


def test_an_overloaded_server_is_credited_with_what_it_did():
    due_s = np.arange(1000) / 100
    found = summarise(rows(due_s, 0.02 + due_s), frame(), body_bytes=[7])
    assert latency_slope(rows(due_s, 0.02 + due_s)) == pytest.approx(1)
    assert found.offered_rate == 100
    assert found.answered_rate == pytest.approx(50, rel=0.01)


def test_classes_are_told_apart():
    both = join([rows([0.0, 1.0], [0.1, 0.1]), rows([2.0], [0.4], klass=1, tokens=300)])
    one, two = summarise(both, frame(), body_bytes=[7]).classes
    assert (one.answered, one.tokens_per_image) == (2, 100)
    assert one.latency_ms.p50 == pytest.approx(100)
    assert (two.answered, two.tokens_per_image) == (1, 300)
    assert two.latency_ms.p50 == pytest.approx(400)


def test_an_answer_that_names_no_tokens_makes_no_token_rate():
    assert summarise(rows([0.0], [0.1], tokens=-1), frame(), body_bytes=[7]).tokens is None


def test_the_time_that_no_stage_explains_is_shown():
    stages = summarise(rows([0.0], [0.1]), frame(), body_bytes=[7]).stages_ms
    assert stages["forward"].p50 == 1
    assert stages["network and client"].p50 == pytest.approx(99)


def test_a_run_without_answers_has_a_summary():
    found = summarise(rows([0.0, 1.0], [0.1, 0.1], status=500), frame(), body_bytes=[7])
    assert (found.answered, found.errors) == (0, {"500": 2})
    assert np.isnan(found.latency_ms.p99)


@given(
    st.lists(st.tuples(st.floats(0, 9.99), st.floats(0.001, 20)), min_size=1, max_size=80),
    st.floats(0, 9),
)
def test_the_timeline_holds_every_request_and_every_answer(made, start_s):
    records = rows(*zip(*sorted(made), strict=True))
    window = frame(start_s=start_s)
    found = summarise(records, window, body_bytes=[7])
    offered = sum(tick.offered_rate * tick.length_s for tick in found.timeline)
    answered = sum(tick.answered_rate * tick.length_s for tick in found.timeline)
    assert offered == pytest.approx(found.offered)
    assert answered <= found.answered + 1e-6
    assert all(tick.length_s > 0 for tick in found.timeline)


def test_rows_survive_being_written_and_read():
    records = join([rows([0.5, 1.5], [0.1, 0.2]), from_rows([Row(9, 0, 0, 1.0, NAN, NAN, UNSENT, 1, -1, -1, 0)], [{}])])
    again = Records.from_json(records.to_json())
    assert np.array_equal(again.done_s, records.done_s, equal_nan=True)
    assert np.array_equal(again.status, records.status)
    assert np.array_equal(again.stages_ms["forward"], records.stages_ms["forward"], equal_nan=True)
