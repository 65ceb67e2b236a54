"""A server in processes of its own: its log, its memory and files, and how to send it requests."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from model.child_process import children_of
from tests import pictures
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
REAL = ["-m", "service", "serve"]
FAULTY = ["-m", "tests.process.programs.faulty_server"]
OPTIONS = ["--port", "0", "--devices", "cpu", "--dtype", "float32", "--engine", "process"]
# For servers that get few tokens at once: a warm-up of smaller packs takes a third of a second less of a processor.
SMALL_PACKS = ("--max-batch-tokens", "1024", "--max-queue-tokens", "32768")
# How long a test waits for a server to start: two seconds on a quiet machine.
START_PATIENCE_S = 120.0
# How long each client of a load waits before it asks again. Without that, clients leave little of two cores to the
# processes that start.
PAUSE_S = 0.02


class Server:
    """Keeps everything that the server logs. `start` it, and `close` it however that went."""

    def __init__(self, program: Sequence[str], *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program, *OPTIONS, *options], cwd=ROOT, env=_environment() | environment,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: list[str] = []
        self._log, self._logging = "", threading.Lock()
        self._port = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def start(self) -> None:
        """Waits until the server listens."""
        until(lambda: self.process.poll() is not None or self.port, patience_s=START_PATIENCE_S)
        assert self.port, self.log

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )  # fmt: skip

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in iter(self.process.stderr.readline, ""):
            with self._logging:
                self._lines.append(line)

    @property
    def log(self) -> str:
        # Tests that wait for a line ask two hundred times a second.
        with self._logging:
            self._log += "".join(self._lines)
            self._lines.clear()
            return self._log

    @property
    def port(self) -> int:
        if not self._port and (found := re.search(r"ready on http://127\.0\.0\.1:(\d+)", self.log)):
            self._port = int(found[1])
        return self._port

    def children(self, module: str = "") -> list[int]:
        """Process ids: of all children, or of those that run one module."""
        return [pid for pid in children_of(self.process.pid) if module in command_of(pid)]

    @property
    def engines(self) -> list[int]:
        return self.children("engine")

    @property
    def http_processes(self) -> list[int]:
        return self.children("http_process")

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return self.http.get("/readyz").status_code == 200
        return False

    def embed(self, image: bytes, **parameters: Any) -> httpx.Response:
        return self.http.post("/embed", content=image, params=parameters, headers={"Content-Type": "image/*"})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def accepts(self) -> bool:
        """False once it takes no new connection."""
        try:
            self.connect().close()
        except ConnectionError:
            return False
        return True

    def metric(self, name: str) -> float:
        found = re.search(rf"^packlight_{re.escape(name)} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def is_empty(self) -> bool:
        return not any(map(self.metric, ("queue_tokens", "queue_images", "inflight_bytes")))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end, and for the last of the log."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(*options: str, program: Sequence[str] = REAL, **environment: str) -> Iterator[Server]:
    server = Server(program, *options, **environment)
    try:
        server.start()
        yield server
    finally:
        server.close()


def refused(*options: str) -> str:
    """The one line of a server that cannot start."""
    command = [sys.executable, *REAL, *OPTIONS, *options]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=START_PATIENCE_S, check=False, env=_environment()
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def _environment() -> dict[str, str]:
    """The environment of the tests without `PACKLIGHT_*`, and without a canary."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PACKLIGHT_")}
    return kept | {"PACKLIGHT_CANARY_INTERVAL_S": "0"}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_there(pid: int) -> bool:
    """False for a zombie too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def coloured(colour: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> bytes:
    return pictures.save(Image.new("RGB", size, colour), "PNG")
