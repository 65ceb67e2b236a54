"""The server of a soak, and what surrounds it: a small temporary folder, few file descriptors, a clock that can be set,
a store, and a program that takes its log.

None of it needs root: in a namespace of its own, anybody may mount a tmpfs. What this machine lacks is left out, and
`lacking` says why.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.bench.servers.processes import ProcessUse, process_uses
from loadtest.bench.servers.running import Running, end_with_parent, free_port, running
from loadtest.bench.soak.clients import ID
from loadtest.bench.soak.clock import Clock
from loadtest.bench.soak.records import Ended
from loadtest.bench.soak.store import Store
from model import checkpoint
from model.child_process import process_tree

# Files that a process of the server may open.
FILES = 256
TMPFS_BYTES = 8 * 1024**2
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_LIMITED = f'ulimit -n {FILES} && exec "$@"'
_MOUNTED = f'mount -t tmpfs -o size={TMPFS_BYTES} tmpfs "$TMPDIR" && {_LIMITED}'
# The log's pipe holds this much: what takes the log may stand still for a second or two.
_PIPE_BYTES = 4096
_F_SETPIPE_SZ = 1031
# Full within minutes, so that filling it is no growth of what is judged.
_CACHE_BYTES = 2 * 1024**2
_ENDS_WITHIN_S, _GONE_WITHIN_S = 45.0, 5.0
_LINE = re.compile(rf" request request_id={ID}(\d+) method=\S+ route=\S+.* status=(\d+)")


class Scene:
    """Use as a context manager: entering starts the server."""

    def __init__(
        self,
        model: str,
        *,
        needs: Collection[str],
        http_workers: int,
        pictures_port: int,
        settings: Sequence[str] = (),
    ) -> None:
        """needs: of `temporary folder`, `clock` and `store`. settings: further options of `packlight serve`."""
        self._needs = needs
        self._model, self._http_workers, self._pictures_port = model, http_workers, pictures_port
        self._settings = settings
        self._stack = ExitStack()
        self.lacking: dict[str, str] = {}
        self.server: Running
        self.store: Store | None = None
        self.clock: Clock | None = None
        # By their ids, when each was started: the system may give an id again.
        self._seen: dict[int, int] = {}
        self._tmp_descriptor = -1

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            (self.folder / "tmp").mkdir()
            self._start_store(stack)
            environment = {"TMPDIR": str(self.folder / "tmp"), **self._clock_environment()}
            port = free_port()
            log = self._start_log(stack)
            self.server = stack.enter_context(
                running(self._command(port), port=port, ready_path="/readyz", environment=environment, log=log)
            )
            os.close(log)
            self._tmp_descriptor = os.open(self.tmp, os.O_RDONLY)
            stack.callback(os.close, self._tmp_descriptor)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _command(self, port: int) -> list[str]:
        options = [
            "--port", str(port), "--model", self._model, "--engine", "process",
            "--http-workers", str(self._http_workers), "--cache-bytes", str(_CACHE_BYTES),
            "--url-allowlist", f"private http://127.0.0.1:{self._pictures_port}", *self._settings,
        ]  # fmt: skip
        if self.store:
            options += ["--cache-url", self.store.url]
        serve = [sys.executable, "-m", "service", "serve", *options]
        if "temporary folder" in self._needs:
            if self._may_mount():
                return [*_UNSHARE, "sh", "-c", _MOUNTED, "sh", *serve]
            self.lacking["temporary folder"] = "the system lets nobody mount a tmpfs (unshare --user --mount)"
        return ["sh", "-c", _LIMITED, "sh", *serve]

    def _may_mount(self) -> bool:
        mount = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(self.folder / "tmp")]
        return (
            bool(shutil.which(_UNSHARE[0]))
            and subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode == 0
        )

    def _start_store(self, stack: ExitStack) -> None:
        if "store" not in self._needs:
            return
        if (program := Store.program()) is None:
            self.lacking["store"] = "there is no redis-server or valkey-server"
            return
        self.store = Store(program, self.folder)
        stack.callback(self.store.kill)
        self.store.start()

    def _clock_environment(self) -> Mapping[str, str]:
        if "clock" not in self._needs:
            return {}
        if (compiler := Clock.compiler()) is None:
            self.lacking["clock"] = "there is no C compiler (cc)"
            return {}
        self.clock = Clock(compiler, self.folder)
        return self.clock.environment

    def _start_log(self, stack: ExitStack) -> int:
        """The descriptor that the server's processes log to: a pipe to a program that writes a file."""
        read, write = os.pipe()
        if sys.platform == "linux":
            import fcntl

            fcntl.fcntl(write, _F_SETPIPE_SZ, _PIPE_BYTES)
        with open(self.folder / "log", "wb") as file:
            self.log_writer = subprocess.Popen(["cat"], stdin=read, stdout=file, preexec_fn=end_with_parent)
        os.close(read)
        stack.callback(self._end_log_writer)
        return write

    def _end_log_writer(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.log_writer.wait(_ENDS_WITHIN_S)
        self.log_writer.kill()
        self.log_writer.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def tmp(self) -> Path:
        """The server's temporary folder as this process sees it."""
        return Path(f"/proc/{self.server.pid}/root{self.folder / 'tmp'}")

    def model_files(self) -> list[Path]:
        folder = Path(self._model)
        return list((folder if folder.is_dir() else Path(checkpoint.__path__[0], "tiny")).glob("*.safetensors"))

    def processes(self) -> list[ProcessUse]:
        """All that run now, the supervisor first. Those seen here must be gone at the end."""
        uses = process_uses(self.server.pid)
        self._see(use.pid for use in uses)
        return uses

    def _see(self, pids: Iterable[int]) -> None:
        for pid in pids:
            self._seen[pid] = _started(pid)

    def youngest(self, name: str) -> int | None:
        """The process of this name that was started last."""
        pids = [use.pid for use in self.processes() if use.name == name]
        return max(pids, key=_started, default=None)

    def _left(self) -> list[int]:
        return [pid for pid, started in self._seen.items() if _started(pid) == started and _is_there(pid)]

    def end(self) -> Ended:
        """Stops the server as an operator does, and looks for what it leaves."""
        self._see(process_tree(self.server.pid))
        with suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGTERM)
        status = self.server.wait(_ENDS_WITHIN_S)
        files = sorted(os.listdir(self._tmp_descriptor))
        by_s = time.monotonic() + _GONE_WITHIN_S
        while (left := self._left()) and time.monotonic() < by_s:
            time.sleep(0.1)
        self._end_log_writer()
        log, logged = self.log, defaultdict(list)
        for number, answered in _LINE.findall(log):
            logged[int(number)].append(int(answered))
        return Ended(status, sorted(left), files, logged, log.count("Traceback (most recent call last)"))


def _stat(pid: int) -> list[str]:
    """From its state on. Raises `OSError` if it has ended."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _started(pid: int) -> int:
    """In ticks of the system's clock; 0 for one that has ended."""
    with suppress(OSError):
        return int(_stat(pid)[19])
    return 0


def _is_there(pid: int) -> bool:
    """False for a zombie too."""
    with suppress(OSError):
        return _stat(pid)[0] != "Z"
    return False
