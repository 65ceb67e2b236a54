"""A server of the bench's own, and what its processes take of the machine, as `/proc` has it."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY = re.compile(r"ready on (http\S+)")
_MODULE = re.compile(r"service\.(\w+)_process")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process at one moment. name: `engine`, `http`, or `server` for the first. high_water_bytes: its most ever."""

    name: str
    memory_bytes: int
    high_water_bytes: int
    files: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that is up. pid: of the process that was started, whose children are the server's others."""

    url: str
    pid: int

    def processes(self) -> list[ProcessUse]:
        """The first process first. One that ends while it is looked at is left out."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return [use for pid in (self.pid, *map(int, children)) if (use := _use(pid)) is not None]

    def cpu_s(self) -> float:
        """User and system time of all processes."""
        return sum(process.cpu_s for process in self.processes())


class Cores:
    """Processor seconds a second, of the server's processes and of this one."""

    def __init__(self, server: Serving) -> None:
        self._server = server
        self._row: dict[str, object] = {}

    def __enter__(self) -> "Cores":
        self._began_s, self._before = time.perf_counter(), self._cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began_s
        for name, cpu_s in self._cpu_s().items():
            self._row[f"cores_{name}"] = round((cpu_s - self._before.get(name, 0.0)) / seconds, 2)

    def _cpu_s(self) -> Counter[str]:
        spent: Counter[str] = Counter()
        for process in self._server.processes():
            spent[process.name] += process.cpu_s  # type: ignore[assignment]
        spent["sender"] = time.process_time()  # type: ignore[assignment]
        return spent

    def row(self) -> dict[str, object]:
        return self._row


@contextmanager
def serving(*options: str) -> Iterator[Serving]:
    """A real server on a free port, with the settings given as options of `packlight serve`."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = _url_in_log(process)
            # What it logs from here on must be read, or it would wait for room in the pipe.
            with subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL):
                try:
                    yield Serving(url, process.pid)
                finally:
                    process.terminate()
        finally:
            process.terminate()


def _url_in_log(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line)
        if ready := _READY.search(line):
            return ready[1]
    raise RuntimeError("the server did not start:\n" + "".join(log))


def _use(pid: int) -> ProcessUse | None:
    folder = Path("/proc", str(pid))
    try:
        command = (folder / "cmdline").read_bytes().decode()
        status = (folder / "status").read_text(encoding="utf-8")
        fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        files = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    module = _MODULE.search(command)
    return ProcessUse(
        name=module[1] if module else "server",
        memory_bytes=_kib(status, "VmRSS") * 1024,
        high_water_bytes=_kib(status, "VmHWM") * 1024,
        files=files,
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    )


def _kib(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0
