"""The bytes of image files, and no more of them than there is room for."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

PARTING_S = 0.5
"""How long the end of a job waits for a thread that may hang in a file or a source. Others end at once."""


def size_of(path: Path) -> int | None:
    """The bytes of a file; None for a pipe, which does not say. 0 for what cannot be asked, which cannot be read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def read_file(path: Path, most_bytes: int) -> bytes:
    """All bytes of the file. Raises `OSError`, also for a file of more than `most_bytes`."""
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except ValueError:  # a name with a NUL
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, too_large(most_bytes))
    return data


def too_large(most_bytes: int) -> str:
    """Why a file is not read that would hold more than the job holds at once."""
    return f"the file holds more than {most_bytes:,} bytes; a larger --ahead-bytes reads it"


class Readers:
    """Threads that read. Nobody waits long for them: a pipe that nobody writes and a disk that is gone answer never."""

    def __init__(self, count: int) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name="read", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """work: raises nothing."""
        self._work.put(work)

    def close(self) -> None:
        """Nothing that waits is begun. Each thread ends as soon as what it reads lets it.

        Those that read nothing have ended afterwards: the interpreter cuts off threads at its exit, and may abort then.
        """
        with suppress(Empty):
            while True:
                self._work.get_nowait()
        for _ in self._threads:
            self._work.put(None)
        end_s = time.monotonic() + PARTING_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
