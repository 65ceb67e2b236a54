"""SIGHUP under load: the model is loaded again beside the served one, and every request is answered."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from safetensors.torch import load_file, save_file

from tests import pictures
from tests.process.server import PAUSE_S, SMALL_PACKS, Server, running
from tests.text_models import save_whole
from tests.waiting import PATIENCE_S, until

CLIENTS = 4
PNG = pictures.save(pictures.picture(48, 64), "PNG")
KINDS = {"thread": ("--engine", "thread"), "processes": ("--http-workers", "2")}


class Load:
    """Clients that ask again and again, each on one connection, and keep what every answer says."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._over = threading.Event()
        self.answers: list[list[tuple[int, str, str]]] = [[] for _ in range(CLIENTS)]
        self._clients = [threading.Thread(target=self._ask, args=(answers,)) for answers in self.answers]
        for client in self._clients:
            client.start()

    def _ask(self, answers: list[tuple[int, str, str]]) -> None:
        url = f"http://127.0.0.1:{self._port}"
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
            while not self._over.wait(PAUSE_S):
                # Of a deadline that no machine misses: none is refused for one.
                answer = http.post("/embed?timeout_ms=3600000", content=PNG, headers={"Content-Type": "image/png"})
                answers.append((answer.status_code, answer.headers.get("x-fingerprint", ""), answer.text))

    @property
    def fewest(self) -> int:
        """Answers of the client that has the fewest."""
        return min(map(len, self.answers))

    def stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, `a` and `b`, of which only the weights differ."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("a", "b"):
        (folder / name).mkdir()
        save_whole(folder / name, "siglip2")
    weights = load_file(folder / "a/model.safetensors")
    save_file(weights, folder / "a/model.safetensors", {"format": "pt"})
    weights["vision_model.post_layernorm.bias"] += 1
    save_file(weights, folder / "b/model.safetensors", {"format": "pt"})
    return folder


def point(models: Path, name: str) -> None:
    """The link that servers are started with leads there from now on."""
    (models / "next").symlink_to(name)
    (models / "next").rename(models / "current")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, models: Path) -> Iterator[Server]:
    """The last test ends it."""
    point(models, "a")
    with running("--model", str(models / "current"), *KINDS[request.param], *SMALL_PACKS) as running_server:
        yield running_server


def reloads(server: Server, outcome: str) -> float:
    return server.metric(f'reloads_total{{outcome="{outcome}"}}')


def test_a_load_that_fails_leaves_what_is_served_and_the_next_one_may_succeed(server: Server, models: Path) -> None:
    before, children = server.embed(PNG).text, len(server.children())
    point(models, "nowhere")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: reloads(server, "failed") == 1)
    assert server.embed(PNG).text == before
    assert "the reload has failed, and" in server.log
    assert server.is_ready()
    for number, name in enumerate(("b", "a"), start=1):
        point(models, name)
        server.process.send_signal(signal.SIGHUP)
        until(lambda number=number: reloads(server, "done") == number)  # type: ignore[misc]
    until(lambda: server.embed(PNG).text == before)
    until(lambda: server.metric("engine_up") == 1)
    until(lambda: len(server.children()) == children)


def test_under_load_every_request_is_answered_and_a_connection_sees_one_change(server: Server, models: Path) -> None:
    children, done, said = len(server.children()), reloads(server, "done"), len(server.log)
    load = Load(server)
    until(lambda: load.fewest > 3)
    point(models, "b")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: reloads(server, "done") == done + 1)
    answered = load.fewest
    until(lambda: load.fewest > answered + 3)
    load.stop()
    seen = []
    for answers in load.answers:
        assert [text for status, _, text in answers if status != 200] == []
        changes = [fingerprint for _, fingerprint, _ in answers]
        seen.append(tuple(dict.fromkeys(changes)))
        assert changes == sorted(changes, key=seen[-1].index)
    assert len(set(seen)) == 1
    assert len(seen[0]) == 2
    # One vector for each model, whoever asked and whenever.
    assert len({(fingerprint, text) for answers in load.answers for _, fingerprint, text in answers}) == 2
    until(lambda: len(server.children()) == children)
    assert server.is_ready()
    until(server.is_empty)
    assert server.embed(PNG).headers["x-fingerprint"] == seen[0][1]
    texts = server.http.post("/embed", json={"texts": ["a"]})
    assert texts.headers["x-fingerprint"] == seen[0][1]
    assert "Traceback" not in server.log[said:]
    assert server.end() == 0
