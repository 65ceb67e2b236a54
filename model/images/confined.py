"""A few processes, kept warm, in which images are decoded that a thread should not decode.

A process that crashes, hangs or takes more than its share of processor time ends alone: its picture is refused, and the
next picture starts another process. Calls block the calling thread, and leave the interpreter's lock to the others.
"""

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue

import msgspec
import numpy as np
from numpy.typing import NDArray

from model import errors
from model.child_process import module_command
from model.errors import BudgetError, ImageTooLarge, ModelError, UndecodableImage
from model.images import container, worker
from model.images.decode import DecodeMode, ImageHeader
from model.images.worker import LENGTHS, Call, Fit
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, turn_plan

# Memory that a process may take beyond what it takes at rest: for libraries that it loads when it needs them, for each
# byte of the file, and for each pixel of `max_decode_pixels`. A JPEG 2000 of four components of 16 bits takes 28 bytes
# a pixel, and 33 where other pictures have left gaps.
_LIBRARY_BYTES = 256 * 1024**2
_BYTES_A_BYTE = 3
_BYTES_A_PIXEL = 40

# Processor time that a call may take: to begin with, for each megabyte of the file and for each megapixel.
_CPU_S = 2.0
_CPU_S_A_MEGABYTE = 0.2
_CPU_S_A_MEGAPIXEL = 0.5
# A process that says nothing for this long although it has processor time left is taken for hung.
_SILENCE_S = 120.0
_LAST_BREATH_S = 1.0

_MAX_MESSAGE_BYTES = 1024**2

# OpenBLAS, which NumPy loads, reserves memory for each core. The allocator gives memory back only when the worker asks.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1024**4)}

_REFUSALS = {error.__name__: error for error in (errors.UnsupportedFormat, ImageTooLarge, UndecodableImage)}

_log = logging.getLogger(__name__)


class WorkerLost(Exception):
    """The process has ended. status: its exit status, or the negative number of a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}")
        self.status = status


class ConfinedDecoder:
    """Reads headers in one process, and decodes pixels in at most `processes` more. Each starts when it is needed.

    Every method but `close` raises `OSError` if no process can be started.
    """

    def __init__(self, *, processes: int, max_decode_pixels: int) -> None:
        self._max_decode_pixels = max_decode_pixels
        # A header must not wait until another image is decoded.
        self._headers, self._pixels = _Pool(1), _Pool(processes)

    def read_header(self, data: bytes) -> ImageHeader:
        """As `decode.read_header`."""
        with self._headers.worker() as child:
            reply, _ = self._reply(child, data, None)
        assert isinstance(reply, worker.Header)
        return reply.header

    def decode_patches(
        self, data: bytes, plan: ImagePlan, *, geometry: Geometry, decode: DecodeMode
    ) -> tuple[ImagePlan, NDArray[np.uint8]]:
        """As `decode.decode_patches`."""
        with self._pixels.worker() as child:
            reply, rows = self._reply(child, data, Fit(plan, geometry, decode))
        assert isinstance(reply, worker.Patches)
        return turn_plan(plan, geometry=geometry) if reply.turned else plan, rows

    def close(self) -> None:
        """Ends all processes, and with them the calls under way."""
        self._headers.close()
        self._pixels.close()

    def _reply(self, child: "_Worker", data: bytes, fit: Fit | None) -> tuple[worker.Reply, NDArray[np.uint8]]:
        """The answer to one call. Raises `ImageError` if there is none."""
        format = container.sniff(data) or "file"
        pixels = fit.plan.size[0] * fit.plan.size[1] if fit else 0
        cpu_s = _CPU_S + _CPU_S_A_MEGABYTE * len(data) / 1e6 + _CPU_S_A_MEGAPIXEL * pixels / 1e6
        memory_bytes = _LIBRARY_BYTES + _BYTES_A_BYTE * len(data) + _BYTES_A_PIXEL * self._max_decode_pixels
        rows = np.empty((fit.plan.tokens, 3 * fit.geometry.patch_size**2) if fit else (0, 0), dtype=np.uint8)
        try:
            reply = child.call(Call(self._max_decode_pixels, memory_bytes, cpu_s, fit), data, rows)
        except WorkerLost as lost:
            _log.warning("the process that decoded a %s of %d bytes ended with %s", format, len(data), lost)
            if lost.status == -signal.SIGPROF:
                raise ImageTooLarge(f"decoding this {format} takes more than {cpu_s:.0f} s of processor time") from None
            raise UndecodableImage(f"this {format} cannot be decoded: the decoder crashed or hung") from None
        match reply:
            case worker.Refused(kind=kind, message=message, param=param):
                raise _refusal(kind, message, param)
            case worker.OutOfMemory():
                raise ImageTooLarge(
                    f"decoding this {format} takes more than {memory_bytes:,} bytes of memory, which is what "
                    f"max_decode_pixels={self._max_decode_pixels} allows"
                )
            case worker.Fault(trace=trace):
                _log.error("the decoder failed on a %s of %d bytes\n%s", format, len(data), trace)
                raise UndecodableImage(f"this {format} cannot be decoded: the decoder failed")
        return reply, rows


def _refusal(kind: str, message: str, param: str) -> ModelError:
    return BudgetError(message, param=param) if param else _REFUSALS[kind](message)


class _Pool:
    """At most `size` processes, those used last before others. Threads wait for a free one."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._closed = False
        # A process ends with the thread that starts it, and callers' threads may come and go.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        self._running: set[_Worker] = set()
        self._free: LifoQueue[_Worker | None] = LifoQueue()
        for _ in range(size):
            self._free.put(None)

    @contextmanager
    def worker(self) -> Iterator["_Worker"]:
        """A process that nobody else calls meanwhile. Raises `OSError` if none can be started."""
        child = self._free.get()
        try:
            if child is None or not child.is_alive():
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

    def _started(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise ChildProcessError("no image is decoded any more")
            child = self._starter.submit(_Worker).result()
            self._running.add(child)
        try:
            child.wait_until_ready()
        except OSError:
            self._forget(child)
            raise
        return child

    def _forget(self, child: "_Worker | None") -> None:
        if child is not None:
            child.close()
            with self._lock:
                self._running.discard(child)


class _Worker:
    """A running process. Ends with the thread that made it, at the latest."""

    def __init__(self) -> None:
        """Raises `OSError` if the system has no room for a process."""
        self.retires = False
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_SILENCE_S)
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

    def call(self, call: Call, data: bytes, rows: NDArray[np.uint8]) -> worker.Reply:
        """Fills `rows` if the reply is `Patches`. Raises `WorkerLost`, also for a process that is silent or hostile."""
        try:
            self._socket.sendall(worker.frame(call, len(data)))
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

    def _receive(self, rows: NDArray[np.uint8]) -> worker.Reply:
        try:
            head_bytes, rows_bytes = LENGTHS.unpack(self._exactly(bytearray(LENGTHS.size)))
            if head_bytes > _MAX_MESSAGE_BYTES or rows_bytes not in (0, rows.nbytes):
                raise OSError
            reply: worker.Reply = msgspec.msgpack.decode(self._exactly(bytearray(head_bytes)), type=worker.Reply)
            if isinstance(reply, worker.Patches):
                self._exactly(rows.data.cast("B"))
        except (OSError, msgspec.MsgspecError):
            raise self._lost() from None
        self.retires = reply.retires
        return reply

    def _exactly(self, buffer: "bytearray | memoryview") -> "bytearray | memoryview":
        """Fills the buffer. Raises `OSError` if the process says less, or nothing for too long."""
        view = memoryview(buffer)
        while view:
            size = self._socket.recv_into(view)
            if not size:
                raise OSError
            view = view[size:]
        return buffer

    def _lost(self) -> WorkerLost:
        """What became of a process that gives no reply."""
        # Its end of the socket is closed a moment before it has ended.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_BREATH_S)
        self.kill()
        return WorkerLost(self._process.returncode)
