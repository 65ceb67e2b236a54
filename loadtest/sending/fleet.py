"""Sender processes. They start once, take the prepared bodies once, and then send one `Load` after another.

The process that shows progress and writes reports never sends, so neither can delay a request.
"""

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self

from loadtest.errors import LoadtestError
from loadtest.sending.records import Records, join
from loadtest.sending.sender import Load, Sender, Tally
from loadtest.traffic.bodies import Wire

# Called with the counts so far of all senders, and the latencies that came in since the last call.
OnProgress = Callable[[Tally], None]
_TELL_EVERY_S = 0.25
_LEAD_S = 0.05
_STOP = "stop"
_QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows of a run. `interrupted_at_s` is when Ctrl-C ended it, if it did."""

    records: Records
    interrupted_at_s: float | None


class Fleet:
    """`senders` processes that share a run. Use as a context manager."""

    def __init__(self, targets: Sequence[tuple[str, Sequence[Wire]]], *, senders: int) -> None:
        # Senders fork from a process that has only this module loaded, so they inherit no thread, lock or picture.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        pipes = [context.Pipe() for _ in range(senders)]
        self._ends = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(theirs, list(targets)), daemon=True) for _, theirs in pipes
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()
        for end in self._ends:
            self._receive(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end, process in zip(self._ends, self._processes, strict=True):
            if process.is_alive():
                end.send(_QUIT)
            process.join(timeout=2)
            if process.is_alive():
                process.kill()
                process.join()
            end.close()

    def run(self, load: Load, *, target: int = 0, on_progress: OnProgress = lambda tally: None) -> Outcome:
        """Sends a load, starting now. Ctrl-C ends it early; the outcome holds what was measured until then."""
        start_at_s = time.monotonic() + _LEAD_S
        for number, end in enumerate(self._ends):
            end.send((target, _share(replace(load, start_at_s=start_at_s), number, len(self._ends))))
        tallies = [Tally() for _ in self._ends]
        parts: dict[int, Records] = {}
        interrupted_at_s: float | None = None
        while len(parts) < len(self._ends):
            try:
                self._collect(tallies, parts)
                on_progress(_sum(tallies))
            except KeyboardInterrupt:
                if interrupted_at_s is not None:
                    raise
                interrupted_at_s = time.monotonic() - start_at_s
                for end in self._ends:
                    end.send(_STOP)
        return Outcome(join([parts[number] for number in sorted(parts)]), interrupted_at_s)

    def _collect(self, tallies: list[Tally], parts: dict[int, Records]) -> None:
        for tally in tallies:
            tally.latencies_ms = []
        for ready in wait(self._ends, timeout=_TELL_EVERY_S):
            number = self._ends.index(ready)  # type: ignore[arg-type]
            message = self._receive(self._ends[number])
            if isinstance(message, Tally):
                tallies[number] = message
            elif isinstance(message, Records):
                parts[number] = message

    @staticmethod
    def _receive(end: "Connection[object, object]") -> object:
        try:
            return end.recv()
        except (EOFError, ConnectionResetError) as error:
            raise LoadtestError("a sender process died") from error


def senders_for(rate: float, concurrency: int) -> int:
    """How many processes a load takes: one sends some hundreds of requests a second with time to spare."""
    wanted = max(rate / 500, concurrency / 128, 1)
    # Cores that this process may run on; not every system can tell.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(-(-int(wanted * 100) // 100), cores)


def _sum(tallies: Sequence[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.sent += tally.sent
        total.answered += tally.answered
        total.errors += tally.errors
        total.unsent += tally.unsent
        total.in_flight += tally.in_flight
        total.latencies_ms += tally.latencies_ms
    return total


def _share(load: Load, number: int, senders: int) -> Load:
    """Every `senders`-th request of a load, and its part of the requests in flight."""
    return replace(
        load,
        due_s=None if load.due_s is None else load.due_s[number::senders],
        templates=load.templates[number::senders],
        requests=load.requests[number::senders],
        concurrency=load.concurrency // senders + (number < load.concurrency % senders),
        max_in_flight=max(1, load.max_in_flight // senders),
    )


def _serve(end: "Connection[object, object]", targets: Sequence[tuple[str, Sequence[Wire]]]) -> None:
    """A sender process. It ignores Ctrl-C, and ends when the parent says so or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _raise_file_limit()
    # The bodies live as long as the process. Garbage collection during a run must not walk them.
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    end.send("ready")
    while True:
        try:
            message = end.recv()
        except (EOFError, OSError):
            return
        if message == _QUIT:
            return
        if isinstance(message, tuple):
            place, load = message
            base_url, wires = targets[place]
            end.send(asyncio.run(_run(end, base_url, wires, load)))


async def _run(end: "Connection[object, object]", base_url: str, wires: Sequence[Wire], load: Load) -> Records:
    sender = Sender(base_url, wires, load)
    loop = asyncio.get_running_loop()

    def on_message() -> None:
        try:
            end.recv()
        except (EOFError, OSError):
            os._exit(1)
        sender.stop()

    loop.add_reader(end.fileno(), on_message)
    telling = asyncio.create_task(_tell(end, sender))
    try:
        return await sender.run()
    finally:
        telling.cancel()
        loop.remove_reader(end.fileno())


async def _tell(end: "Connection[object, object]", sender: Sender) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        end.send(sender.tally)
        sender.tally.latencies_ms = []


def _raise_file_limit() -> None:
    """Allows as many open files, and so connections, as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
