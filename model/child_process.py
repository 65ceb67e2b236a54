"""What a process does to start a Python child, and a child to end with its parent. Knows nothing of what they say."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# A process whose threads start and end all the time must not hold its reader for ever.
_MOST_LISTINGS = 100


def module_command(module: str) -> list[str]:
    """Runs `main` of a module with this process's search path; `-m` would put the current folder first.

    `main` gets one string, which the caller adds to the command."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main(sys.argv[1]))"
    return [sys.executable, "-c", program]


def die_with(parent_pid: int) -> None:
    """Has the kernel kill this process when the thread that started it ends, however that happens.

    A terminal's Ctrl-C and a service manager's SIGTERM reach every process of a group. Only the parent acts on them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that ended before this call sends no signal.
    if os.getppid() != parent_pid:
        os._exit(1)


def children_of(pid: int) -> list[int]:
    """The children of a process as `/proc` lists them, by the thread that started each. None for a process that ended.

    A thread that ends meanwhile is passed over: the system has given its children to another.
    """
    found: list[int] = []
    with suppress(OSError):
        for task in _tasks(pid):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text("ascii").split())
    return found


def _tasks(pid: int) -> list[str]:
    """Its threads. The kernel breaks a listing off at a thread that ends meanwhile, so it is read until it has nothing
    that the one before it lacks. Raises `OSError` for a process that ended."""
    folder, before = f"/proc/{pid}/task", set[str]()
    for _ in range(_MOST_LISTINGS):
        tasks = set(os.listdir(folder))
        # The links of the folder are those of any folder, and one for each thread.
        if tasks <= before and len(tasks) >= os.stat(folder).st_nlink - 2:
            break
        before |= tasks
    return sorted(before)


def process_tree(pid: int) -> list[int]:
    """The process first, then all its descendants."""
    found, unread = [], [pid]
    while unread:
        found.append(unread.pop())
        unread += children_of(found[-1])
    return found
