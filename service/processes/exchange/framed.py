"""Messages over a connected local socket, on one event loop: what is sent in one turn of the loop leaves in one call.

A frame is two lengths, a head, and bytes behind it. Knows no message.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from itertools import islice

Frames = list[bytes | memoryview]
"""A head, and the arrays behind it, each as its own memory."""

Heard = Callable[[list[tuple[memoryview, memoryview]]], None]
"""Takes the heads that came together, each with the bytes behind it."""

LENGTHS = struct.Struct("=II")
_READ_BYTES = 256 * 1024
# The system takes no more buffers in one call.
_MOST_BUFFERS = 1024


class FramedSocket:
    """One end. Never waits: what the system does not take yet is kept, and whoever sends bounds it."""

    def __init__(
        self,
        end: socket.socket,
        heard: Heard,
        *,
        on_end: Callable[[], None] = lambda: None,
        max_frame_bytes: int | None = None,
        read: bytes = b"",
    ) -> None:
        """on_end: called once the other end is gone, but not by `close`. max_frame_bytes: a longer frame is an end.
        read: what came before."""
        end.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._socket, self._heard, self._on_end, self._max_frame_bytes = end, heard, on_end, max_frame_bytes
        self._came, self._came_bytes = [read] if read else [], len(read)
        self._needed_bytes = LENGTHS.size
        self._going: deque[memoryview] = deque()
        self._flush_due = self._blocked = False
        self._open = True
        self._loop.add_reader(end.fileno(), self._read)
        if read:
            self._loop.call_soon(self._take_whole)

    def send(self, frames: Frames) -> None:
        """Copies nothing but the head: arrays must stay as they are."""
        if not self._open:
            return
        head, *arrays = frames
        self._going.append(memoryview(framed_head(head, sum(map(len, arrays)))))
        self._going.extend(memoryview(array) for array in arrays if len(array))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._going.clear()
        self._came = []
        # They may hold what holds this socket, and memory of another process with it.
        self._heard, self._on_end = _ignore, _ignore

    def _flush(self) -> None:
        self._flush_due = False
        if self._open and not self._blocked:
            self._write()

    def _write(self) -> None:
        try:
            while self._going:
                self._drop(self._socket.sendmsg(list(islice(self._going, _MOST_BUFFERS))))
        except BlockingIOError:
            if not self._blocked:
                self._blocked = True
                self._loop.add_writer(self._socket.fileno(), self._write)
            return
        except OSError:
            self._end()
            return
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._socket.fileno())

    def _drop(self, sent_bytes: int) -> None:
        while sent_bytes:
            first = self._going.popleft()
            if len(first) > sent_bytes:
                self._going.appendleft(first[sent_bytes:])
                return
            sent_bytes -= len(first)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._came.append(data)
        self._came_bytes += len(data)
        self._take_whole()

    def _take_whole(self) -> None:
        if self._open and self._came_bytes >= self._needed_bytes:
            self._take(memoryview(b"".join(self._came)))

    def _take(self, data: memoryview) -> None:
        """Hands on what is whole, and keeps the rest."""
        frames = []
        while True:
            head_bytes, behind_bytes = LENGTHS.unpack_from(data) if len(data) >= LENGTHS.size else (0, 0)
            whole_bytes = LENGTHS.size + head_bytes + behind_bytes
            if self._max_frame_bytes and whole_bytes > self._max_frame_bytes:
                self._end()
                return
            if len(data) < whole_bytes:
                break
            head_end = LENGTHS.size + head_bytes
            frames.append((data[LENGTHS.size : head_end], data[head_end:whole_bytes]))
            data = data[whole_bytes:]
        self._came, self._came_bytes = [bytes(data)] if data else [], len(data)
        self._needed_bytes = whole_bytes
        if frames:
            self._heard(frames)

    def _end(self) -> None:
        on_end = self._on_end
        self.close()
        on_end()


def _ignore(*_: object) -> None: ...


def framed_head(head: bytes | memoryview, behind_bytes: int = 0) -> bytes:
    """The first bytes of a frame."""
    return LENGTHS.pack(len(head), behind_bytes) + bytes(head)
