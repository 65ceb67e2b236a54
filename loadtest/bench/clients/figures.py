"""Figures of a crowd's answers. Pure functions."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.bench.clients.crowd import Answer, Kind, name_of
from loadtest.runs.stats import Quantiles

Row = dict[str, object]


def outcome(
    answers: Sequence[Answer],
    *,
    seconds: float,
    timeout_s: float,
    settling_s: float = 0.0,
    good: Sequence[Kind] = ("good", "bulk"),
) -> tuple[Row, float]:
    """A row about the good requests that were accepted, and their goodput. good: the kinds that are.

    A 504, or a 200 after the deadline, missed it. Goodput is a rate over the time after `settling_s`: before that the
    queue is still filling. Latencies are in milliseconds, from sending a request to its whole answer."""
    accepted = [answer for answer in answers if answer.kind in good and answer.status in (200, 504)]
    took_s = np.array([answer.done_s - answer.sent_s for answer in accepted if answer.status == 200])
    in_time = [each.done_s for each in accepted if each.status == 200 and each.done_s - each.sent_s <= timeout_s]
    goodput = steady_rate(in_time, settling_s, seconds)
    latency = Quantiles.of(took_s * 1e3)
    sender_ms = Quantiles.of(np.array([answer.sent_s - answer.due_s for answer in answers]) * 1e3)
    return {
        "goodput_per_s": rounded(goodput),
        "accepted": len(accepted),
        "missed_504": sum(answer.status == 504 for answer in accepted),
        "missed_late_200": len(took_s) - len(in_time),
        "p50_ms": rounded(latency.p50), "p90_ms": rounded(latency.p90), "p99_ms": rounded(latency.p99),
        "max_ms": rounded(latency.max), "sender_late_p99_ms": rounded(sender_ms.p99),
    }, goodput  # fmt: skip


def steady_rate(done_s: Sequence[float], start_s: float, end_s: float) -> float:
    """Answers a second between the last one before `start_s` and the last one before `end_s`.

    Answers come a pack at a time: counted between fixed instants, the rate would be off by up to a pack. Fixed instants
    are used if answers came for less than half of the time."""
    times = np.sort(np.array(done_s))
    before, within = times[times <= start_s], times[(times > start_s) & (times <= end_s)]
    first_s, last_s = max(before, default=start_s), max(within, default=end_s)
    if last_s - first_s < (end_s - start_s) / 2:
        first_s, last_s = start_s, end_s
    return len(within) / float(last_s - first_s)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of steady load: images answered in time a second, and the cores used in all and by the sender."""

    images_per_s: float
    cores: float
    sender_cores: float


def goodput_over_capacity(capacities: Sequence[Stretch], overloads: Sequence[Stretch]) -> Row:
    """Each goodput over the mean of the capacities measured just before and after it, and the median of these ratios.

    `sender_off`: an estimate for a sender on another machine, whose cores the server would have.
    """
    around = list(zip(capacities[:-1], capacities[1:], strict=True))
    each = _over(around, overloads, lambda stretch: stretch.images_per_s)
    off = _over(around, overloads, lambda stretch: stretch.images_per_s / (1 - stretch.sender_cores / stretch.cores))
    return {
        "median": rounded(statistics.median(each), 3), "each": [rounded(ratio, 3) for ratio in each],
        "sender_off": rounded(statistics.median(off), 3),
    }  # fmt: skip


def _over(
    around: Sequence[tuple[Stretch, Stretch]], overloads: Sequence[Stretch], rate: Callable[[Stretch], float]
) -> list[float]:
    return [
        2 * rate(overload) / (rate(before) + rate(after))
        for (before, after), overload in zip(around, overloads, strict=True)
    ]


def retry_after(answers: Sequence[Answer]) -> Row:
    """The seconds in `Retry-After` of the refusals, and the seconds until there was room for one more image.

    There is room once an accepted image is answered, whatever the answer. Refusals after the last answer are left
    out."""
    freed_s = np.sort(np.array([answer.done_s for answer in answers if answer.status in (200, 422, 504)]))
    refused = [answer for answer in answers if answer.status == 429 and answer.retry_after_s is not None]
    known = [answer for answer in refused if len(freed_s) and answer.done_s < freed_s[-1]]
    said_s = np.array([float(answer.retry_after_s or 0) for answer in known])
    done_s = np.array([answer.done_s for answer in known])
    waited_s = freed_s[np.searchsorted(freed_s, done_s)] - done_s if known else np.empty(0)
    room = Quantiles.of(waited_s)
    return {
        "refused": sum(answer.status == 429 for answer in answers),
        "without": sum(answer.status == 429 and answer.retry_after_s is None for answer in answers),
        "said_s": dict(sorted(Counter(int(value) for value in said_s).items())),
        "room_p50_s": rounded(room.p50), "room_p99_s": rounded(room.p99), "room_max_s": rounded(room.max),
        "room_by_then": rounded(float((waited_s <= said_s).mean()), 3) if known else None,
    }  # fmt: skip


def statuses(answers: Sequence[Answer], *kinds: str) -> Row:
    """Counts of answers to these kinds of clients, by status."""
    counts = Counter(answer.status for answer in answers if answer.kind in kinds)
    return {name_of(status): count for status, count in sorted(counts.items(), reverse=True)}


def rounded(value: float, digits: int = 2) -> float | None:
    """For a table. NaN becomes None, since JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), digits)
