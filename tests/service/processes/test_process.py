"""`packlight serve` as a process: it starts, it is told to stop, it cannot start."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import pictures
from tests.service.running import PATIENCE_S, raw_request, read_answer, until

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "service", "serve", "--port", "0", "--devices", "cpu", "--dtype", "float32"]
PNG = pictures.save(pictures.picture(48, 64), "PNG")


class Process:
    """A server of its own process; everything it logs is kept."""

    def __init__(self, *options: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACKLIGHT_")}
        self._process = subprocess.Popen(
            [*COMMAND, *options], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self._process.poll() is not None or self.port)

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(iter(self._process.stderr.readline, ""))

    @property
    def port(self) -> int:
        found = re.search(r"ready on http://127\.0\.0\.1:(\d+)", self.log)
        return int(found[1]) if found else 0

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def status(self) -> int:
        """Waits for the end, and for the last of its log."""
        status = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        self._process.kill()
        self.status()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text
        found = re.search(rf"^packlight_{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def running(*options: str) -> Iterator[Process]:
    process = Process(*options)
    try:
        yield process
    finally:
        process.close()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    return True


@dataclass(frozen=True)
class Stopped:
    """What became of a server at SIGTERM, and of its clients. answers: statuses."""

    queued: list[int]
    uploading: int
    status: int
    log: str


@pytest.fixture(scope="module")
def stopped() -> Stopped:
    """At SIGTERM images are queued, as a pack that is not full waits; one client is sending, and one idle."""
    with running("--max-wait-ms", "1000") as process, ExitStack() as stack:
        queued = [stack.enter_context(process.connect()) for _ in range(8)]
        uploading, idle = [stack.enter_context(process.connect()) for _ in range(2)]
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        read_answer(idle)
        uploading.sendall(raw_request(PNG[:100], f"Content-Length: {len(PNG)}"))
        for connection in queued:
            connection.sendall(raw_request(PNG))
        until(lambda: process.metric("queue_images") == 8 and process.metric("inflight_bytes") == len(PNG))
        process.signal(signal.SIGTERM)
        until(lambda: not accepts(process.port))
        uploading.sendall(PNG[100:])
        statuses = [read_answer(connection)[0].status for connection in (*queued, uploading)]
        return Stopped(statuses[:8], statuses[8], process.status(), process.log)


def test_what_was_accepted_before_sigterm_is_answered(stopped: Stopped) -> None:
    assert stopped.queued == [200] * 8


def test_an_upload_under_way_at_sigterm_is_answered(stopped: Stopped) -> None:
    assert stopped.uploading == 200


def test_a_server_that_was_told_to_stop_ends_with_status_0_and_no_complaint(stopped: Stopped) -> None:
    """Though a connection was kept alive."""
    assert stopped.status == 0
    assert "Traceback" not in stopped.log
    assert "ERROR" not in stopped.log


def test_a_second_signal_ends_at_once_though_the_device_is_at_work() -> None:
    tokens = "6000"
    options = ("--max-image-tokens", tokens, "--max-batch-tokens", tokens, "--max-queue-tokens", "100000")
    with running(*options) as process, ExitStack() as stack:
        for _ in range(12):
            path = f"/embed?max_tokens={tokens}&timeout_ms=3600000"
            stack.enter_context(process.connect()).sendall(raw_request(PNG, path=path))
        until(lambda: process.metric("queue_images") > 5)
        process.signal(signal.SIGTERM)
        until(lambda: not accepts(process.port))
        process.signal(signal.SIGINT)
        assert process.status() == 1
        assert "terminate" not in process.log


def test_draining_has_an_end_and_what_was_not_done_by_then_is_told_so() -> None:
    with running("--max-wait-ms", "20000", "--drain-s", "1") as process, process.connect() as connection:
        connection.sendall(raw_request(PNG))
        until(lambda: process.metric("queue_images") == 1)
        process.signal(signal.SIGTERM)
        answer, body = read_answer(connection)
        process.status()
    assert answer.status == 503
    assert b'"unavailable"' in body
    assert "Traceback" not in process.log


# What cannot start


def refused(*options: str) -> str:
    """The one line of a server that did not start."""
    result = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    return line


def test_a_model_that_is_not_there_is_told_in_one_line() -> None:
    assert "nowhere" in refused("--model", "./nowhere")


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused("--port", port, "--log-level", "error")
    assert port in line
