"""The whole server over a real socket, against the same pipeline without HTTP and against other servers.

Cases, all with random weights and photos of 0.2 megapixels: packlight-tiny at 64 tokens, the base shape at 256, and
the base shape at budgets from 64 to 1,024 in turn (`mixed`). Each server is loaded with as many requests in flight as
fill two packs, in rounds that take the servers in turn, and then with one request at a time. The other servers are
paused meanwhile.

    images_per_s      answers a second
    without_sender    the same × cores / (cores − the sender's): the rate if the server had had the sender's time too
    images_per_cpu_s  answers a second of the server's processor time; holds on a busy machine too
    packlight_over…   images_per_s of the first Packlight server over its own in the same round, median over the rounds
    p50_ms, p99_ms    from sending a request to its whole answer, of all rounds
    errors            answers other than 200
    padding           the share of the rows that the server computed that held no token, by its own counters
    of_bare…          the ratio to the bare pipeline in the same round, median over the rounds
    beyond_ms         a lone request's time at the client beyond its stages receive, decode and forward, median
    start_s           from the start of the process to the first 200 at /readyz, with files in the system's cache

LitServe pads pictures to the largest budget of their batch. `cosine` compares a vector of the first photo with ours.
What the others cannot do is said in `peers/servers.py`.
"""

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.bench.clients import requests
from loadtest.bench.clients.closed_loop import Answers, ClosedLoop, Load
from loadtest.bench.clients.figures import rounded
from loadtest.bench.clients.padding import padding
from loadtest.bench.clients.steady import Steady, TooFewAnswers, steady
from loadtest.bench.clients.targets import (
    CORES,
    Case,
    Row,
    Target,
    agreement,
    alone,
    cases,
    makers,
    packlight_server,
    prepared,
    start_target,
)
from loadtest.bench.forwards.bare import BarePipeline, Work
from loadtest.bench.peers import servers as peers
from loadtest.bench.peers.environments import DEFAULT_FOLDER
from loadtest.bench.servers.base_model import BASE
from loadtest.bench.servers.inside import ServerInside
from loadtest.bench.servers.running import paused
from loadtest.runs.stats import Quantiles
from loadtest.sending.answers import read_server_timing

_LONE_REQUESTS = 40
_BARE = "bare pipeline"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cases", default="tiny,base", help="tiny, base, mixed, fixed (with infinity), comma-separated"
    )
    parser.add_argument("--peers", default="", help=f"other servers, comma-separated: {', '.join(peers.PEERS)}")
    parser.add_argument("--peers-dir", type=Path, default=DEFAULT_FOLDER, help="where `make peers` put them")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="of all but infinity")
    parser.add_argument("--layers", type=int, default=BASE.depth, help="blocks of the base shape (default: 12)")
    parser.add_argument("--starts", type=int, default=3, help="measurements of each start; 0 for none (default: 3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each server in a round")
    parser.add_argument("--profile", action="store_true", help="only measure where the processor time goes")


def measure(options: argparse.Namespace) -> list[Row]:
    # On SIGTERM it exits in order, which stops the servers it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, ClosedLoop() as sender:
        for case in cases(options, Path(folder), rows):
            sys.stderr.write(f"{case.name} …\n")
            look = _profiled if options.profile else _measured
            try:
                rows += look(case, sender, options)
            except TooFewAnswers as error:
                rows.append({"case": case.name, "cannot_measure": str(error)})
    return rows


@dataclass(frozen=True, slots=True)
class _Round:
    """latencies_s: of the measured time. errors: answers other than 200."""

    steady: Steady
    latencies_s: list[float]
    errors: int

    @classmethod
    def of(cls, answers: Answers) -> "_Round":
        began_s = answers.samples[0].at_s
        both = zip(answers.answered_s, answers.latencies_s, strict=False)
        latencies_s = [latency_s for at_s, latency_s in both if at_s >= began_s]
        return cls(steady(answers.answered_s, answers.samples), latencies_s, answers.failed)


def _measured(case: Case, sender: ClosedLoop, options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    photos = requests.photos()
    with ExitStack() as stack:
        targets = [
            target for make in makers(case, photos, options) if (target := start_target(make, stack, case, rows))
        ]
        bare = stack.enter_context(BarePipeline(model=case.model, dtype=options.dtype))
        counted = {target.name: target.counts() for target in targets}
        rounds: dict[str, list[_Round]] = {}
        for _ in range(options.rounds):
            with paused(target.server for target in targets):
                answers, _ = bare.run(Work(photos, case.budgets, case.in_flight, options.seconds, warm_s=2.0))
            rounds.setdefault(_BARE, []).append(_Round.of(answers))
            for target in targets:
                server = target.server
                load = Load(server.port, server.pid, target.requests, case.in_flight, options.seconds, warm_s=2.0)
                with alone(target, targets):
                    rounds.setdefault(target.name, []).append(_Round.of(sender.send(load)))
        for target in targets:
            more: Row = {"padding": padding(counted[target.name], target.counts())}
            with alone(target, targets):
                more |= _lone(target, sender)
            rows.append(_row(case, target.name, rounds, more | agreement(target, targets)))
        rows.append(_row(case, _BARE, rounds, {}))
    return rows + (_starts(case, options.starts) if options.starts else [])


def _lone(target: Target, sender: ClosedLoop) -> Row:
    """One request at a time, with pauses in which the server comes to rest."""
    server = target.server
    load = Load(server.port, server.pid, target.requests, 1, seconds=0.5, warm_s=0.5, pause_s=0.02)
    latencies_s: list[float] = []
    beyond_ms: list[float] = []
    while len(latencies_s) < _LONE_REQUESTS:
        answers = sender.send(load)
        latencies_s += answers.latencies_s
        if target.ours:
            for latency_s, timing in zip(answers.latencies_s, answers.timings, strict=True):
                stages = read_server_timing(timing)
                beyond_ms.append(latency_s * 1e3 - sum(stages[name] for name in ("receive", "decode", "forward")))
    row: Row = {"lone_ms": round(statistics.median(latencies_s) * 1e3, 2)}
    return row | ({"beyond_ms": round(statistics.median(beyond_ms), 2)} if beyond_ms else {})


def _row(case: Case, name: str, rounds: dict[str, list[_Round]], more: Row) -> Row:
    mine = [each.steady for each in rounds[name]]
    row: Row = {
        "case": case.name,
        "server": name,
        "images_per_s": _median(each.images_per_s for each in mine),
        "without_sender": _median(each.images_per_s_without_sender(CORES) for each in mine),
        "images_per_cpu_s": _median(each.images_per_cpu_s for each in mine),
        "cores": _median(each.cpu_s / each.seconds for each in mine),
        "sender_cores": _median(each.sender_cpu_s / each.seconds for each in mine),
    }
    if name == _BARE:
        return row | more
    latency = Quantiles.of(np.array([latency_s for each in rounds[name] for latency_s in each.latencies_s]) * 1e3)
    row |= {"p50_ms": rounded(latency.p50, 1), "p99_ms": rounded(latency.p99, 1)}
    row["errors"] = sum(each.errors for each in rounds[name])
    ours = next(other for other in rounds if other != _BARE)
    row["packlight_over_it"] = _median(
        first.steady.images_per_s / each.images_per_s for first, each in zip(rounds[ours], mine, strict=True)
    )
    pairs = [(each, bare.steady) for each, bare in zip(mine, rounds[_BARE], strict=True)]
    row["of_bare"] = _median(each.images_per_s / bare.images_per_s for each, bare in pairs)
    row["of_bare_without_sender"] = _median(
        each.images_per_s_without_sender(CORES) / bare.images_per_s for each, bare in pairs
    )
    row["of_bare_per_cpu"] = _median(each.images_per_cpu_s / bare.images_per_cpu_s for each, bare in pairs)
    return row | more


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def _starts(case: Case, count: int) -> list[Row]:
    """Start times with no other server running. The first start is not counted."""
    rows: list[Row] = []
    for engine in ("thread", "process"):
        took_s = []
        for _ in range(count + 1):
            with packlight_server(case, "--engine", engine) as server:
                took_s.append(server.started_s)
        rows.append(
            {
                "case": case.name,
                "server": f"packlight, engine={engine}",
                "start_s": round(statistics.median(took_s[1:]), 2),
            }
        )
    return rows


def _profiled(case: Case, sender: ClosedLoop, options: argparse.Namespace) -> list[Row]:
    """Microseconds of processor time an image for each kind of thread, and shares of the loop's time by package."""
    photos = requests.photos()
    load_of = prepared(case, photos, requests.packlight)
    with BarePipeline(model=case.model) as bare, ServerInside(model=case.model, port=0) as server:
        load = Load(server.port, server.pid, load_of, case.in_flight, options.seconds, warm_s=0.0)
        sender.send(load)
        ours, theirs = [], []
        for _ in range(options.rounds):
            before = server.threads_cpu_s()
            answers = sender.send(load)
            ours.append(_each_us(server.threads_cpu_s(), before, len(answers.answered_s)))
            done, by_thread = bare.run(Work(photos, case.budgets, case.in_flight, options.seconds, warm_s=0.0))
            theirs.append(_each_us(by_thread, {}, len(done.answered_s)))
        server.start_profile()
        sender.send(load)
        shares = server.stop_profile()
    rows: list[Row] = [
        {
            "case": case.name,
            "thread": name,
            "server_us_an_image": round(statistics.median(each.get(name, 0.0) for each in ours)),
            "bare_us_an_image": round(statistics.median(each.get(name, 0.0) for each in theirs)),
        }
        for name in sorted({name for each in (*ours, *theirs) for name in each})
    ]
    return rows + [
        {"case": case.name, "loop_in": name, "share": round(share, 3)} for name, share in list(shares.items())[:25]
    ]


def _each_us(after: dict[str, float], before: dict[str, float], images: int) -> dict[str, float]:
    return {name: (seconds - before.get(name, 0.0)) / images * 1e6 for name, seconds in after.items()}
