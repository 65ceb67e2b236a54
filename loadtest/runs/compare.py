"""Compares two servers under the same requests, or two results: the ratio of every figure, and how sure it is.

Two servers take turns, a round each, in the order A B, B A, A B, …, so a drift of the machine affects both alike, and
neither is loaded while the other is measured. Rounds are the blocks of the bootstrap. It judges gates, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.runs.backlog import taken_s
from loadtest.runs.gate import METRICS, Gate
from loadtest.runs.stats import Block, Interval, bootstrap_ratios
from loadtest.runs.summary import Frame, Summary, count_good, summarise
from loadtest.sending.records import Records, join, shift

_LEVELS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
_SUMS = {"requests/s": "requests", "images/s": "images", "tokens/s": "tokens", "goodput": "good"}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sides. `requests_id` names the bytes and times of its requests; `rounds` holds rows by block."""

    label: str
    frame: Frame
    requests_id: str
    rounds: Sequence[Records]
    round_s: float
    body_bytes: Sequence[int]

    @property
    def records(self) -> Records:
        """The rows of all rounds on one clock, without the pauses between rounds."""
        return join([shift(rows, place * self.round_s) for place, rows in enumerate(self.rounds)])

    def summary(self) -> Summary:
        return summarise(self.records, self.frame, body_bytes=self.body_bytes)


@dataclass(frozen=True, slots=True)
class Judged:
    """A gate with its outcome (`met`, `clear` or `undecided`) and the figures behind it."""

    gate: Gate
    outcome: str
    said: str


@dataclass(frozen=True, slots=True)
class Comparison:
    base: Side
    other: Side
    summaries: tuple[Summary, Summary]
    ratios: Mapping[str, Interval]
    confidence: float
    same_requests: bool

    def judge(self, gate: Gate) -> Judged:
        """Judges B's own figure, or the ratio if the gate is relative.

        A gate on the ratio is met only if the whole interval is past the bound, and undecided if only the ratio is.
        """
        if not gate.relative:
            value = METRICS[gate.metric](self.summaries[1])
            return Judged(gate, "met" if gate.met_by(value) else "clear", f"{gate.metric} of B is {value:.4g}")
        interval = self.ratios[gate.metric]
        said = f"{gate.metric} B/A {interval.ratio:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        if gate.surely_met_by(interval):
            return Judged(gate, "met", said)
        return Judged(gate, "undecided" if gate.met_by(interval.ratio) else "clear", said)


def compare(base: Side, other: Side, *, seed: int, confidence: float) -> Comparison:
    same = base.requests_id == other.requests_id
    blocks = [_block(rows, base) for rows in base.rounds], [_block(rows, other) for rows in other.rounds]
    paired = same and len(base.rounds) == len(other.rounds)
    ratios = bootstrap_ratios(_statistics, *blocks, paired=paired, seed=seed, confidence=confidence)
    return Comparison(base, other, (base.summary(), other.summary()), ratios, confidence, same)


def take_turns(rounds: int, measure: Callable[[int, int], Records | None]) -> tuple[list[Records], list[Records]]:
    """Calls `measure(round, side)` for both sides in every round; the first side changes each round.

    A `measure` that returns none ends the turns. A round that only one side finished is dropped.
    """
    taken: tuple[list[Records], list[Records]] = ([], [])
    for number in range(rounds):
        first = number % 2
        one = measure(number, first)
        two = None if one is None else measure(number, 1 - first)
        if one is None or two is None:
            break
        taken[first].append(one)
        taken[1 - first].append(two)
    return taken


def cut(records: Records, *, start_s: float, round_s: float, rounds: int) -> list[Records]:
    """Cuts the rows of one run into blocks of equal time. Each starts at zero."""
    place = np.clip((records.due_s - start_s) // round_s, -1, rounds).astype(np.int64)
    return [shift(records.where(place == number), -start_s - number * round_s) for number in range(rounds)]


def _block(rows: Records, side: Side) -> Block:
    answered = rows.where(rows.ok)
    sums = {
        "requests": float(len(answered)),
        "images": float(answered.image_count),
        "tokens": float(answered.tokens.sum()) if (answered.tokens >= 0).all() else float("nan"),
        "good": float(count_good(answered, side.frame.slo_ms)),
        "elapsed_s": taken_s(rows, side.round_s, side.frame.concurrency),
    }
    return Block(answered.latency_ms, sums)


def _statistics(blocks: Sequence[Block]) -> dict[str, float]:
    """Every figure that has a ratio, over all these blocks."""
    pooled = np.concatenate([block.latencies for block in blocks])
    pooled = pooled if len(pooled) else np.array([np.nan])
    elapsed_s = sum(block.sums["elapsed_s"] for block in blocks)
    found = {"mean": float(pooled.mean())}
    found |= zip(_LEVELS, map(float, np.percentile(pooled, list(_LEVELS.values()))), strict=True)
    found |= {name: sum(block.sums[key] for block in blocks) / elapsed_s for name, key in _SUMS.items()}
    return found
