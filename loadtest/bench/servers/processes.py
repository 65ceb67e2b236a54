"""Memory, files and processor time of processes, from `/proc`."""

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model.child_process import process_tree

_MODULE = re.compile(r"service\.processes\.(\w+)_process|model\.images\.(worker)")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process at one moment. name: `engine`, `http`, `worker` (it decodes), or `server` for others.
    high_water_bytes: its peak so far."""

    pid: int
    name: str
    memory_bytes: int
    high_water_bytes: int
    files: int
    cpu_s: float
    threads: int = 0


class Cores:
    """Processor seconds a second while entered: of a server's processes by name, and of this one as `sender`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._of: dict[str, float] = {}

    def __enter__(self) -> "Cores":
        self._began_s, self._before = time.perf_counter(), self._cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began_s
        for name, cpu_s in self._cpu_s().items():
            self._of[name] = (cpu_s - self._before.get(name, 0.0)) / seconds

    def _cpu_s(self) -> Counter[str]:
        spent: Counter[str] = Counter()
        for use in process_uses(self._pid):
            spent[use.name] += use.cpu_s  # type: ignore[assignment]
        spent["sender"] = time.process_time()  # type: ignore[assignment]
        return spent

    @property
    def total(self) -> float:
        return sum(self._of.values())

    @property
    def sender(self) -> float:
        return self._of["sender"]

    def row(self) -> dict[str, object]:
        return {f"cores_{name}": round(cores, 3) for name, cores in self._of.items()}


def process_uses(pid: int) -> list[ProcessUse]:
    """The process first, then its descendants; those that end meanwhile are left out."""
    return [use for each in process_tree(pid) if (use := _use(each)) is not None]


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of these processes so far, without those that have ended."""
    spent_s = 0.0
    for pid in pids:
        with suppress(OSError):
            spent_s += _cpu_s(pid)
    return spent_s


def threads_cpu_s() -> dict[int, float]:
    """Processor time of each thread of this process, by system id."""
    spent = {}
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(OSError):
            spent[thread] = thread_cpu_s(os.getpid(), thread)
    return spent


def thread_cpu_s(pid: int, thread: int | None = None) -> float:
    """Processor time of a thread of a process, by default its first. Raises `OSError` if it has ended."""
    return int(Path(f"/proc/{pid}/task/{thread or pid}/schedstat").read_text("ascii").split()[0]) / 1e9


def _use(pid: int) -> ProcessUse | None:
    folder = Path("/proc", str(pid))
    try:
        command = (folder / "cmdline").read_bytes().decode()
        status = (folder / "status").read_text(encoding="utf-8")
        spent_s, files = _cpu_s(pid), len(os.listdir(folder / "fd"))
    except OSError:
        return None
    module = _MODULE.search(command)
    return ProcessUse(
        pid=pid,
        name=module[1] or module[2] if module else "server",
        memory_bytes=_number(status, "VmRSS") * 1024,
        high_water_bytes=_number(status, "VmHWM") * 1024,
        files=files,
        cpu_s=spent_s,
        threads=_number(status, "Threads"),
    )


def _cpu_s(pid: int) -> float:
    """Raises `OSError` if the process has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _number(status: str, name: str) -> int:
    """Memory is in KiB."""
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0
