"""What a soak's record is judged by: recovery, goodput, what is excused, and that each request was answered once."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from loadtest.bench.clients.crowd import LEFT
from loadtest.bench.servers.processes import ProcessUse
from loadtest.bench.soak.judgement import Judge, fault_rows, verdicts
from loadtest.bench.soak.page import drawing, soak_page
from loadtest.bench.soak.records import Ended, Kind, Outcome, Record, Sample, Struck
from loadtest.sending.records import CONNECTION

SECONDS = 900.0
STRUCK = Struck("engine killed", "E", 300.0, 304.0, frozenset({503}))
CLEAN = Ended(0, [], [], {}, 0)


def outcome(
    due_s: float, ms: float = 50.0, status: int = 200, *, kind: Kind = "good", named: bool = False, wrong: str = ""
) -> Outcome:
    return Outcome(int(due_s * 1000), kind, due_s, due_s, due_s + ms / 1e3, status, named, wrong)


def load(changed: Mapping[float, Outcome] | None = None) -> list[Outcome]:
    """Two requests a second, answered in 50 and 80 ms but for those that were changed."""
    times = [place / 2 for place in range(int(2 * SECONDS))]
    return [(changed or {}).get(due_s, outcome(due_s, 50.0 if due_s % 1 else 80.0)) for due_s in times]


def between(start_s: float, end_s: float, ms: float, status: int = 200) -> dict[float, Outcome]:
    return {
        place / 2: outcome(place / 2, ms, status) for place in range(int(2 * start_s), int(2 * end_s))
    }  # fmt: skip


def samples(*, grows_mb: float = 0.0) -> list[Sample]:
    return [
        Sample(10.0 * place, [ProcessUse(7, "engine", int((400 + grows_mb * place / 90) * 1e6), 0, 20, 0.0, 8)])
        for place in range(90)
    ]


def judge(
    outcomes: Sequence[Outcome], struck: Sequence[Struck] = (STRUCK,), *, ended: Ended = CLEAN, grows_mb: float = 0.0
) -> Judge:
    return Judge(Record(SECONDS, 2.0, 6.0, outcomes, struck, samples(grows_mb=grows_mb), ended))


def failing(found: Judge) -> set[object]:
    return {row["case"] for row in verdicts(found) if row["verdict"] not in ("held", "not judged")}


def test_a_quiet_run_holds_in_everything() -> None:
    found = judge(load())
    assert failing(found) == set()
    assert {row["verdict"] for row in verdicts(found)} == {"held"}
    assert found.recovery_s(STRUCK) == 0.0
    assert found.goodput_outside == 1.0


@pytest.mark.parametrize("seconds", [2.0, 8.0, 20.0])
def test_recovery_is_when_most_requests_are_in_time_again(seconds: float) -> None:
    found = judge(load(between(300.0, 304.0 + seconds, 3000.0)))
    # A fifth of a window of five seconds may still be late.
    assert found.recovery_s(STRUCK) == pytest.approx(seconds - 1.0, abs=0.5)
    assert ("slowest recovery, s" in failing(found)) == (seconds > 11.0)


def test_a_server_that_stays_a_bit_too_slow_never_recovers() -> None:
    found = judge(load(between(300.0, SECONDS, 250.0)))
    assert math.isinf(found.recovery_s(STRUCK))
    assert "slowest recovery, s" in failing(found)


def test_refusals_are_no_recovery_however_fast_they_are() -> None:
    assert judge(load(between(300.0, 312.0, 5.0, 503))).recovery_s(STRUCK) == pytest.approx(7.0, abs=0.5)


def test_a_fault_on_a_slow_machine_is_judged_by_how_slow_it_was_before() -> None:
    slow = between(270.0, 330.0, 150.0)
    assert judge(load(slow)).recovery_s(STRUCK) == 0.0
    assert judge(load(slow | between(304.0, 330.0, 360.0))).recovery_s(STRUCK) > 10.0


def test_a_machine_that_stood_still_before_a_fault_does_not_excuse_what_follows() -> None:
    found = judge(load(between(280.0, 300.0, 9000.0) | between(304.0, 330.0, 5000.0)))
    assert found.limit_ms(STRUCK) == found.late_ms
    assert found.recovery_s(STRUCK) > 10.0


def test_goodput_counts_what_is_due_outside_of_faults_and_not_what_is_late() -> None:
    assert judge(load(between(300.0, 314.0, 5.0, 503))).goodput_outside == 1.0
    late = judge(load(between(400.0, 490.0, 5000.0)))
    assert late.goodput_outside == pytest.approx(0.9, abs=0.01)
    assert "goodput outside of faults" in failing(late)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (outcome(305.0, status=503), False),
        (outcome(314.5, status=503), True),
        (outcome(305.0, status=500), True),
        (outcome(305.0, status=CONNECTION), True),
        (outcome(500.0, status=429), True),
        (outcome(500.0, status=422, kind="broken"), False),
        (outcome(500.0, status=200, kind="broken"), True),
        (outcome(500.0, status=LEFT, kind="leaving"), False),
        (outcome(299.0, ms=2000.0, status=503), False),
    ],
)
def test_a_status_is_excused_by_its_fault_alone_and_while_it_lasts(changed: Outcome, expected: bool) -> None:
    found = judge([*load(), changed])
    assert found.unexpected() == ([changed] if expected else [])
    assert ("answers that no fault excuses" in failing(found)) == expected


def logged(outcome: Outcome, statuses: Sequence[int]) -> Ended:
    return Ended(0, [], [], {outcome.number: statuses}, 0)


@pytest.mark.parametrize(("statuses", "once"), [([200], True), ([], False), ([200, 200], False), ([504], False)])
def test_an_answer_stands_in_the_log_once_and_as_it_was(statuses: Sequence[int], once: bool) -> None:
    one = outcome(500.25, named=True)
    assert (judge([*load(), one], ended=logged(one, statuses)).not_once() == []) == once


def test_a_request_without_an_answer_may_stand_in_the_log_and_not_twice() -> None:
    one = outcome(500.25, status=LEFT, kind="leaving")
    assert judge([one], ended=logged(one, [499])).not_once() == []
    assert judge([one], ended=logged(one, [499, 200])).not_once() == [one]


def test_a_killed_process_may_not_log_its_last_answers() -> None:
    one = outcome(300.25, named=True)
    killed = Struck("HTTP process killed", "H", 300.2, 300.2, frozenset({CONNECTION}))
    assert judge([one], [killed]).not_once() == []
    assert judge([one], [STRUCK]).not_once() == [one]
    # Its line is written a moment after the answer.
    before, long_before = outcome(299.5, named=True), outcome(298.5, named=True)
    assert judge([before, long_before], [killed]).not_once() == [long_before]


@pytest.mark.parametrize(("wrong", "case"), [("bits", "vectors with other bits"), ("id", "answered once")])
def test_an_answer_with_other_bits_or_anothers_id_fails_the_run(wrong: str, case: str) -> None:
    assert failing(judge([*load(), outcome(500.0, wrong=wrong)])) == {case}


def test_memory_that_grows_fails_the_run_and_noise_does_not() -> None:
    assert failing(judge(load(), grows_mb=4.0)) == set()
    assert failing(judge(load(), grows_mb=40.0)) == {"memory, MB: engine", "memory, MB: all"}


def test_a_fault_that_did_nothing_fails_the_run() -> None:
    vain = Struck("model reloaded", "N", 300.0, 345.0, missed="the model was not loaded again")
    assert failing(judge(load(), [vain])) == {"faults in vain"}


def test_what_a_server_leaves_fails_the_run() -> None:
    found = judge(load(), ended=Ended(None, [17], ["packlight-metrics-17"], {}, 2))
    assert failing(found) == {"exit status", "processes left", "temporary files left", "tracebacks in the log"}


def test_a_record_is_judged_alike_after_it_was_written_and_read() -> None:
    found = judge([*load(), outcome(500.25, named=True, wrong="bits")], ended=Ended(0, [], [], {500250: [200]}, 0))
    again = Judge(msgspec.json.decode(msgspec.json.encode(found.record), type=Record))
    assert verdicts(again) == verdicts(found)


def test_kinds_of_faults_and_the_page_tell_of_each() -> None:
    again = Struck("engine killed", "E", 600.0, 601.0, frozenset({503}))
    found = judge(load(between(300.0, 305.0, 5.0, 503)), [STRUCK, again])
    (row,) = fault_rows(found)
    assert (row["times"], row["lasted_s"]) == (2, 4.0)
    assert row["answers"] == {"200": 40, "503": 10}
    page = soak_page(found, [*verdicts(found), row], "packlight-tiny")
    assert "all that must hold has held" in page
    assert "E engine killed" in page
    assert "E engine killed" in drawing(found)
