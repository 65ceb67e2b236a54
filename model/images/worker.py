"""A process that reads headers and decodes images for its parent, under limits on its memory and processor time.

`model.images.confined` starts it. Calls and replies go over one socket, the process's standard input. Each is sent as
two lengths, a message and its payload: an image file after a call, patch rows after a reply. The process ends with its
parent.
"""

import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from model.child_process import die_with
from model.errors import BudgetError, ImageError
from model.images.decode import DecodeMode, ImageHeader, decode_patches, read_header
from model.memory import give_memory_back
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan

LENGTHS: Final = struct.Struct(">IQ")

# The allocator keeps the memory of one picture for the next: new memory makes a JPEG take half as long again. It is
# given back after so long without a call, or if it is more than this. A process that still keeps more is replaced.
_IDLE_S = 1.0
_KEPT_BYTES = 1024**3


class Fit(msgspec.Struct):
    """How the pixels are wanted."""

    plan: ImagePlan
    geometry: Geometry
    decode: DecodeMode


class Call(msgspec.Struct):
    """memory_bytes: how much more than at its start the process may take. cpu_s: after which the system kills it.

    fit: None if only the header is wanted."""

    max_decode_pixels: int
    memory_bytes: int
    cpu_s: float
    fit: Fit | None = None


class _Reply(msgspec.Struct, tag=True, kw_only=True):
    """retires: the process has grown and takes no further call."""

    retires: bool = False


class Ready(_Reply):
    """The first reply, which no call precedes."""


class Header(_Reply):
    header: ImageHeader


class Patches(_Reply):
    """The rows follow. turned: they are those of the turned plan."""

    turned: bool


class Refused(_Reply):
    """kind: the name of an `ImageError` or of `BudgetError`, which has a `param`."""

    kind: str
    message: str
    param: str = ""


class OutOfMemory(_Reply):
    pass


class Fault(_Reply):
    """A mistake of ours. trace: for the log."""

    trace: str


Reply = Ready | Header | Patches | Refused | OutOfMemory | Fault


def frame(message: msgspec.Struct, size_bytes: int = 0) -> bytes:
    """A message as it is sent before `size_bytes` of image or rows."""
    head = msgspec.msgpack.encode(message)
    return LENGTHS.pack(len(head), size_bytes) + head


def main(parent_pid: str) -> None:
    """Answers calls until the parent is gone."""
    die_with(int(parent_pid))
    # A crash leaves no core file. If memory runs short, the system is to end this process rather than the server.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    at_rest_bytes = _size_bytes()
    with socket.socket(fileno=os.dup(0)) as parent, parent.makefile("rb") as calls:
        parent.sendall(frame(Ready()))
        # Libraries write errors to standard error, past every log. Standard output is the null device.
        os.dup2(1, 2)
        while (call := _next_call(calls)) is not None:
            _answer(parent, *call, at_rest_bytes)
            if not select.select([parent], [], [], _IDLE_S)[0]:
                give_memory_back()


def _next_call(calls: BinaryIO) -> tuple[Call, bytes] | None:
    """None once the parent is gone."""
    lengths = calls.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head_bytes, data_bytes = LENGTHS.unpack(lengths)
    call = msgspec.msgpack.decode(calls.read(head_bytes), type=Call)
    return call, calls.read(data_bytes)


def _answer(parent: socket.socket, call: Call, data: bytes, at_rest_bytes: int | None) -> None:
    rows = memoryview(b"")
    if at_rest_bytes is not None:
        _limit_memory(at_rest_bytes + call.memory_bytes)
    signal.setitimer(signal.ITIMER_PROF, call.cpu_s)
    reply: Reply
    try:
        if call.fit is None:
            reply = Header(read_header(data, max_decode_pixels=call.max_decode_pixels))
        else:
            fit = call.fit
            plan, patches = decode_patches(
                data, fit.plan, geometry=fit.geometry, max_decode_pixels=call.max_decode_pixels, decode=fit.decode
            )
            reply, rows = Patches(plan != fit.plan), patches.data.cast("B")
    except ImageError as error:
        reply = Refused(type(error).__name__, str(error))
    except BudgetError as error:
        reply = Refused(type(error).__name__, str(error), error.param)
    except MemoryError:
        reply = OutOfMemory()
    except Exception:
        reply = Fault(traceback.format_exc())
    signal.setitimer(signal.ITIMER_PROF, 0)
    del data
    if at_rest_bytes is not None:
        _limit_memory(None)
        reply.retires = _keeps_too_much(at_rest_bytes)
    parent.sendall(frame(reply, len(rows)))
    parent.sendall(rows)


def _limit_memory(size_bytes: int | None) -> None:
    """None: to what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if size_bytes is None or hard != resource.RLIM_INFINITY and hard < size_bytes:
        size_bytes = hard
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, hard))


def _keeps_too_much(at_rest_bytes: int) -> bool:
    most_bytes = at_rest_bytes + _KEPT_BYTES
    if (_size_bytes() or 0) > most_bytes:
        give_memory_back()
    return (_size_bytes() or 0) > most_bytes


def _size_bytes() -> int | None:
    """The address space that this process takes, which is what the system limits; None if only the system knows."""
    if sys.platform != "linux":
        return None
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    return int(pages) * resource.getpagesize()
