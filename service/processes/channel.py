"""A pair of sockets between the parent and one child, for messages about the processes themselves.

The parent's event loop reads one end, a thread of the child the other. A message is its length, then its bytes.
"""

import logging
import socket
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from model import threads
from service import logs
from service.processes.messages import MalformedMessage, Reader, encode

LENGTH_BYTES = 4

_PR_SET_PDEATHSIG = 1

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Channel(Generic[T]):
    """The child's end. The process exits when the parent's end is closed."""

    def __init__(self, end: socket.socket, reader: Reader[T]) -> None:
        self._socket, self._reader = end, reader
        self._file = end.makefile("rb")
        self._sending = threading.Lock()

    @classmethod
    def inherited(cls, descriptor: str, reader: Reader[T]) -> "Channel[T]":
        """descriptor: the number of the end that the parent left open."""
        end = socket.socket(fileno=int(descriptor))
        # A process that this one started would keep the channel open after this one's end.
        end.set_inheritable(False)
        return cls(end, reader)

    def send(self, message: msgspec.Struct) -> None:
        """From any thread. Returns once the system has the message, so that it outlives this process."""
        try:
            with self._sending:
                self._socket.sendall(framed(message))
        except OSError:
            logs.leave(1)

    def receive(self) -> T:
        """Waits for the next message. Raises `MalformedMessage`."""
        return self._reader(self._read(int.from_bytes(self._read(LENGTH_BYTES))))

    def _read(self, size_bytes: int) -> bytes:
        try:
            data = self._file.read(size_bytes)
        except OSError:
            # The parent is gone, and had not read all.
            logs.leave(1)
        if len(data) < size_bytes:
            logs.leave(1)
        return data

    def listen(self, heard: Callable[[T], object]) -> None:
        """Calls `heard` with every message from now on, in a thread of its own."""

        def main() -> None:
            # Deaf to the parent, the process could not be stopped.
            try:
                while True:
                    heard(self.receive())
            except MalformedMessage as error:
                _log.critical("the parent sent a %s", error)
            except BaseException:
                _log.critical("the thread channel has failed", exc_info=True)
            logs.leave(1)

        threads.keep(main, "channel")


def framed(message: msgspec.Struct) -> bytes:
    data = encode(message)
    return len(data).to_bytes(LENGTH_BYTES) + data
