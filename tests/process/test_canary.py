"""A device that lies from some moment on is caught and replaced; nothing wrong is answered until it is right again."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import pytest

from service.canary.files import write_recording
from service.canary.recorder import recorded, subject_of
from service.limits import Limits
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.process.server import FAULTY, PAUSE_S, Server, running
from tests.service.engine.canary.liars import LIES, Lie
from tests.service.running import error_of
from tests.waiting import until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
CLIENTS = 3
RESTARTS, FAILED = 'engine_restarts_total{reason="untrue"}', 'canaries_total{outcome="failed"}'
SETTINGS = Settings(devices="cpu", dtype="float32")


class Load:
    """Clients that ask again and again, and keep when they asked and what they were answered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.answers: list[tuple[float, httpx.Response]] = []
        self._clients = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for client in self._clients:
            client.start()

    def _ask(self) -> None:
        while not self._over.wait(PAUSE_S):
            began_s = time.monotonic()
            answer = self._server.embed(PNG)
            self.answers.append((began_s, answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with what the canary of the bundled model has to be."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "packlight-canary").mkdir()
    _, model = load_runner(SETTINGS)
    subject = subject_of(model, Limits.of(SETTINGS, model))
    write_recording(folder / "packlight-canary", subject, recorded(SETTINGS, subject), made_by="tests")
    return folder


class Lying:
    """A server whose device can be made to lie. threaded: a thread of the server drives it."""

    def __init__(self, server: Server, file: Path, *, threaded: bool) -> None:
        self.server, self._file, self.threaded = server, file, threaded

    def lie(self, lie: Lie, *, number: int | str) -> None:
        """number: of the model that lies, counted by its process; `any` for all."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{number} {lie}")
        written.rename(self._file)

    def tell_the_truth(self) -> None:
        self._file.unlink(missing_ok=True)

    def status(self) -> str:
        return str(self.server.http.get("/readyz").json()["status"])


@contextmanager
def lying(cache: Path, folder: Path, *options: str, threaded: bool) -> Iterator[Lying]:
    file = folder / "lie"
    environment = {"TEST_LIE": str(file), "HF_HOME": str(cache), "PACKLIGHT_CANARY_INTERVAL_S": "0.5"}
    with running(*options, program=FAULTY, **environment) as server:
        yield Lying(server, file, threaded=threaded)


def test_an_engine_process_that_lies_is_replaced_until_the_device_is_right(cache: Path, tmp_path: Path) -> None:
    # Those that an engine tells are all caught by tests/service/engine/canary: here it is what follows that is tested.
    with lying(cache, tmp_path, "--http-workers", "2", threaded=False) as of_many:
        check(of_many, "stale")


@pytest.fixture(scope="module")
def of_one(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lying]:
    with lying(cache, tmp_path_factory.mktemp("lies"), "--engine", "thread", threaded=True) as made:
        yield made


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_caught_and_no_wrong_vector_leaves_until_the_device_is_right(of_one: Lying, lie: Lie) -> None:
    check(of_one, lie)


def check(lying: Lying, lie: Lie) -> None:
    server = lying.server
    until(server.is_ready)
    right = server.embed(PNG).json()["data"]
    restarts, failed = (server.metric(name) for name in (RESTARTS, FAILED))
    with Load(server) as load:
        until(lambda: len(load.answers) > 2 * CLIENTS)
        lying.lie(lie, number=int(restarts) if lying.threaded else "any")
        until(lambda: not server.is_ready())
        detected_s = time.monotonic()
        assert "the device gives wrong vectors" in lying.status()
        refused = server.embed(PNG)
        if not lying.threaded:
            # Its successors lie too: none of them is let near a request.
            until(lambda: server.metric(FAILED) > failed + 1)
            assert not server.is_ready()
            lying.tell_the_truth()
        until(server.is_ready)
        answered = len(load.answers)
        until(lambda: len(load.answers) > answered + 2 * CLIENTS)
    lying.tell_the_truth()

    later = [answer for began_s, answer in load.answers if began_s > detected_s]
    assert {answer.status_code for answer in later} <= {200, 503}
    assert all(answer.json()["data"] == right for answer in later if answer.status_code == 200)
    assert error_of(refused)[:2] == (503, "unavailable")
    assert refused.headers["Retry-After"] == "1"
    assert "wrong vectors" in refused.json()["error"]["message"]
    assert server.metric(RESTARTS) > restarts
    assert "the canary has failed" in server.log
    until(server.is_empty)
