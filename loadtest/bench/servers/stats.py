"""What listeners of `/stats` cost a server, in shares of one core.

Listeners are plain sockets of a process beside this one, which reads what comes and throws it away. In each round the
numbers of listeners take turns, with the server idle and with photos at a steady rate; what the server's processes
took is read before and after.

    cores_percent   of one core, all processes of the server together, median of the rounds
    added_percent   more than without listeners in the same round, median of the rounds
"""

import argparse
import selectors
import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from loadtest.bench.clients import requests
from loadtest.bench.clients.closed_loop import ClosedLoop, Load
from loadtest.bench.servers.aside import Aside
from loadtest.bench.servers.processes import cpu_s
from loadtest.bench.servers.running import Running, serving
from model.child_process import process_tree

_LISTENERS = (0, 1, 100)
# A server keeps making lines until it notices that the last listener has gone.
_SETTLE_S = 1.5
_ASK = b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
# Photos at about 20 a second: the device is busy, and has time left.
_CONNECTIONS, _PAUSE_S, _MAX_TOKENS = 2, 0.1, 64


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--http-workers", type=int, default=1, help="more than 1: with an engine process")


def measure(given: Any) -> list[dict[str, object]]:
    shares: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    options = ["--http-workers", str(given.http_workers), "--log-level", "warning"]
    with serving(*options) as server, ClosedLoop() as sender, Aside(_listen) as listening:
        for _ in range(given.rounds):
            for state in ("idle", "busy"):
                for listeners in _LISTENERS:
                    with _following(listening, server, listeners):
                        busy = sender if state == "busy" else None
                        shares[state, listeners].append(_share(server, given.seconds, busy))
    return [
        {
            "server": state,
            "listeners": listeners,
            "cores_percent": round(100 * statistics.median(taken), 2),
            "added_percent": round(100 * _added(taken, shares[state, 0]), 2),
        }
        for (state, listeners), taken in shares.items()
    ]


def _added(taken: Sequence[float], without: Sequence[float]) -> float:
    return statistics.median(one - other for one, other in zip(taken, without, strict=True))


def _share(server: Running, seconds: float, sender: ClosedLoop | None) -> float:
    """Processor seconds a second of the server."""
    if sender is None:
        pids = process_tree(server.pid)
        before_s, began_s = cpu_s(pids), time.perf_counter()
        time.sleep(seconds)
        return (cpu_s(pids) - before_s) / (time.perf_counter() - began_s)
    photos = [requests.packlight(photo, _MAX_TOKENS) for photo in requests.photos()]
    answers = sender.send(Load(server.port, server.pid, photos, _CONNECTIONS, seconds, _SETTLE_S, _PAUSE_S))
    assert not answers.failed, f"{answers.failed} photos were refused"
    first, last = answers.samples[0], answers.samples[-1]
    return (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)


@contextmanager
def _following(listening: Aside, server: Running, listeners: int) -> Iterator[None]:
    lines = listening.ask((server.port, listeners))
    assert lines == listeners, f"{lines} of {listeners} listeners got a line"
    time.sleep(_SETTLE_S)
    yield
    listening.ask((server.port, 0))
    time.sleep(_SETTLE_S)


def _listen(end: "Connection[object, object]") -> None:
    """Follows with as many sockets as it is told, and says when each of them has had its first line."""
    sockets: list[socket.socket] = []
    selector = selectors.DefaultSelector()
    while True:
        while not end.poll():
            _read(selector, 0.05)
        asked: Any = end.recv()
        port, listeners = asked
        for one in sockets:
            selector.unregister(one)
            one.close()
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(listeners)]
        for one in sockets:
            one.sendall(_ASK)
            selector.register(one, selectors.EVENT_READ)
        served: set[int] = set()
        while len(served) < listeners:
            served |= _read(selector, 1.0)
        end.send(len(served))


def _read(selector: selectors.BaseSelector, timeout_s: float) -> set[int]:
    """The sockets that a line came on."""
    if not selector.get_map():
        time.sleep(timeout_s)
        return set()
    came = set()
    for key, _ in selector.select(timeout_s):
        assert isinstance(key.fileobj, socket.socket)
        data = key.fileobj.recv(1 << 20)
        assert data, "the server closed a stream"
        if b'"full"' in data:
            came.add(key.fd)
    return came
