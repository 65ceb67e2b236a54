"""A cheap sender: a process that keeps a number of prepared requests in flight.

Raw HTTP/1.1 over keep-alive connections, one request at a time on each. It reads only the status, the length and
`Server-Timing` of an answer.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import uvloop

from loadtest.bench.clients.steady import Sample
from loadtest.bench.servers.aside import Aside
from loadtest.bench.servers.processes import cpu_s
from model.child_process import process_tree

_SAMPLE_EVERY_S = 0.05
# How long requests in flight at the end may still take.
_GRACE_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """requests: whole ones, sent in turn. pid: the server's process, whose processor time is recorded. warm_s: time
    before recording starts. pause_s: between an answer and the next request of a connection."""

    port: int
    pid: int
    requests: Sequence[bytes]
    connections: int
    seconds: float
    warm_s: float
    pause_s: float = 0.0


@dataclass(slots=True)
class Answers:
    """The answers in order. Times are of `time.perf_counter` in the sender. failed: answers other than 200."""

    answered_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    timings: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    failed: int = 0


class ClosedLoop(Aside):
    """The sending process. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__(_serve)

    def send(self, load: Load) -> Answers:
        """Raises `RuntimeError` if the server closed a connection or did not answer in time."""
        came = self.ask(load)
        if isinstance(came, str):
            raise RuntimeError(came)
        assert isinstance(came, Answers)
        return came


def _serve(end: "Connection[object, object]") -> None:
    while True:
        load = end.recv()
        assert isinstance(load, Load)
        try:
            end.send(uvloop.run(_run(load)))
        except (OSError, RuntimeError) as error:
            end.send(f"{type(error).__name__}: {error}")


async def _run(load: Load) -> Answers:
    answers = Answers()
    loop = asyncio.get_running_loop()
    turns = itertools.cycle(load.requests)
    lines = []
    for _ in range(load.connections):
        _, line = await loop.create_connection(lambda: _Line(turns, answers, load.pause_s), "127.0.0.1", load.port)
        lines.append(line)
    await asyncio.sleep(load.warm_s)
    pids = process_tree(load.pid)
    end_s = time.perf_counter() + load.seconds
    while (now_s := time.perf_counter()) < end_s:
        answers.samples.append(Sample(now_s, cpu_s(pids), time.process_time()))
        await asyncio.sleep(_SAMPLE_EVERY_S)
    async with asyncio.timeout(_GRACE_S):
        await asyncio.gather(*(line.stop() for line in lines))
    return answers


class _Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, turns: "itertools.cycle[bytes]", answers: Answers, pause_s: float) -> None:
        self._turns, self._answers, self._pause_s = turns, answers, pause_s
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._stopping = self._busy = False
        self._head = b""
        self._missing: int | None = None

    async def stop(self) -> None:
        """Waits for the answer to come, and closes."""
        self._stopping = True
        if not self._busy:
            self._transport.close()
        await self._closed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closed.done():
            return
        if self._stopping:
            self._closed.set_result(None)
        else:
            self._closed.set_exception(ConnectionError("the server closed a connection"))

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._head += data
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            length = _LENGTH.search(head)
            self._head, self._missing = head, int(length[1]) if length else 0
            data = body
        self._missing -= len(data)
        if self._missing <= 0:
            self._note()

    def _send(self) -> None:
        if self._stopping or self._transport.is_closing():
            return
        self._busy, self._head, self._missing = True, b"", None
        self._sent_s = time.perf_counter()
        self._transport.write(next(self._turns))

    def _note(self) -> None:
        now_s = time.perf_counter()
        answers = self._answers
        if self._head[9:12] == b"200":
            answers.answered_s.append(now_s)
            answers.latencies_s.append(now_s - self._sent_s)
            timing = _TIMING.search(self._head)
            answers.timings.append(timing[1].decode() if timing else "")
        else:
            answers.failed += 1
        self._busy = False
        if self._stopping:
            self._transport.close()
        elif self._pause_s:
            self._loop.call_later(self._pause_s, self._send)
        else:
            self._send()
