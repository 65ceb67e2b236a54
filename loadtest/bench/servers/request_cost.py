"""What the HTTP side of a request costs: this checkout and, with `--before CHECKOUT`, another, asked in turn.

Each checkout's `packlight serve` runs in one process, whose first thread runs the event loop. While one is measured the
other is stopped. The kernel's count of processor time is read before and after, so the servers need not know.

| row | what is sent |
|---|---|
| `raw`, `form`, `json` | photos of 0.2 megapixels in that kind of body, twice a full pack in flight |
| `lone` | one raw photo at a time, with pauses in which the server comes to rest |

    loop_us      processor time of the event loop's thread a request, median over the rounds
    all_us       of all threads
    beyond_ms    of a lone request: time at the client beyond its stages receive, decode and forward, median
    before_…     the same of the other checkout
    bare_…       the same of uvicorn in front of nothing, which reads the body and answers as much (`--bare`)
    …_ratio      this checkout over the other in the same round, median over the rounds
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from loadtest.bench.clients import requests
from loadtest.bench.clients.closed_loop import Answers, ClosedLoop, Load
from loadtest.bench.clients.lone import lone
from loadtest.bench.clients.targets import Case, cases
from loadtest.bench.servers.base_model import BASE
from loadtest.bench.servers.processes import cpu_s, thread_cpu_s
from loadtest.bench.servers.running import Running, free_port, paused, running
from loadtest.sending.answers import read_server_timing
from model.child_process import process_tree

Row = dict[str, object]
_CHECKOUT = Path(__file__).parents[3]
_KINDS = {
    "raw": requests.packlight,
    "form": lambda photo, max_tokens: requests.packlight_form([photo], max_tokens),
    "json": requests.packlight_json,
}
_PAUSE_S = 0.02


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")
    parser.add_argument("--cases", default="tiny", help="models, comma-separated: tiny, base (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=BASE.depth, help="blocks of the base shape (default: 12)")
    parser.add_argument("--rows", nargs="+", choices=(*_KINDS, "lone"), default=[*_KINDS, "lone"])
    parser.add_argument("--bare", action="store_true", help="also what uvicorn alone takes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")


def measure(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, ClosedLoop() as sender:
        for case in cases(options, Path(folder), rows):
            rows += _case(case, sender, options)
    return rows


def _case(case: Case, sender: ClosedLoop, options: argparse.Namespace) -> list[Row]:
    checkouts = {"now": _CHECKOUT} | ({"before": options.before.resolve()} if options.before else {})
    with ExitStack() as stack:
        servers = {which: stack.enter_context(_serving(case, checkout)) for which, checkout in checkouts.items()}
        if options.bare:
            servers["bare"] = stack.enter_context(_bare())
        return [_row(case, kind, servers, sender, options) for kind in options.rows]


def _serving(case: Case, checkout: Path) -> AbstractContextManager[Running]:
    """`-P`: otherwise the modules of the current folder would come first."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "service", "serve", "--port", str(port), "--model", case.model]
    return running(command, port=port, ready_path="/readyz", environment={"PYTHONPATH": str(checkout)})


def _bare() -> AbstractContextManager[Running]:
    port = free_port()
    command = [sys.executable, "-P", "-m", "uvicorn", "loadtest.bench.servers.bare_http:app", "--port", str(port)]
    command += ["--lifespan", "off", "--no-access-log", "--log-level", "warning", "--no-server-header"]
    return running(command, port=port, ready_path="/", environment={"PYTHONPATH": str(_CHECKOUT)})


def _row(case: Case, kind: str, servers: dict[str, Running], sender: ClosedLoop, options: argparse.Namespace) -> Row:
    found: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(options.rounds + 1):
        for which in sorted(servers, reverse=bool(number % 2)):
            with paused(other for name, other in servers.items() if name != which):
                found[which].append(_measured(case, kind, servers[which], sender, options.seconds))
    # What a server does once belongs to no request.
    now, before, bare = found["now"][1:], found["before"][1:], found["bare"][1:]
    row: Row = {"case": case.name, "requests": kind}
    for name in now[0]:
        if before:
            row[f"before_{name}"] = _median([each[name] for each in before])
        row[name] = _median([each[name] for each in now])
        if before:
            pairs = zip(now, before, strict=True)
            row[f"{name.partition('_')[0]}_ratio"] = _median([new[name] / old[name] for new, old in pairs])
        if bare:
            row[f"bare_{name}"] = _median([each[name] for each in bare])
    return row


def _measured(case: Case, kind: str, server: Running, sender: ClosedLoop, seconds: float) -> dict[str, float]:
    alone = kind == "lone"
    turns = zip(requests.photos(), itertools.cycle(case.budgets), strict=False)
    made = [_KINDS["raw" if alone else kind](photo, max_tokens) for photo, max_tokens in turns]
    pids = process_tree(server.pid)
    loop_s, all_s = thread_cpu_s(server.pid), cpu_s(pids)
    if alone:
        answers = lone(server.port, made, seconds=seconds, pause_s=_PAUSE_S)
    else:
        answers = sender.send(Load(server.port, server.pid, made, case.in_flight, seconds, warm_s=0.0))
    if answers.failed:
        raise RuntimeError(f"{answers.failed} requests were answered with an error")
    count = len(answers.answered_s)
    spent = {
        "loop_us": (thread_cpu_s(server.pid) - loop_s) / count * 1e6,
        "all_us": (cpu_s(pids) - all_s) / count * 1e6,
    }
    return spent | ({"beyond_ms": statistics.median(_beyond_ms(answers))} if alone else {})


def _beyond_ms(answers: Answers) -> list[float]:
    return [
        latency_s * 1e3 - sum(read_server_timing(timing)[stage] for stage in ("receive", "decode", "forward"))
        for latency_s, timing in zip(answers.latencies_s, answers.timings, strict=True)
    ]


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2)
