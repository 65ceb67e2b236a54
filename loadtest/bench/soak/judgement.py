"""What must have held, judged from the record of a soak. Pure."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from loadtest.bench.clients.crowd import LEFT, name_of
from loadtest.bench.clients.figures import Row, rounded
from loadtest.bench.servers.processes import ProcessUse
from loadtest.bench.soak.growth import Growth, growth, life_of_sum, lives_of
from loadtest.bench.soak.records import RECOVERS_WITHIN_S, Kind, Outcome, Record, Struck
from loadtest.sending.records import CONNECTION

# Requests due within this time tell whether the server is as before: so many of them right and in time.
_LOOK_S, _ENOUGH, _FEWEST = 5.0, 0.8, 4
_STEP_S = 0.25
# Latency is back to normal at twice what it was in this time before the fault, and a little for a latency near zero.
_BEFORE_S, _SLOWER, _FLOOR_MS = 30.0, 2.0, 50.0
# A fault in a bad moment of the machine is not judged by that alone: never more than this many times the whole run's.
_SLOWER_THAN_ALL = 4.0
LEAST_GOODPUT = 0.95
# How long after an answer its line is in the log at the latest.
_LINE_WITHIN_S = 1.0
# Allowed growth: a share of what is typical, or this much if that is more.
_MORE_MEMORY, _MORE_MB, _MORE_FILES, _MORE_THREADS = 0.03, 5.0, 2.0, 1.0
# A shorter run ends before memory has reached its height.
GROWTH_JUDGED_FROM_S = 600.0

_EXPECTED: dict[Kind, frozenset[int]] = {
    "good": frozenset({200}),
    "broken": frozenset({415, 422}),
    "leaving": frozenset({200, LEFT}),
}
_FIGURES: tuple[tuple[str, Callable[[ProcessUse], float], float, float], ...] = (
    ("memory, MB", lambda use: use.memory_bytes / 1e6, _MORE_MEMORY, _MORE_MB),
    ("open files", lambda use: float(use.files), 0.0, _MORE_FILES),
    ("threads", lambda use: float(use.threads), 0.0, _MORE_THREADS),
)


class Judge:
    """Figures of one run. Latency counts from when a request was due."""

    def __init__(self, record: Record) -> None:
        self.record = record
        good = [each for each in record.outcomes if each.kind == "good"]
        self._due_s = np.array([each.due_s for each in good])
        self._latency_ms = np.array([each.latency_ms for each in good])
        self._right = np.array([each.is_right for each in good], dtype=bool)
        self._outside = np.ones(len(good), dtype=bool)
        for struck in record.struck:
            self._outside &= (self._due_s < struck.start_s) | (self._due_s >= struck.until_s)
        self.normal_p95_ms = self._usual_p95_ms()
        # From here on an answer is too late to count.
        self.late_ms = _SLOWER_THAN_ALL * self.normal_p95_ms + _FLOOR_MS

    def _usual_p95_ms(self) -> float:
        """The median of what it is from half minute to half minute outside of faults: a stall does not move it."""
        known = self._outside & self._right
        slices = [
            self._latency_ms[known & (self._due_s >= start_s) & (self._due_s < start_s + _BEFORE_S)]
            for start_s in np.arange(0.0, self.record.seconds, _BEFORE_S)
        ]
        return float(
            np.median([_p95(each) for each in slices if len(each) >= _FEWEST] or [_p95(self._latency_ms[known])])
        )

    def limit_ms(self, struck: Struck) -> float:
        """Up to which latency an answer is as before this fault."""
        before = (self._due_s >= struck.start_s - _BEFORE_S) & (self._due_s < struck.start_s)
        known = self._latency_ms[before & self._outside & self._right]
        usual_ms = _p95(known) if len(known) >= _FEWEST else self.normal_p95_ms
        return min(_SLOWER * usual_ms + _FLOOR_MS, self.late_ms)

    def recovery_s(self, struck: Struck) -> float:
        """From the end of the fault to when requests are answered as before it; infinite if they never are."""
        as_before = self._right & (self._latency_ms <= self.limit_ms(struck))
        ends_s = min([each.start_s for each in self.record.struck if each.start_s > struck.end_s], default=math.inf)
        for from_s in np.arange(struck.end_s, min(ends_s, self.record.seconds) - _LOOK_S + 1e-9, _STEP_S):
            seen = (self._due_s >= from_s) & (self._due_s < from_s + _LOOK_S)
            if seen.sum() >= _FEWEST and as_before[seen].mean() >= _ENOUGH:
                return float(from_s - struck.end_s)
        return math.inf

    @property
    def goodput_outside(self) -> float:
        """The share of good requests due outside of faults and their aftermath that got a right answer in time."""
        in_time = self._right & (self._latency_ms <= self.late_ms)
        return float(in_time[self._outside].mean()) if self._outside.any() else math.nan

    @property
    def goodput_within(self) -> float:
        in_time = self._right & (self._latency_ms <= self.late_ms)
        return float(in_time[~self._outside].mean()) if (~self._outside).any() else math.nan

    def curve(self, bin_s: float) -> Iterator[tuple[float, float, float, float, float]]:
        """The middle of each bin, and of the good requests due in it the share right and in time, p50, p95 and the
        greatest latency in milliseconds. An empty bin is left out."""
        in_time = self._right & (self._latency_ms <= self.late_ms)
        for start_s in np.arange(0.0, self.record.seconds, bin_s):
            seen = (self._due_s >= start_s) & (self._due_s < start_s + bin_s)
            if seen.any():
                took_ms = self._latency_ms[seen & self._right]
                p50, p95, most = np.percentile(took_ms, [50, 95, 100]) if len(took_ms) else [math.nan] * 3
                yield start_s + bin_s / 2, float(in_time[seen].mean()), float(p50), float(p95), float(most)

    def unexpected(self) -> list[Outcome]:
        """Requests that got something else than their kind must, with no fault that excuses it."""
        return [
            each for each in self.record.outcomes
            if each.status not in _EXPECTED[each.kind]
            and not any(struck.covers(each.sent_s, each.done_s) and each.status in struck.excused
                        for struck in self.record.struck)
        ]  # fmt: skip

    def not_once(self) -> list[Outcome]:
        """Requests that were not answered once: another's answer, or none or several in the server's log."""
        return [each for each in self.record.outcomes if each.wrong == "id" or not self._logged_once(each)]

    def _logged_once(self, outcome: Outcome) -> bool:
        logged = self.record.ended.logged.get(outcome.number, [])
        if not outcome.named:
            return len(logged) <= 1
        if not logged:
            # A process may be killed between an answer and its line, which a thread of its own writes.
            return any(
                CONNECTION in struck.excused and struck.covers(outcome.sent_s, outcome.done_s + _LINE_WITHIN_S)
                for struck in self.record.struck
            )
        return list(logged) == [outcome.status]


def _p95(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    return float(np.percentile(values, 95)) if len(values) else math.nan


def verdicts(judge: Judge) -> list[Row]:
    """A row for each thing that must hold."""
    record = judge.record
    named = [each for each in record.outcomes if each.named]
    compared = [each for each in record.outcomes if each.kind != "broken" and each.status == 200]
    not_once, unexpected = judge.not_once(), judge.unexpected()
    different = [each for each in compared if each.wrong == "bits"]
    slowest_s = max(map(judge.recovery_s, record.struck), default=math.nan)
    ended, missed = record.ended, [struck for struck in record.struck if struck.missed]
    return [
        _verdict("answered once", len(not_once), f"0 of {len(named)}", not not_once, not_once),
        _verdict("vectors with other bits", len(different), f"0 of {len(compared)}", not different, different),
        _verdict("answers that no fault excuses", len(unexpected), "0", not unexpected, unexpected),
        _verdict("goodput outside of faults", rounded(judge.goodput_outside, 4), f"at least {LEAST_GOODPUT:g}",
                 judge.goodput_outside >= LEAST_GOODPUT),
        _verdict("slowest recovery, s", seconds_or_never(slowest_s), f"at most {RECOVERS_WITHIN_S:g}",
                 not slowest_s > RECOVERS_WITHIN_S),
        _verdict("faults in vain", len(missed), "0", not missed),
        *_growths(record),
        _verdict("exit status", ended.exit_status, "0", ended.exit_status == 0),
        _verdict("processes left", len(ended.processes_left), "0", not ended.processes_left),
        _verdict("temporary files left", len(ended.files_left), "0", not ended.files_left),
        _verdict("tracebacks in the log", ended.tracebacks, "0", not ended.tracebacks),
    ]  # fmt: skip


def _verdict(case: str, value: object, limit: str, held: bool, examples: Sequence[Outcome] = ()) -> Row:
    row: Row = {"case": case, "value": value, "limit": limit, "verdict": "held" if held else "failed"}
    if examples:
        row["such_as"] = [f"soak-{each.number} {name_of(each.status)} at {each.due_s:.1f} s" for each in examples[:5]]
    return row


def _growths(record: Record) -> Iterator[Row]:
    names = sorted({use.name for sample in record.samples for use in sample.processes})
    for what, figure, share, floor in _FIGURES:
        for name in names:
            yield _growth(f"{what}: {name}", growth(lives_of(record.samples, name, figure), seconds=record.seconds),
                          share, floor, record.seconds)  # fmt: skip
        total = growth(life_of_sum(record.samples, figure), seconds=record.seconds)
        yield _growth(f"{what}: all", total, share, floor, record.seconds)


def _growth(case: str, found: Growth, share: float, floor: float, seconds: float) -> Row:
    allowed = max(share * found.typical, floor)
    row: Row = {
        "case": case, "value": rounded(found.typical), "grew_in_life": rounded(found.in_life),
        "grew_over_run": rounded(found.over_run), "limit": f"growth of at most {allowed:.3g}",
    }  # fmt: skip
    judged = seconds >= GROWTH_JUDGED_FROM_S and not math.isnan(found.most)
    return row | {"verdict": "not judged" if not judged else "held" if found.most <= allowed else "grows"}


def fault_rows(judge: Judge) -> list[Row]:
    """A row for each kind of fault: how often, how long, the recoveries, and the answers to good requests meanwhile."""
    rows = []
    for name in dict.fromkeys(struck.name for struck in judge.record.struck):
        times = [struck for struck in judge.record.struck if struck.name == name]
        recoveries = [judge.recovery_s(struck) for struck in times]
        rows.append(
            {
                "case": f"fault: {name}", "times": len(times),
                "lasted_s": rounded(max(struck.end_s - struck.start_s for struck in times), 1),
                "recovery_median_s": seconds_or_never(float(np.median(recoveries))),
                "recovery_most_s": seconds_or_never(max(recoveries)),
                "answers": answers_meanwhile(judge.record.outcomes, times),
            }
        )  # fmt: skip
    return rows


def seconds_or_never(value: float) -> object:
    """JSON has no infinity."""
    return "never" if math.isinf(value) else rounded(value)


def answers_meanwhile(outcomes: Sequence[Outcome], times: Sequence[Struck]) -> dict[str, int]:
    """Statuses of good requests that were due during these faults or right after."""
    counts = Counter(
        name_of(each.status)
        for each in outcomes
        if each.kind == "good" and any(struck.start_s <= each.due_s < struck.until_s for struck in times)
    )
    return dict(sorted(counts.items()))
