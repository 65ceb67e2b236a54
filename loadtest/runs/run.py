"""One run: its schedule, the sending, and the counts of both ends. Writes no report."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.runs import agreement, server_view
from loadtest.runs.agreement import Check
from loadtest.runs.backlog import FALLING_BEHIND, latency_slope
from loadtest.runs.server_view import ServerView
from loadtest.runs.summary import Frame, Summary, summarise
from loadtest.sending.fleet import Fleet, OnProgress
from loadtest.sending.records import Records
from loadtest.sending.sender import Load
from loadtest.sending.target import Target
from loadtest.traffic import corpus
from loadtest.traffic.arrivals import Pattern, due_times
from loadtest.traffic.corpus import Corpus
from loadtest.words import counted

# A server may count an answer a moment after the client has read it.
_SCRAPES, _SCRAPE_EVERY_S = 4, 0.25


@dataclass(frozen=True, slots=True)
class Timing:
    """When requests are sent: at `rate` a second, or `concurrency` at a time."""

    rate: float | None
    concurrency: int | None
    duration_s: float
    arrivals: Pattern = "poisson"
    burst: int = 8
    ramp_s: float = 0.0
    warmup_s: float = 0.0
    timeout_s: float = 30.0
    max_in_flight: int = 2048
    seed: int = 1

    def frame(self, classes: tuple[str, ...], slo_ms: float | None, end_s: float | None = None) -> Frame:
        """The window that counts: from the end of ramp and warm-up to the end of the run, or to `end_s` if earlier."""
        start_s = self.ramp_s + self.warmup_s
        last_s = self.duration_s if end_s is None else min(end_s, self.duration_s)
        start_s = start_s if last_s > start_s else 0.0
        return Frame(self.concurrency, start_s, max(last_s, 1e-3), slo_ms, classes)

    def load(self, requests: Corpus) -> Load:
        """The whole run as a load. The fleet sets its start."""
        due_s = None
        count = 20 * len(requests.requests)
        if self.rate is not None:
            due_s = due_times(
                self.arrivals,
                rate=self.rate,
                duration_s=self.duration_s,
                seed=self.seed,
                ramp_s=self.ramp_s,
                burst=self.burst,
            )
            count = len(due_s)
        return Load(
            start_at_s=0.0,
            duration_s=self.duration_s,
            templates=corpus.order(requests, count, self.seed),
            requests=range(count),
            due_s=due_s,
            concurrency=self.concurrency or 0,
            timeout_s=self.timeout_s,
            max_in_flight=self.max_in_flight,
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that a report needs."""

    url: str
    form: str
    started_at: str
    timing: Timing
    corpus: Corpus
    info: dict[str, Any]
    frame: Frame
    records: Records
    summary: Summary
    server: ServerView | None
    checks: Sequence[Check]
    interrupted_at_s: float | None

    @property
    def lasted_s(self) -> float:
        """Seconds from the start to the last answer, ramp and warm-up included, as in the server's counts."""
        answered = self.records.done_s[~np.isnan(self.records.done_s)]
        return float(answered.max()) if len(answered) else self.timing.duration_s


class Runner:
    """Runs loads against one server with a fleet that has started."""

    def __init__(
        self,
        target: Target,
        requests: Corpus,
        fleet: Fleet,
        *,
        slo_ms: float | None,
        info: dict[str, Any] | None = None,
    ) -> None:
        self._target = target
        self._corpus = requests
        self._fleet = fleet
        self._slo_ms = slo_ms
        self._info = info or {}
        self._body_bytes = [len(wire.body) for wire in target.wires]

    def run(self, timing: Timing, *, on_progress: OnProgress = lambda tally: None) -> RunResult:
        """Reads the server's metrics, sends the load, reads the metrics again."""
        started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        before = asyncio.run(self._target.probe.metrics())
        outcome = self._fleet.run(timing.load(self._corpus), on_progress=on_progress)
        server, checks = self._after(before, outcome.records)
        frame = timing.frame(self._corpus.classes, self._slo_ms, outcome.interrupted_at_s)
        return RunResult(
            url=self._target.url,
            form=self._target.adapter.form,
            started_at=started_at,
            timing=timing,
            corpus=self._corpus,
            info=self._info,
            frame=frame,
            records=outcome.records,
            summary=summarise(outcome.records, frame, body_bytes=self._body_bytes),
            server=server,
            checks=checks,
            interrupted_at_s=outcome.interrupted_at_s,
        )

    def _after(self, before: str | None, records: Records) -> tuple[ServerView | None, list[Check]]:
        """The server's view and its checks, once they agree or after the last attempt."""
        for attempt in range(_SCRAPES):
            after = asyncio.run(self._target.probe.metrics()) if before is not None else None
            server = server_view.read(before, after, route=self._target.adapter.route)
            checks = agreement.check(records, server) if server else []
            if server is None or all(check.agrees for check in checks) or attempt == _SCRAPES - 1:
                return server, checks
            time.sleep(_SCRAPE_EVERY_S)
        raise AssertionError("unreachable")


def notes(result: RunResult) -> list[str]:
    """Warnings to read before the figures, each a sentence or two."""
    summary, said = result.summary, []
    if result.interrupted_at_s is not None:
        said.append(f"Interrupted after {result.interrupted_at_s:.1f} of {result.timing.duration_s:g} s.")
    if not summary.held:
        said.append(
            f"THE SENDER DID NOT HOLD THE RATE: of {counted(summary.offered, 'request')} due, {summary.unsent} never "
            f"left and {summary.late} left late (p99 {summary.send_delay_ms.p99:.0f} ms). Try more --senders, a higher "
            "--max-in-flight, a lower rate or a quieter machine."
        )
    if summary.mode == "open" and (slope := latency_slope(result.records)) > FALLING_BEHIND:
        said.append(
            f"THE SERVER FELL BEHIND: latency grew by {slope:.2f} s every second; it answered "
            f"{summary.answered_rate:.3g} of {summary.offered_rate:.3g} requests a second."
        )
    if summary.mode == "closed":
        said.append(
            "Closed loop: a slow answer delays the next request, which hides the waiting that real users would see."
        )
    if summary.errors:
        total = sum(summary.errors.values())
        said.append(
            f"{total} of {counted(summary.sent, 'request')} failed; percentiles cover the other {summary.answered}."
        )
    if 0 < summary.answered < 1000:
        few = f"{counted(summary.answered, 'answer')} {'is' if summary.answered == 1 else 'are'} too few for p99.9"
        said.append(f"{few}: it is almost the maximum.")
    said += _server_notes(result)
    if result.form == "raw" and any(len(request.pictures) > 1 for request in result.corpus.requests):
        said.append("A raw body carries one image: only the first image of each request was sent.")
    if result.corpus.skipped:
        said.append(f"Left out of the folder: {counted(result.corpus.skipped, 'file')} without a readable image.")
    return said


def _server_notes(result: RunResult) -> list[str]:
    if result.server is None:
        return ["The server has no Packlight metrics, so pack fill, waste and its own counts are unknown."]
    wrong = [check for check in result.checks if not check.agrees]
    said = [f"COUNTS DISAGREE: {c.name}: client {c.client:,.0f}, server {c.server:,.0f} ({c.remark})." for c in wrong]
    if not np.isnan(result.server.padding_waste) and not result.server.avoided_tokens:
        said.append("The server does not report the padding that it avoided.")
    return said
