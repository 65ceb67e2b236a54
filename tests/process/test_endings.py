"""Each thread, task and process of a server is ended in turn, under load: it is replaced, or the server ends, and why
is in the log. What there is to end is what a running server lists."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import pictures
from tests.process.server import REAL, Server
from tests.service.running import until

# Whole servers, many of them.
pytestmark = pytest.mark.slow

PHOTOGRAPH = pictures.photograph_file("rocket.jpg")
TIFF = pictures.save(pictures.picture(48, 64), "TIFF")
HOOKS = Path(__file__).parent / "programs" / "hooks"
# A stopped parent, and an HTTP process that is silent, are given up after that.
HANG_AFTER_S = 3
THREAD, PROCESSES = "thread", "process"


class Load:
    """Clients that ask without pause for pictures and metrics, and keep what they get."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._over = threading.Event()
        self.vectors: list[tuple[int, str]] = []
        self.statuses: set[int] = set()
        self.hanging: list[str] = []
        asking = [self._photograph, self._photograph, self._tiff, self._metrics]
        self._clients = [threading.Thread(target=self._run, args=(ask,)) for ask in asking]
        for client in self._clients:
            client.start()

    def _run(self, ask: Callable[[httpx.Client, int], None]) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            number = 0
            while not self._over.is_set():
                number += 1
                try:
                    ask(client, 16 + number % 5)
                except httpx.TimeoutException as error:
                    self.hanging.append(repr(error))
                except httpx.TransportError:
                    self._over.wait(0.01)

    def _photograph(self, client: httpx.Client, tokens: int) -> None:
        self._embed(client, PHOTOGRAPH, tokens)

    def _tiff(self, client: httpx.Client, tokens: int) -> None:
        self._embed(client, TIFF, tokens + 100)

    def _embed(self, client: httpx.Client, image: bytes, tokens: int) -> None:
        parameters = {"max_tokens": tokens % 100, "encoding": "base64"}
        answer = client.post("/embed", content=image, params=parameters, headers={"Content-Type": "image/*"})
        self.statuses.add(answer.status_code)
        if answer.status_code == 200:
            self.vectors.append((tokens, answer.json()["data"][0]["embedding"]))

    def _metrics(self, client: httpx.Client, tokens: int) -> None:
        client.get("/metrics")

    def stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    @property
    def answers(self) -> int:
        return len(self.vectors)


class Ending(Server):
    """A server whose processes do as a test says."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        super().__init__(
            REAL, "--hang-after-s", str(HANG_AFTER_S), "--tracing-endpoint", "http://127.0.0.1:1",
            "--tracing-sample-ratio", "1", "--cache-url", "redis://127.0.0.1:1", "--cache-bytes", "1", *options,
            TEST_ENDINGS=str(folder), PYTHONPATH=f"{HOOKS}:{os.environ.get('PYTHONPATH', '')}",
            OTEL_BSP_SCHEDULE_DELAY="100",
        )  # fmt: skip

    def tell(self, pid: int, kind: str, name: str = "", *, waits: bool = True) -> Any:
        answer = self._folder / f"{pid}.answer"
        answer.unlink(missing_ok=True)
        (self._folder / f"{pid}.command").write_text(json.dumps([kind, name]))
        os.kill(pid, signal.SIGUSR2)
        if waits:
            until(answer.exists)
            return json.loads(answer.read_text())
        return None

    def parts(self, pid: int) -> set[tuple[str, str]]:
        """The threads of a process, those of a pool as one, and its tasks but those of requests."""
        listed = self.tell(pid, "list")
        named = {("thread", name.partition("_")[0]) for name, _ in listed["threads"]}
        return named | {("task", name) for name in listed["tasks"] if not name.startswith(("Task-", "hear "))}


@contextmanager
def ending(folder: Path, *options: str) -> Iterator[Ending]:
    server = Ending(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.close()


def quiet_of(server: Server) -> dict[int, str]:
    def vector(image: bytes, tokens: int) -> str:
        return str(server.embed(image, max_tokens=tokens, encoding="base64").json()["data"][0]["embedding"])

    photographs = {tokens: vector(PHOTOGRAPH, tokens) for tokens in range(16, 21)}
    return photographs | {100 + tokens: vector(TIFF, tokens) for tokens in range(16, 21)}


def check_answers(load: Load, quiet: dict[int, str]) -> None:
    """None was wrong, none hangs, and faults of the server were said to be such."""
    load.stop()
    assert load.hanging == []
    assert load.statuses <= {200, 500, 503}
    assert {(tokens, vector) for tokens, vector in load.vectors} <= set(quiet.items())


def end_part(server: Ending, pid: int, kind: str, name: str) -> None:
    server.tell(pid, kind, name)
    if name == "starter":
        # It works when a process that decodes images is to be started, and at no other time.
        for child in children_of(pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in children_in(task)]


def children_in(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []
