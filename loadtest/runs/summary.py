"""The figures of a run, from its rows: rates, percentiles, classes, errors, stages, a timeline. Pure.

Percentiles are of successful answers, from when each was due. The measured window leaves out ramp and warm-up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.runs.backlog import taken_s
from loadtest.runs.stats import Quantiles
from loadtest.sending.records import ABANDONED, UNSENT, Floats, Records, shift, status_name

# A request that leaves later than this after it was due has waited for the sender, not for a timer.
LATE_MS = 10.0
# If more of the requests are late or unsent, the latencies say as much about the sender as about the server.
_TOLERATED_LATE, _TOLERATED_UNSENT = 0.05, 0.001


@dataclass(frozen=True, slots=True)
class Frame:
    """The kind of a run and the part of it that counts. Without `concurrency` the loop is open."""

    concurrency: int | None
    window_start_s: float
    window_end_s: float
    slo_ms: float | None
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassSummary:
    name: str
    offered: int
    answered: int
    errors: int
    images: int
    tokens_per_image: float
    goodput_share: float
    latency_ms: Quantiles


@dataclass(frozen=True, slots=True)
class Tick:
    """One interval of the timeline. Rates are per second.

    Offered requests and latencies belong to the interval in which a request was due, answers and errors to the one in
    which they came.
    """

    at_s: float
    length_s: float
    offered_rate: float
    answered_rate: float
    error_rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a run. `elapsed_s` is the window, or longer if the server fell behind; rates of answers use it."""

    mode: str
    elapsed_s: float
    offered: int
    offered_rate: float
    sent: int
    sent_rate: float
    answered: int
    answered_rate: float
    images: int
    images_rate: float
    tokens: int | None
    tokens_rate: float | None
    slo_ms: float | None
    goodput_rate: float
    goodput_share: float
    late: int
    unsent: int
    held: bool
    send_delay_ms: Quantiles
    latency_ms: Quantiles
    service_ms: Quantiles
    errors: Mapping[str, int]
    classes: Sequence[ClassSummary]
    stages_ms: Mapping[str, Quantiles]
    timeline: Sequence[Tick]
    sent_bytes: int
    received_bytes: int


def summarise(records: Records, frame: Frame, *, body_bytes: Sequence[int]) -> Summary:
    """The summary of the rows that were due in the window. `body_bytes[template]` is the size of a request."""
    rows = records.where((records.due_s >= frame.window_start_s) & (records.due_s < frame.window_end_s))
    sent = rows.where(rows.status != UNSENT)
    answered = rows.where(rows.ok)
    delay_ms = (sent.sent_s - sent.due_s) * 1e3
    unsent, late = len(rows) - len(sent), int(np.count_nonzero(delay_ms > LATE_MS))
    tokens = int(answered.tokens.sum()) if len(answered) and (answered.tokens >= 0).all() else None
    window_s = frame.window_end_s - frame.window_start_s
    images, good = answered.image_count, count_good(answered, frame.slo_ms)
    elapsed_s = taken_s(shift(sent, -frame.window_start_s), window_s, frame.concurrency)
    return Summary(
        mode="open" if frame.concurrency is None else "closed",
        elapsed_s=elapsed_s,
        offered=len(rows),
        offered_rate=len(rows) / window_s,
        sent=len(sent),
        sent_rate=len(sent) / window_s,
        answered=len(answered),
        answered_rate=len(answered) / elapsed_s,
        images=images,
        images_rate=images / elapsed_s,
        tokens=tokens,
        tokens_rate=None if tokens is None else tokens / elapsed_s,
        slo_ms=frame.slo_ms,
        goodput_rate=good / elapsed_s,
        goodput_share=good / len(rows) if len(rows) else float("nan"),
        late=late,
        unsent=unsent,
        held=late <= _TOLERATED_LATE * len(rows) and unsent <= _TOLERATED_UNSENT * len(rows),
        send_delay_ms=Quantiles.of(delay_ms),
        latency_ms=Quantiles.of(answered.latency_ms),
        service_ms=Quantiles.of(answered.service_ms),
        errors=count_errors(rows),
        classes=[_of_class(rows, number, name, frame.slo_ms) for number, name in enumerate(frame.classes)],
        stages_ms=_stages(answered),
        timeline=timeline(rows, frame),
        sent_bytes=int(np.array(body_bytes, dtype=np.int64)[sent.template].sum()) if len(sent) else 0,
        received_bytes=int(sent.received_bytes.sum()),
    )


def count_errors(rows: Records) -> dict[str, int]:
    """How many sent requests failed, by how they ended."""
    failed = rows.status[~rows.ok & (rows.status != UNSENT)]
    return {status_name(int(status)): int(np.count_nonzero(failed == status)) for status in np.unique(failed)[::-1]}


def timeline(rows: Records, frame: Frame) -> list[Tick]:
    """Up to sixty intervals of the window, fewer if answers are too few for a p99, then more to the last answer."""
    answered, failed = rows.where(rows.ok), rows.where(~rows.ok & (rows.status != UNSENT))
    edges = _edges(frame, _last_s(rows, frame), wanted=len(answered) // 20)
    lengths = np.diff(edges)
    offered, done, wrong = (
        np.histogram(times, edges)[0] / lengths for times in (rows.due_s, answered.done_s, failed.done_s)
    )
    places = np.digitize(answered.due_s, edges) - 1
    ticks = []
    for n, length_s in enumerate(lengths):
        part = Quantiles.of(answered.latency_ms[places == n])
        rates = float(offered[n]), float(done[n]), float(wrong[n])
        ticks.append(Tick(float(edges[n]), float(length_s), *rates, part.p50, part.p99, part.max))
    return ticks


def _edges(frame: Frame, last_s: float, *, wanted: int) -> Floats:
    """Even steps to the end of the window, the last one stretched to meet it, then on to the last answer."""
    start_s, end_s = frame.window_start_s, frame.window_end_s
    step_s = _round_step((end_s - start_s) / min(60, max(10, wanted)))
    inside = max(1, round((end_s - start_s) / step_s))
    after = math.ceil((last_s - end_s) / step_s - 0.5)
    within = start_s + step_s * np.arange(inside)
    return np.concatenate([within, end_s + step_s * np.arange(max(0, after) + 1)])


def _round_step(step_s: float) -> float:
    """The next larger of 0.1, 0.2, 0.5, 1, 2, 5, … seconds."""
    for power in range(-1, 6):
        for lead in (1, 2, 5):
            if lead * 10.0**power >= step_s * 0.999:
                return lead * 10.0**power
    return step_s


def count_good(answered: Records, slo_ms: float | None) -> int:
    """The answers that came within the SLO, or all of them without an SLO."""
    return len(answered) if slo_ms is None else int(np.count_nonzero(answered.latency_ms <= slo_ms))


def _last_s(rows: Records, frame: Frame) -> float:
    """The end of the window, or the last answer if that came later."""
    finished = rows.done_s[(rows.status != ABANDONED) & (rows.status != UNSENT)]
    return max(float(finished.max()), frame.window_end_s) if len(finished) else frame.window_end_s


def _of_class(rows: Records, number: int, name: str, slo_ms: float | None) -> ClassSummary:
    mine = rows.where(rows.class_index == number)
    answered = mine.where(mine.ok)
    images = answered.image_count
    known = len(answered) > 0 and images > 0 and bool((answered.tokens >= 0).all())
    return ClassSummary(
        name=name,
        offered=len(mine),
        answered=len(answered),
        errors=len(mine) - len(answered),
        images=images,
        tokens_per_image=float(answered.tokens.sum()) / images if known else float("nan"),
        goodput_share=count_good(answered, slo_ms) / len(mine) if len(mine) else float("nan"),
        latency_ms=Quantiles.of(answered.latency_ms),
    )


def _stages(answered: Records) -> dict[str, Quantiles]:
    """The server's stages, and the rest of the time between sending and the last byte."""
    if not answered.stages_ms:
        return {}
    staged = {name: Quantiles.of(column) for name, column in answered.stages_ms.items() if name != "total"}
    named = np.nansum([column for name, column in answered.stages_ms.items() if name != "total"], axis=0)
    return {**staged, "network and client": Quantiles.of(np.maximum(answered.service_ms - named, 0.0))}
