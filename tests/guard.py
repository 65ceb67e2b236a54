"""Kills every process that a test run leaves behind, however the run ends: a SIGKILL of pytest included.

Each pytest process, xdist workers too, starts one guard and holds the write end of the guard's standard input. All
processes that come from the run inherit a mark in their environment. When the run's own process is gone, the guard
reads end of file and kills whatever carries the mark. This needs `/proc`; on other systems nothing is guarded.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "TEST_RUN_MARK"
_LOOK_EVERY_S = 0.05
# A process shows no environment for a moment while it starts a program.
_CLEAN_LOOKS = 10
_MOST_LOOKS = 600


def set_guard() -> None:
    """Marks the children of this process from now on, and starts their guard.

    Marks nest: the mark of an xdist worker begins with that of the pytest that started it."""
    if not Path("/proc/self/environ").exists():
        return
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    mark = f"{os.environ.get(MARK, '')}/{os.getpid()}-{secrets.token_hex(4)}"
    os.environ[MARK] = mark
    # The write end is never closed: the kernel closes it when this process ends. Children do not inherit it.
    read_end, _ = os.pipe()
    # Of the run's files the guard keeps none open but this pipe: whoever reads the output of a run must see its end.
    files: list[Any] = [(os.POSIX_SPAWN_DUP2, read_end, 0)]
    files += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    # It has a session of its own, so that Ctrl-C and signals to the run's group leave it alone, and no mark, so that no
    # other guard kills it.
    os.posix_spawn(
        sys.executable, [sys.executable, "-I", "-S", __file__, mark], unmarked, file_actions=files, setsid=True
    )
    os.close(read_end)


def marked(mark: str) -> Iterator[int]:
    """Process ids of those whose mark begins with `mark`."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(entry.startswith(wanted) for entry in (folder / "environ").read_bytes().split(b"\0")):
                yield int(folder.name)


def main(mark: str) -> None:
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    while os.read(0, 1):
        pass
    clean_looks = 0
    for _ in range(_MOST_LOOKS):
        clean_looks += 1
        for pid in marked(mark):
            clean_looks = 0
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if clean_looks == _CLEAN_LOOKS:
            return
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    main(sys.argv[1])
