"""A process of the server, as its parent holds it: its channel, its end, and how it came to it."""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

import orjson

from service.processes.channel import encode

# A line of a channel: the names of the images of one pack.
_LONGEST_LINE_BYTES = 16 * 1024**2


class Child:
    """Made by `spawn`, from the main thread: the kernel ends a child with the thread that made it."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.name, self._process, self._reader, self._writer = name, process, reader, writer

    @classmethod
    async def spawn(cls, name: str, command: Sequence[str], descriptors: Sequence[int] = ()) -> Self:
        """Runs `command` with one more argument, the number of its channel, and waits for its first line: `tell` it.

        Raises `OSError` where the system has no room for one more process."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # A session of its own: Ctrl-C in a terminal is for the parent, which decides what becomes of it.
                process = await asyncio.create_subprocess_exec(
                    *command, str(theirs.fileno()), pass_fds=(theirs.fileno(), *descriptors), start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE_BYTES)
        return cls(name, process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def hear(self) -> dict[str, Any] | None:
        """The next line it has sent; None when it has ended, after all that it had said."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = orjson.loads(line)
        return message

    def tell(self, message: Mapping[str, Any]) -> None:
        """Says nothing to one that has ended."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def ended(self) -> str:
        """Waits for the end, and says how it came."""
        status = await self._process.wait()
        self._writer.close()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    async def end(self, *, within_s: float) -> bool:
        """Tells it to stop, and kills it if it has not by then. True where it went by itself, with status 0."""
        self.tell({"stop": True})
        try:
            async with asyncio.timeout(within_s):
                while await self.hear() is not None:
                    pass
                return await self.ended() == "status 0"
        except TimeoutError:
            self.kill()
            await self.ended()
            return False


def module_command(module: str) -> list[str]:
    """Runs `main` of a module, found where this process finds it: with `-m` the current folder would go first."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main(sys.argv[1]))"
    return [sys.executable, "-c", program]
