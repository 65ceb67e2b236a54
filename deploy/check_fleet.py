"""Two servers behind the balancer, under load: one is killed, one is drained, and no request may be lost.

A Prometheus watches meanwhile. The queries of the chart's ScaledObject must give it the right number while both servers
work, with one of them gone, and after it has come back. With none there they must give no answer: KEDA would take 0
for a reason to scale down.

    python -m deploy.check_fleet --envoy build/chart-tools/bin/envoy --queries queries.json

Half a minute on a quiet machine.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from deploy.fleet import Fleet, FleetError, text, until

_BOTH_WORK = 'rate(packlight_stage_seconds_sum{stage="forward"}[1m]) > 0'


def expected(fleet: Fleet, *, at_s: float) -> dict[str, float]:
    """What the queries have to give, put together here from each server's own series."""

    def by_server(expr: str) -> dict[str, float]:
        return {labels["instance"]: value for labels, value in fleet.ask(expr, at_s=at_s)}

    queued = by_server("packlight_queue_tokens")
    tokens = by_server('sum by (instance) (rate(packlight_tokens_total{kind!="padding"}[5m]))')
    worked = by_server('rate(packlight_stage_seconds_sum{stage="forward"}[5m])')
    busy = by_server('rate(packlight_stage_seconds_sum{stage="forward"}[2m])')
    buckets: dict[float, float] = {}
    for labels, value in fleet.ask('rate(packlight_stage_seconds_bucket{stage="queue"}[2m])', at_s=at_s):
        bound = float(labels["le"].replace("+Inf", "inf"))
        buckets[bound] = buckets.get(bound, 0.0) + value
    rate = sum(tokens.values()) / sum(worked.values()) if sum(worked.values()) else 2000.0
    return {
        "backlog": 1000 * sum(queued.values()) / rate,
        "queue": 1000 * len(queued) * quantile(0.95, buckets),
        "busy": 100 * sum(busy.values()),
    }


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """The quantile of counts up to each bound, evenly spread between bounds; 0 if nothing is counted."""
    rank = share * buckets.get(math.inf, 0.0)
    low, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank > 0:
            return low if bound == math.inf else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return 0.0


def query_faults(fleet: Fleet, queries: Mapping[str, str], when: str, *, at_s: float) -> Iterator[str]:
    """Each query has to give one number, that of `expected`."""
    wanted = expected(fleet, at_s=at_s)
    for name, query in queries.items():
        answers = [value for _, value in fleet.ask(query, at_s=at_s)]
        sys.stdout.write(f"{when}: {name} is {', '.join(f'{value:,.1f}' for value in answers) or 'not answered'}\n")
        if len(answers) != 1 or not math.isclose(answers[0], wanted[name], rel_tol=1e-6, abs_tol=1e-6):
            yield f"{when}: {name} is {answers}, and has to be {wanted[name]}"


def silent_faults(fleet: Fleet, queries: Mapping[str, str], when: str) -> Iterator[str]:
    for name, query in queries.items():
        if answers := fleet.ask(query, at_s=time.time()):
            yield f"{when}: {name} has to be without an answer, and is {answers}"


def load_faults(fleet: Fleet) -> Iterator[str]:
    """Requests that were not answered with 200, whatever happened to the servers."""
    summary = json.loads((fleet.folder / "load.json").read_text(encoding="utf-8"))["summary"]
    stats = text(f"http://127.0.0.1:{fleet.admin}/stats?filter=packlight.upstream_rq_retry$")
    retries = int(stats.rpartition(":")[2])
    sys.stdout.write(f"load: {summary['sent']} requests, {summary['answered']} answered, {retries} tried again\n")
    if summary["errors"]:
        yield f"load: {summary['errors']}"
    if not retries:
        yield "the balancer tried nothing again, so this was no test"


def run(fleet: Fleet, envoy: str, queries: Mapping[str, str]) -> Iterator[str]:
    """Kills and drains servers under load, and yields what was wrong."""
    first, second = fleet.ports
    fleet.start_prometheus()
    until("Prometheus", lambda: text(f"http://127.0.0.1:{fleet.prometheus}/-/ready"))
    for port in fleet.ports:
        fleet.start_server(port)
    fleet.start_balancer(envoy)
    yield from silent_faults(fleet, queries, "no server yet")
    rested = fleet.settle(first, second)

    load = fleet.start_load()
    until("load on both", lambda: len(fleet.ask(_BOTH_WORK, at_s=time.time())) == 2)
    until("a queue", lambda: any(value > 0 for _, value in fleet.ask("packlight_queue_tokens", at_s=time.time())))
    both = time.time()
    fleet.servers[first].kill()
    one = fleet.settle(second)
    fleet.start_server(first)
    again = fleet.settle(first, second)
    fleet.servers[second].send_signal(signal.SIGTERM)
    drained = fleet.settle(first)
    if status := fleet.servers[second].wait():
        yield f"the drained server ended with {status}"
    if load.poll() is not None:
        yield "the load ended before the second server had drained"
    load.send_signal(signal.SIGINT)
    load.wait()
    yield from load_faults(fleet)

    moments = {"at rest": rested, "both at work": both, "one killed": one, "it is back": again, "one drained": drained}
    for when, at_s in moments.items():
        yield from query_faults(fleet, queries, when, at_s=at_s)
    fleet.servers[first].terminate()
    until("no server scraped", lambda: not fleet.scraped())
    yield from silent_faults(fleet, queries, "no server left")


def main() -> int:
    """0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description="Tries the balancer and the chart's queries.", allow_abbrev=False)
    parser.add_argument("--envoy", required=True, metavar="PROGRAM")
    parser.add_argument("--queries", required=True, type=Path, metavar="FILE", help="queries by their names, as JSON")
    args = parser.parse_args()
    # A shell's background jobs ignore SIGINT, and so would the load. What is caught here is not ignored there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    queries = json.loads(args.queries.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fleet = Fleet(Path(folder), stack)
        try:
            faults = list(run(fleet, args.envoy, queries))
        except FleetError as error:
            faults = [str(error)]
        for fault in faults:
            sys.stderr.write(f"{fault}\n")
        for log in sorted(Path(folder).glob("*.log")) if faults else ():
            sys.stderr.write(f"--- {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
