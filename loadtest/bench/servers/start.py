"""How long a server takes to be ready, and what it holds at rest: one process, and several with an engine process.

With `--before`, both checkouts start in turn, in changing order. Medians of the rounds, and of the ratios within them.

    ready_s         from the start of the process to the first 200 of `/readyz`
    ready_cpu_s     user and system time of all its processes until then, without those that have ended
    first_ms        the first photo, just after; `later_ms`, the median of the next ten
    rss_mb, pss_mb, uss_mb
                    of all processes together at rest, after those photos: resident, with shared pages divided among
                    those that share them, and without shared pages. `http_uss_mb`: of the largest HTTP process

Beside them stands what nobody saves: a process that imports torch and computes one linear layer in two dtypes.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.bench.clients import requests
from loadtest.bench.servers.processes import cpu_s, process_uses
from loadtest.bench.servers.running import free_port, running
from model.child_process import process_tree

_CHECKOUT = Path(__file__).parents[3]
_SERVERS: Mapping[str, Sequence[str]] = {
    "one process": (),
    "two HTTP processes": ("--http-workers", "2"),
}
_LATER, _MAX_TOKENS = 10, 64
_TORCH_ALONE = """
import ctypes, sys, torch
for dtype in (torch.float32, torch.bfloat16):
    with torch.inference_mode():
        torch.nn.Linear(256, 768, dtype=dtype)(torch.zeros(64, 256, dtype=dtype))
ctypes.CDLL(None).malloc_trim(0)
print(flush=True)
sys.stdin.read()
"""
_FIELD = re.compile(r"^(Rss|Pss|Private_Clean|Private_Dirty): +(\d+) kB$", re.MULTILINE)

Figures = dict[str, float]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rest", type=float, default=3.0, metavar="SECONDS", help="before memory is read")
    parser.add_argument("--model", default="packlight-tiny")
    parser.add_argument("--servers", nargs="+", choices=tuple(_SERVERS), default=list(_SERVERS))


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    builds = {"now": _CHECKOUT} | ({"before": options.before.resolve()} if options.before else {})
    rows: list[dict[str, object]] = []
    for server in options.servers:
        found: dict[str, list[Figures]] = {build: [] for build in builds}
        for number in range(options.rounds):
            for build in sorted(builds, reverse=bool(number % 2)):
                found[build].append(_start(builds[build], server, options))
        rows += [{"server": server, "build": build, **_medians(figures)} for build, figures in found.items()]
        if options.before:
            ratios = [_over(now, before) for now, before in zip(found["now"], found["before"], strict=True)]
            rows.append({"server": server, "build": "now/before", **_medians(ratios)})
    rows.append({"server": "torch alone", "build": "", **_medians([_torch_alone() for _ in range(options.rounds)])})
    return rows


def _start(checkout: Path, server: str, options: argparse.Namespace) -> Figures:
    port = free_port()
    command = [
        # -P: the current folder's packages do not stand before the checkout's.
        sys.executable, "-P", "-m", "service", "serve", "--port", str(port), "--model", options.model,
        "--log-level", "warning", *_SERVERS[server],
    ]  # fmt: skip
    environment = {"PYTHONPATH": str(checkout)}
    with running(command, port=port, ready_path="/readyz", environment=environment) as started:
        pids = process_tree(started.pid)
        spent_s = cpu_s(pids)
        first_ms, *later_ms = [_photo_ms(port, photo) for photo in _photos()]
        time.sleep(options.rest)
        return {
            "ready_s": started.started_s,
            "ready_cpu_s": spent_s,
            "first_ms": first_ms,
            "later_ms": statistics.median(later_ms),
            **_memory(started.pid),
        }


def _torch_alone() -> Figures:
    command, pipe = [sys.executable, "-P", "-c", _TORCH_ALONE], subprocess.PIPE
    began_s = time.perf_counter()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        taken_s = time.perf_counter() - began_s
        found = {"ready_s": taken_s, "ready_cpu_s": cpu_s([process.pid]), **_resident(process.pid)}
        process.stdin.close()
    return found


def _photos() -> list[bytes]:
    photos = [requests.packlight(photo, _MAX_TOKENS) for photo in requests.photos()]
    return [photos[number % len(photos)] for number in range(1 + _LATER)]


def _photo_ms(port: int, request: bytes) -> float:
    began_s = time.perf_counter()
    requests.vector(port, request)
    return (time.perf_counter() - began_s) * 1000


def _memory(pid: int) -> Figures:
    """The memory of the server's processes, in megabytes."""
    total = dict.fromkeys(("rss_mb", "pss_mb", "uss_mb", "http_uss_mb"), 0.0)
    for use in process_uses(pid):
        resident = _resident(use.pid)
        for name, mb in resident.items():
            total[name] += mb
        if use.name == "http":
            total["http_uss_mb"] = max(total["http_uss_mb"], resident["uss_mb"])
    return total if total["http_uss_mb"] else {name: mb for name, mb in total.items() if name != "http_uss_mb"}


def _resident(pid: int) -> Figures:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    mb = {name: int(kib) * 1024 / 1e6 for name, kib in _FIELD.findall(rollup)}
    return {"rss_mb": mb["Rss"], "pss_mb": mb["Pss"], "uss_mb": mb["Private_Clean"] + mb["Private_Dirty"]}


def _over(now: Figures, before: Figures) -> Figures:
    return {name: now[name] / before[name] for name in now}


def _medians(figures: Sequence[Figures]) -> Figures:
    return {name: round(statistics.median(each[name] for each in figures), 3) for name in figures[0]}
