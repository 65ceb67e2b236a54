"""What the processes of one server say to each other about themselves: lines of JSON over a pair of sockets.

The parent's end is read by its event loop, the child's by a thread. Nothing is ever unpickled; no image passes here.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson

_PR_SET_PDEATHSIG = 1


class Channel:
    """The child's end. Sending waits until the system has taken the line, so that it outlives the process."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._file = end.makefile("rb")
        self._sending = threading.Lock()

    @classmethod
    def inherited(cls, descriptor: str) -> "Channel":
        """The end that the parent left open under a number."""
        end = socket.socket(fileno=int(descriptor))
        # A process that this one started would keep the channel open after its end.
        end.set_inheritable(False)
        return cls(end)

    def send(self, message: Mapping[str, Any]) -> None:
        """From any thread. To a parent that is gone nothing is said."""
        try:
            with self._sending:
                self._socket.sendall(encode(message))
        except OSError:
            os._exit(1)

    def receive(self) -> dict[str, Any]:
        """The next line; without a parent the process has no reason to live."""
        line = self._file.readline()
        if not line:
            os._exit(1)
        message: dict[str, Any] = orjson.loads(line)
        return message

    def listen(self, heard: Callable[[dict[str, Any]], object]) -> None:
        """Calls `heard` with every line from now on, in a thread of its own."""

        def main() -> None:
            while True:
                heard(self.receive())

        threading.Thread(target=main, name="channel", daemon=True).start()


def encode(message: Mapping[str, Any]) -> bytes:
    """One line."""
    return orjson.dumps(message) + b"\n"


def die_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends, even if neither can do anything about it any more.

    A terminal's Ctrl-C and a service manager's SIGTERM reach every process of a group; here the parent alone decides.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
