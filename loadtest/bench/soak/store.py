"""A Redis or Valkey of the soak's own, which keeps nothing on disk."""

import shutil
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

from loadtest.bench.servers.running import end_with_parent, free_port

PROGRAMS = ("redis-server", "valkey-server")
_START_S = 10.0


class Store:
    """Runs from `start` to `kill`, on one port in all its lives."""

    def __init__(self, program: str, folder: Path) -> None:
        self._command = [program, "--bind", "127.0.0.1", "--save", "", "--maxmemory", "64mb", "--dir", str(folder)]
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program() -> str | None:
        return next(filter(None, map(shutil.which, PROGRAMS)), None)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the store was not started"
        return self._process.pid

    def start(self) -> None:
        """Empty. Returns once it answers."""
        command = [*self._command, "--port", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=end_with_parent)
        by_s = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > by_s:
                raise RuntimeError("the store does not start")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
