"""A process of the server, as its parent holds it: started, told, listened to, ended, and when to start it again."""

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from service.processes.channel import LENGTH_BYTES, framed
from service.processes.messages import MalformedMessage, Reader, Stop

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
# Silence is waited for in slices, so that a pause of the parent itself counts as one slice at most.
_SLICE_S = 1.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Child(Generic[T]):
    """A running process. Made by `spawn`, on the main thread: the kernel kills a child with the thread that made it.

    hung: it was killed because it was silent. paused_s: for how long this process did not run while it listened.
    """

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        reader: Reader[T],
    ) -> None:
        self.name, self._process, self._reader = name, process, reader
        self._incoming, self._outgoing = streams
        self.hung = False
        self.paused_s = 0.0
        # The length of a message whose bytes are still to be read: `hear` may be cancelled between the two.
        self._size_bytes: int | None = None

    @classmethod
    async def spawn(
        cls, name: str, command: Sequence[str], reader: Reader[T], descriptors: Sequence[int] = ()
    ) -> "Child[T]":
        """Runs `command` with one more argument, the number of its channel. reader: of what it will say.

        The process waits for its first message: `tell` it. Raises `OSError` if the system has no room for a process."""
        ours, theirs = socket.socketpair()
        with theirs:
            streams = await asyncio.open_connection(sock=ours)
            try:
                # The last await: who is cancelled while a process starts leaves none behind.
                # A session of its own: a terminal's Ctrl-C goes to the parent alone, which decides what to end.
                process = await asyncio.create_subprocess_exec(
                    *command, str(theirs.fileno()), pass_fds=(theirs.fileno(), *descriptors), start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            except BaseException:
                streams[1].close()
                raise
        return cls(name, process, streams, reader)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def hear(self) -> T | None:
        """The next message; None once the process has ended and all its messages are read. A malformed one kills it."""
        try:
            if self._size_bytes is None:
                self._size_bytes = int.from_bytes(await self._incoming.readexactly(LENGTH_BYTES))
            data, self._size_bytes = await self._incoming.readexactly(self._size_bytes), None
            return self._reader(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except MalformedMessage as error:
            _log.error("%s (pid %d) sent a %s", self.name, self.pid, error)
            self.kill()
            return None

    async def hear_within(self, seconds: float) -> T | None:
        """The next message. If none comes in time the process is killed, and what it had sent by then is still read."""
        hearing = asyncio.create_task(self.hear(), name=f"hear {self.name}")
        clock_s = asyncio.get_running_loop().time
        try:
            while not hearing.done() and seconds > -_SLICE_S:
                began_s = clock_s()
                await asyncio.wait([hearing], timeout=_SLICE_S)
                self.paused_s += max(0.0, clock_s() - began_s - _SLICE_S)
                seconds -= _SLICE_S
            if not hearing.done():
                self.hung = True
                self.kill()
            return await hearing
        finally:
            hearing.cancel()

    def tell(self, message: msgspec.Struct) -> None:
        """Does nothing if the process has ended."""
        if not self._outgoing.is_closing():
            self._outgoing.write(framed(message))

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def ended(self) -> str:
        """Waits for the end, and returns how it came."""
        status = await self._process.wait()
        self._outgoing.close()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    async def end(self, *, within_s: float) -> bool:
        """Tells the process to stop, and kills it if it is too late. True if it exited by itself with status 0."""
        self.tell(Stop())
        try:
            async with asyncio.timeout(within_s):
                while await self.hear() is not None:
                    pass
                return await self.ended() == "status 0"
        except TimeoutError:
            self.kill()
            await self.ended()
            return False


class Restarts:
    """When to start a process again: at once after a useful life, otherwise later and later. Has no clock."""

    def __init__(self) -> None:
        self._useless_lives = 0

    def delay_s(self, *, useful: bool) -> float:
        """Seconds to wait before the next start. useful: of the life that has just ended."""
        if useful:
            self._useless_lives = 0
            return 0.0
        delay_s: float = min(_FIRST_DELAY_S * 2**self._useless_lives, _LONGEST_DELAY_S)
        self._useless_lives += 1
        return delay_s
