"""Worker processes as their parent holds them: started, called, listened to, ended, and kept in a pool.

Calls block the calling thread, and leave the interpreter's lock to the others. Knows nothing of what a reply means.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, LifoQueue

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.child_process import module_command
from model.images.worker import LENGTHS, Call, Patches, Reply, frame
from model.threads import ThreadPool

# A process that says nothing for this long although it has processor time left is taken for hung.
_SILENCE_S = 120.0
# One that somebody has stopped, which will say nothing either, is given up after so many looks at it.
_LOOK_S, _STOPPED_LOOKS = 1.0, 3
_LAST_BREATH_S = 1.0
_MAX_MESSAGE_BYTES = 1024**2

# OpenBLAS, which NumPy loads, reserves memory for each core. The allocator gives memory back only when the worker asks.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1024**4)}

_log = logging.getLogger(__name__)


class WorkerLost(Exception):
    """The process has ended. status: its exit status, or the negative number of a signal. hung: it said nothing."""

    def __init__(self, status: int, *, hung: bool) -> None:
        super().__init__(f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}")
        self.status, self.hung = status, hung


class WorkerPool:
    """At most `size` processes, those used last before others. Threads wait for a free one."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._closed = False
        # A process ends with the thread that starts it, and callers' threads may come and go.
        self._starter = ThreadPool(1, "starter")
        self._running: set[Worker] = set()
        self._free: LifoQueue[Worker | None] = LifoQueue()
        for _ in range(size):
            self._free.put(None)

    @contextmanager
    def worker(self) -> Iterator["Worker"]:
        """A process that nobody else calls meanwhile. Raises `OSError` if none can be started."""
        child = self._free.get()
        try:
            if child is None or not child.is_alive():
                if child is not None:
                    _log.warning(
                        "an idle process that decodes images ended with %s; another takes its place", child.end
                    )
                self._forget(child)
                child = self._started()
            yield child
        finally:
            if child is not None and child.retires:
                self._forget(child)
                child = None
            self._free.put(child)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        self._starter.shutdown(wait=False)
        for child in running:
            child.kill()
        # Idle ones have no thread that would close them. Threads that wait for one find none.
        idle = []
        with suppress(Empty):
            while True:
                idle.append(self._free.get_nowait())
        for each in idle:
            self._forget(each)
            self._free.put(None)

    def _started(self) -> "Worker":
        with self._lock:
            if self._closed:
                raise ChildProcessError("no image is decoded any more")
            child = self._starter.submit(Worker).result()
            self._running.add(child)
        try:
            child.wait_until_ready()
        except OSError:
            self._forget(child)
            raise
        return child

    def _forget(self, child: "Worker | None") -> None:
        if child is not None:
            child.close()
            with self._lock:
                self._running.discard(child)


class Worker:
    """A running process. Ends with the thread that made it, at the latest."""

    def __init__(self) -> None:
        """Raises `OSError` if the system has no room for a process."""
        self.retires = False
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_SILENCE_S)
        self._said = select.poll()
        self._said.register(self._socket, select.POLLIN)
        command = [*module_command("model.images.worker"), str(os.getpid())]
        environment = os.environ | _ENVIRONMENT
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment, start_new_session=True
                )
            except OSError:
                self._socket.close()
                raise

    def wait_until_ready(self) -> None:
        """Raises `OSError` if the process ends before it takes calls."""
        try:
            self._receive(np.empty(0, np.uint8))
        except WorkerLost as lost:
            raise ChildProcessError(f"the process that decodes images ended with {lost} at its start") from None

    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def end(self) -> WorkerLost:
        """How it has ended."""
        return WorkerLost(self._process.returncode, hung=False)

    def call(self, call: Call, data: bytes, rows: NDArray[np.uint8]) -> Reply:
        """Fills `rows` if the reply is `Patches`. Raises `WorkerLost`, also for a process that is silent or hostile."""
        # Until the reply is read. What a call that is interrupted leaves unread is no reply to the next one.
        self.retires = True
        try:
            self._socket.sendall(frame(call, len(data)))
            self._socket.sendall(data)
        except OSError:
            raise self._lost() from None
        return self._receive(rows)

    def kill(self) -> None:
        """Returns once the system has removed the process. A thread that waits for its reply gets `WorkerLost`."""
        self.retires = True
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._socket.close()

    def _receive(self, rows: NDArray[np.uint8]) -> Reply:
        try:
            head_bytes, rows_bytes = LENGTHS.unpack(self._exactly(bytearray(LENGTHS.size)))
            if head_bytes > _MAX_MESSAGE_BYTES or rows_bytes not in (0, rows.nbytes):
                raise OSError
            reply: Reply = msgspec.msgpack.decode(self._exactly(bytearray(head_bytes)), type=Reply)
            if isinstance(reply, Patches):
                self._exactly(rows.data.cast("B"))
        except (OSError, msgspec.MsgspecError):
            raise self._lost() from None
        self.retires = reply.retires
        return reply

    def _exactly(self, buffer: "bytearray | memoryview") -> "bytearray | memoryview":
        """Fills the buffer. Raises `OSError` if the process says less, or nothing for too long."""
        view = memoryview(buffer)
        while view:
            self._await_more()
            size = self._socket.recv_into(view)
            if not size:
                raise OSError
            view = view[size:]
        return buffer

    def _await_more(self) -> None:
        """Until the process says something. Raises `OSError` if it is silent for too long, or stays stopped."""
        end_s, stopped_looks = time.monotonic() + _SILENCE_S, 0
        while not self._said.poll(1000 * min(_LOOK_S, _SILENCE_S)):
            stopped_looks = stopped_looks + 1 if _is_stopped(self._process.pid) else 0
            if time.monotonic() >= end_s or stopped_looks == _STOPPED_LOOKS:
                raise OSError

    def _lost(self) -> WorkerLost:
        """What became of a process that gives no reply."""
        # Its end of the socket is closed a moment before it has ended.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_BREATH_S)
        hung = self._process.returncode is None
        self.kill()
        return WorkerLost(self._process.returncode, hung=hung)


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it. False where the system does not tell."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "T"
    return False
