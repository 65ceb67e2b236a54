"""Mixed load at half of a server's capacity for many minutes: do memory, open files and latency stay flat?

A real server runs with its device in a process of its own. The traffic is the mix of `python -m loadtest`:
photographs, pages, screens and thumbnails, some of them broken, some from clients that leave, and two slow uploads
throughout. Every process is sampled every ten seconds. Growth is reported by the hour, after the first quarter.
"""

import argparse
import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.bench.clients.crowd import Answer, Crowd, Kind, timetable
from loadtest.bench.clients.figures import Row, rounded, statuses
from loadtest.bench.overload import truncated
from loadtest.bench.servers.processes import ProcessUse, process_uses
from loadtest.bench.servers.running import Running, serving
from loadtest.runs.stats import Quantiles
from loadtest.traffic.bodies import Adapter, Wire
from loadtest.traffic.corpus import from_mix
from loadtest.traffic.mix import load

_SHARES: dict[Kind, float] = {"corrupt": 0.02, "leaving": 0.02}
_SLOW_CLIENTS = 2
_SEED = 1
_DISTINCT = 60
_CAPACITY_S, _CAPACITY_CLIENTS = 10.0, 16
_SAMPLE_EVERY_S = 10.0
_PATIENCE_S = 60.0

# Allowed growth from the second quarter to the last. The least memory and files of each quarter are compared: a large
# pack takes half a gigabyte for a moment and connections come and go, but a leak raises the minimum.
_MOST_GROWTH = 0.03
_MOST_FILES = 2
# Latency of the last quarter over the first. Other programs on the machine disturb it.
_MOST_SLOWER_P50, _MOST_SLOWER_P99 = 1.25, 1.5


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes at one moment. at_s: seconds from the start of the load."""

    at_s: float
    processes: Sequence[ProcessUse]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=20.0, help="minutes of load (default: 20)")
    parser.add_argument("--share", type=float, default=0.5, help="offered load over capacity (default: 0.5)")
    parser.add_argument("--model", default="packlight-tiny", help="what to serve (default: packlight-tiny)")
    parser.add_argument("--engine", choices=("thread", "process"), default="process", help="default: process")
    parser.add_argument("--http-workers", type=int, default=1, help="default: 1")


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each minute and each process, and the verdicts."""
    corpus = from_mix(load("mixed"), count=_DISTINCT, seed=_SEED)
    adapter = Adapter()
    good = [adapter.wire(request) for request in corpus.requests]
    broken = [adapter.wire(truncated(request)) for request in corpus.requests]
    words = ["--model", options.model, "--engine", options.engine, "--http-workers", str(options.http_workers)]
    with serving(*words) as server:
        return asyncio.run(_measure(server, good, broken, seconds=options.minutes * 60, share=options.share))


async def _measure(
    server: Running, good: Sequence[Wire], broken: Sequence[Wire], *, seconds: float, share: float
) -> list[Row]:
    async with Crowd(server.url, timeout_s=_PATIENCE_S) as crowd:
        await crowd.closed_loop(good, clients=_CAPACITY_CLIENTS, seconds=_CAPACITY_S)
    capacity = len(crowd.answers) / _CAPACITY_S
    wires: dict[Kind, Sequence[Wire]] = {"good": good, "corrupt": broken, "leaving": good}
    arrivals = timetable(wires, _SHARES, rate=share * capacity, seconds=seconds, seed=_SEED)
    samples: list[Sample] = []
    async with Crowd(server.url, timeout_s=_PATIENCE_S) as crowd:
        sampling = asyncio.create_task(_sample(server, samples))
        slow = asyncio.create_task(crowd.slow_uploads(good[0], clients=_SLOW_CLIENTS, seconds=seconds))
        await crowd.open_loop(arrivals)
        await slow
        sampling.cancel()
    return [
        {"case": "offered", "requests_per_s": round(share * capacity, 2), "capacity": round(capacity, 2)},
        *minutes(crowd.answers, seconds),
        {"case": "answers", **statuses(crowd.answers, "good", *_SHARES, "slow")},
        *(memory(samples, seconds, name) for name in sorted({use.name for use in samples[0].processes})),
        *verdicts(samples, crowd.answers, seconds),
    ]


async def _sample(server: Running, samples: list[Sample]) -> None:
    began_s = time.monotonic()
    while True:
        samples.append(Sample(time.monotonic() - began_s, process_uses(server.pid)))
        await asyncio.sleep(began_s + len(samples) * _SAMPLE_EVERY_S - time.monotonic())


def minutes(answers: Sequence[Answer], seconds: float) -> list[Row]:
    """Latency of answered requests, from when they were due, for each minute."""
    rows: list[Row] = []
    for minute in range(-(-int(seconds) // 60)):
        found = latency_ms(answers, minute * 60.0, (minute + 1) * 60.0)
        rows.append(
            {"case": f"minute {minute + 1}", "answered": found.count, "p50_ms": rounded(found.p50),
             "p99_ms": rounded(found.p99), "max_ms": rounded(found.max)}
        )  # fmt: skip
    return rows


def latency_ms(answers: Sequence[Answer], start_s: float, end_s: float) -> Quantiles:
    """Latency of answered good requests that were due in this time."""
    good = (each for each in answers if each.kind == "good" and each.status == 200 and start_s <= each.due_s < end_s)
    return Quantiles.of(np.array([(answer.done_s - answer.due_s) * 1e3 for answer in good]))


def memory(samples: Sequence[Sample], seconds: float, name: str) -> Row:
    """Megabytes of the processes of one name: first, last, most, and the slope of the minimum."""
    at_s = [sample.at_s for sample in samples]
    taken_mb = [_mb(sample, name) for sample in samples]
    return {
        "case": f"memory of {name}, MB",
        "first": rounded(taken_mb[0]), "last": rounded(taken_mb[-1]), "most": rounded(max(taken_mb)),
        "per_hour": rounded(slope_per_hour(at_s, taken_mb, seconds / 4)),
    }  # fmt: skip


def slope_per_hour(at_s: Sequence[float], values: Sequence[float], start_s: float) -> float:
    """Least squares through the minimum of each minute from `start_s` on."""
    least: dict[int, tuple[float, float]] = {}
    for at, value in zip(at_s, values, strict=True):
        if at >= start_s:
            minute = int(at // 60)
            least[minute] = min(least.get(minute, (math.inf, at)), (value, at))
    if len(least) < 2:
        return math.nan
    seen, times = np.array(list(least.values())).T
    return float(np.polyfit(times, seen, 1)[0] * 3600)


def verdicts(samples: Sequence[Sample], answers: Sequence[Answer], seconds: float) -> list[Row]:
    """Compares the least memory and files of the second and last quarters, and the latency of the first and last."""
    quarters = [[sample for sample in samples if sample.at_s // (seconds / 4) == quarter] for quarter in range(4)]
    second_mb, last_mb = (min(map(_mb, quarters[number]), default=math.nan) for number in (1, 3))
    second_files, last_files = (min(map(_files, quarters[number]), default=0) for number in (1, 3))
    first, last = (latency_ms(answers, start_s, start_s + seconds / 4) for start_s in (0.0, seconds * 3 / 4))
    unanswered = sum(answer.status < 0 for answer in answers if answer.kind in ("good", "corrupt"))
    slope = slope_per_hour([sample.at_s for sample in samples], [_mb(sample) for sample in samples], seconds / 4)
    return [
        _verdict("memory, MB", second_mb, last_mb, flat=last_mb <= second_mb * (1 + _MOST_GROWTH))
        | {"per_hour": rounded(slope)},
        _verdict("open files", second_files, last_files, flat=last_files <= second_files + _MOST_FILES),
        _verdict("p50, ms", first.p50, last.p50, flat=last.p50 <= first.p50 * _MOST_SLOWER_P50),
        _verdict("p99, ms", first.p99, last.p99, flat=last.p99 <= first.p99 * _MOST_SLOWER_P99),
        _verdict("requests without an answer", 0, unanswered, flat=not unanswered),
    ]


def _verdict(what: str, before: float, after: float, *, flat: bool) -> Row:
    return {"case": what, "early": rounded(before), "late": rounded(after), "verdict": "flat" if flat else "grows"}


def _mb(sample: Sample, name: str | None = None) -> float:
    """Memory of all processes, or of those of one name."""
    return sum(use.memory_bytes for use in sample.processes if name in (None, use.name)) / 1e6


def _files(sample: Sample) -> int:
    return sum(use.files for use in sample.processes)
