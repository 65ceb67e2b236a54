"""What tracing costs a request, in processor time: all threads of a server, the exporter's too.

The same checkout serves untraced, and with every request traced; while one is measured the other is stopped. A part
of one per cent is below the noise of such a measurement, so the cost at 1% is made of two: a request that is traced,
from the difference of the servers, and one that is not, from the calls that it makes, timed by themselves in this
process. Spans go to a real gRPC server, in a process of its own.

    off_us       processor time of an untraced server a request, median over the rounds
    traced_us    how much more a traced request takes
    unsampled_us how much more a request takes that is not sampled; with_parent_us: whose caller sent a `traceparent`
    at_1_percent_us, share_percent   the cost with 1% sampled, and its share of `off_us`
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from loadtest.bench.clients import requests
from loadtest.bench.clients.closed_loop import ClosedLoop, Load
from loadtest.bench.servers.processes import cpu_s
from loadtest.bench.servers.running import Running, free_port, paused, running
from model.child_process import process_tree

Row = dict[str, object]
_IN_FLIGHT, _MAX_TOKENS = 32, 256
_PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")


def measure(options: argparse.Namespace) -> list[Row]:
    with ExitStack() as stack:
        sender, endpoint = stack.enter_context(ClosedLoop()), stack.enter_context(collector())
        traced = ["--tracing-endpoint", endpoint, "--tracing-sample-ratio", "1"]
        servers = {name: stack.enter_context(_serving(more)) for name, more in (("off", []), ("on", traced))}
        off, more = [], []
        for number in range(options.rounds + 1):
            found = {}
            for name in sorted(servers, reverse=bool(number % 2)):
                with paused(other for each, other in servers.items() if each != name):
                    found[name] = _request_us(servers[name], sender, options.seconds)
            # What a server does once belongs to no request.
            if number:
                off.append(found["off"])
                more.append(found["on"] - found["off"])
    unsampled_us, with_parent_us = _unsampled_us([]), _unsampled_us([(b"traceparent", _PARENT)])
    off_us, traced_us = statistics.median(off), statistics.median(more)
    at_1_percent_us = 0.99 * unsampled_us + 0.01 * traced_us
    return [
        {
            "off_us": round(off_us, 1),
            "traced_us": round(traced_us, 1),
            "unsampled_us": round(unsampled_us, 2),
            "with_parent_us": round(with_parent_us, 2),
            "at_1_percent_us": round(at_1_percent_us, 2),
            "share_percent": round(100 * at_1_percent_us / off_us, 2),
        }
    ]


def _serving(more: list[str]) -> AbstractContextManager[Running]:
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--devices", "cpu", *more]
    return running(command, port=port, ready_path="/readyz")


def _request_us(server: Running, sender: ClosedLoop, seconds: float) -> float:
    made = [requests.packlight(photo, _MAX_TOKENS) for photo in itertools.islice(requests.photos(), 64)]
    pids = process_tree(server.pid)
    before_s = cpu_s(pids)
    answers = sender.send(Load(server.port, server.pid, made, _IN_FLIGHT, seconds, warm_s=0.0, pause_s=0.0))
    if answers.failed:
        raise RuntimeError(f"{answers.failed} requests were answered with an error")
    return (cpu_s(pids) - before_s) / len(answers.answered_s) * 1e6


def _unsampled_us(headers: list[tuple[bytes, bytes]]) -> float:
    """The calls of a request of one image that is not sampled."""
    from service.metrics import Metrics
    from service.settings.settings import Settings
    from service.tracing import current
    from service.tracing.switch import tracing_of

    tracing = tracing_of(Settings(tracing_endpoint="http://127.0.0.1:1", tracing_sample_ratio=0), Metrics(), environ={})
    assert tracing is not None
    usual = [(name, b"value") for name in (b"host", b"accept", b"user-agent", b"content-type", b"content-length")]
    scope: dict[str, Any] = {"method": "POST", "path": "/embed", "scheme": "http", "headers": [*usual, *headers]}

    def request() -> None:
        current.forget()
        tracing.begin(scope, "a model")
        # Receive, decode, queue and respond, the client of the engine, and two lines of the log.
        for _ in range(7):
            current.recorded.get()

    try:
        return statistics.median(_timed_us(request) for _ in range(9))
    finally:
        tracing.close()


def _timed_us(call: Callable[[], None], times: int = 5000) -> float:
    began_s = time.thread_time()
    for _ in range(times):
        call()
    return (time.thread_time() - began_s) / times * 1e6


@contextmanager
def collector() -> Iterator[str]:
    """A gRPC server that takes spans, and forgets them."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_collect, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        ours.send(None)
        process.join(10)


def _collect(connection: Connection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
        TraceServiceServicer,
        add_TraceServiceServicer_to_server,
    )

    class Sink(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(Sink(), server)  # type: ignore[no-untyped-call]
    connection.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    connection.recv()
    server.stop(None).wait()
