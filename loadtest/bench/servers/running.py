"""Starts, pauses and stops servers of any make."""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

from model.child_process import process_tree

_LOOK_EVERY_S = 0.005
_STOP_S = 15.0
_START_TIMEOUT_S = 180.0
_PR_SET_PDEATHSIG = 1


class DidNotStart(Exception):
    """The server ended, or was not ready in time. The message is the end of its output."""


@dataclass(frozen=True, slots=True)
class Running:
    """A ready server. started_s: from the start of its process to its first 200."""

    port: int
    process: "subprocess.Popen[bytes]"
    started_s: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, within_s: float) -> int | None:
        """Its exit status; None if it has not ended by then."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(within_s)
        return None


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    ready_path: str,
    timeout_s: float = _START_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
    log: int | None = None,
) -> Iterator[Running]:
    """Runs a server, with all its children, and yields once `ready_path` answers 200. Raises `DidNotStart`.

    log: the descriptor that it writes to instead of a file that is thrown away.

    If the measuring process is killed, the server gets SIGTERM (on Linux).
    """
    with tempfile.TemporaryFile("w+") as kept:
        began_s = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=log or kept, stderr=log or kept, env={**os.environ, **(environment or {})},
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        try:
            while not _answers(port, ready_path):
                if process.poll() is not None or time.perf_counter() - began_s > timeout_s:
                    kept.seek(0)
                    raise DidNotStart("".join(kept.readlines()[-5:]).strip() or "not ready in time")
                time.sleep(_LOOK_EVERY_S)
            yield Running(port, process, time.perf_counter() - began_s)
        finally:
            _stop(process)


def end_with_parent() -> None:
    """For a child between its fork and its program: it gets SIGTERM when its parent ends, however that ends.

    It heeds SIGHUP, though `nohup` has this process ignore it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def paused(servers: Iterable[Running]) -> Iterator[None]:
    """Stops all their processes meanwhile: an idle server that polls would take time from the measured one."""
    pids = [pid for server in servers for pid in process_tree(server.pid)]
    try:
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def serving(*options: str) -> AbstractContextManager[Running]:
    """Packlight on a free port, with settings as options of `packlight serve`."""
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), *options]
    return running(command, port=port, ready_path="/readyz")


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
    """Ends the process, and kills what is left of its session."""
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
