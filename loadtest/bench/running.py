"""Servers of any make, started and stopped by the bench, and what their processes take of the machine, by `/proc`."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY_S = 0.005
_STOP_S = 15.0


class DidNotStart(Exception):
    """The server ended, or was not ready in time; with the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. started_s: from the start of its process to its first good answer."""

    port: int
    pid: int
    started_s: float


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    ready_path: str,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """The command with all its children, from its first 200 at `ready_path` on. Raises `DidNotStart`."""
    with tempfile.TemporaryFile("w+") as log:
        began_s = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}, start_new_session=True
        )
        try:
            while not _answers(port, ready_path):
                if process.poll() is not None or time.perf_counter() - began_s > timeout_s:
                    log.seek(0)
                    raise DidNotStart("".join(log.readlines()[-5:]).strip() or "not ready in time")
                time.sleep(_LOOK_EVERY_S)
            yield Running(port, process.pid, time.perf_counter() - began_s)
        finally:
            _stop(process)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """It is the first of a session of its own: what is left of that is killed."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process_tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, unread = [], [pid]
    while unread:
        found.append(unread.pop())
        with suppress(OSError):
            for task in os.listdir(f"/proc/{found[-1]}/task"):
                unread += map(int, Path(f"/proc/{found[-1]}/task/{task}/children").read_text(encoding="ascii").split())
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of these processes so far; of one that has ended, nothing."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def threads_cpu_s() -> dict[int, float]:
    """Processor time of each thread of this process, by its system id."""
    spent = {}
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):
            spent[int(thread)] = int(Path(f"/proc/self/task/{thread}/schedstat").read_text("ascii").split()[0]) / 1e9
    return spent
