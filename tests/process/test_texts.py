"""Texts through an engine process and two HTTP processes: the bits of a text alone, whatever else happens."""

import base64
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from model.pack import pack_texts
from service.loading import load_runner, tokenizer_of
from service.requests.results import normalized
from service.settings.settings import Settings
from tests import pictures
from tests.process.programs.faulty_engine import KILLING_TEXT_TOKENS
from tests.process.server import FAULTY, PAUSE_S, START_PATIENCE_S, Server, running
from tests.service.running import error_of
from tests.text_models import save_whole
from tests.waiting import until

DEATHS = 4
CLIENTS = 4
PNG = base64.b64encode(pictures.save(pictures.picture(48, 64), "PNG")).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip")
    save_whole(made, "clip")
    return made


@pytest.fixture(scope="module")
def texts(folder: Path) -> dict[str, list[float]]:
    """Texts of many lengths, none of which kills, and the vector of each in a pack of its own."""
    settings = Settings(model=str(folder), devices="cpu", dtype="float32")
    runner, facts = load_runner(settings)
    assert facts.text is not None
    tokenizer = tokenizer_of(settings, facts.text)
    found = {}
    for number in range(80):
        text = "a cat and a dog " * (number // 8) + f"cat {number}"
        ids = tokenizer.encode(text).ids
        if len(ids) != KILLING_TEXT_TOKENS:
            pooled = runner.run_texts(pack_texts([ids])).pooled
            found[text] = normalized(pooled)[0].tolist()
    return found


@pytest.fixture(scope="module")
def killing(folder: Path) -> str:
    settings = Settings(model=str(folder), devices="cpu", dtype="float32")
    facts = load_runner(settings)[1]
    assert facts.text is not None
    tokenizer = tokenizer_of(settings, facts.text)
    return next(text for end in range(30) if tokenizer.encode(text := "7" * end).tokens == KILLING_TEXT_TOKENS)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    # On a loaded machine two restarts of an engine take longer than an answer may take by default.
    options = ("--http-workers", "2", "--default-timeout-ms", "300000")
    with running("--model", str(folder), *options, program=FAULTY) as made:
        yield made


def embed(server: Server, **content: Any) -> list[list[float]]:
    answer = server.http.post("/embed", json=content)
    assert answer.status_code == 200, answer.text
    return [np.array(item["embedding"], np.float32).tolist() for item in answer.json()["data"]]


def test_a_text_has_the_bits_that_it_has_alone(server: Server, texts: dict[str, list[float]]) -> None:
    (image,) = embed(server, images=[PNG])
    together = embed(server, texts=[*texts], images=[PNG] * 3)
    assert together == [image] * 3 + [*texts.values()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: embed(server, texts=[text])[0], texts))
    assert found == [*texts.values()]


def test_deaths_under_texts_lose_nothing_and_change_nothing(server: Server, texts: dict[str, list[float]]) -> None:
    over, answers = threading.Event(), [0] * CLIENTS
    (image,) = embed(server, images=[PNG])
    requests = [*texts]

    def ask(client: int) -> None:
        while not over.wait(PAUSE_S):
            asked = requests[(answers[client] * 7) % len(texts) :][: 1 + answers[client] % 9]
            assert embed(server, texts=asked, images=[PNG]) == [image, *(texts[text] for text in asked)]
            answers[client] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask, client) for client in range(CLIENTS)]
        try:
            for _ in range(DEATHS):
                before = sum(answers)
                until(lambda before=before: sum(answers) > before + CLIENTS or any(map(_failed, clients)))  # type: ignore[misc]
                (engine,) = server.engines
                os.kill(engine, signal.SIGKILL)
                until(lambda engine=engine: server.engines not in ([], [engine]) and server.is_ready())  # type: ignore[misc]
        finally:
            over.set()
        for client in clients:
            client.result()
    until(server.is_empty)
    logged = re.findall(r"request_id=(\w+) method=POST", server.log)
    assert len(set(logged)) == len(logged)


def _failed(client: Any) -> bool:
    return client.done() and client.exception() is not None


def embedded_at_last(server: Server, text: str) -> list[float]:
    """While an engine that died twice within moments waits for its next start, new requests get 503."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(server.http.post("/embed", json={"texts": [text]}))
        return answers[-1].status_code != 503

    until(answered, patience_s=START_PATIENCE_S)
    assert answers[-1].status_code == 200, answers[-1].text
    vector: list[float] = np.array(answers[-1].json()["data"][0]["embedding"], np.float32).tolist()
    return vector


def test_a_text_on_which_the_engine_dies_twice_is_at_fault_and_no_other(
    server: Server, texts: dict[str, list[float]], killing: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        guilty = pool.submit(server.http.post, "/embed", json={"texts": [killing]})
        others = [pool.submit(embedded_at_last, server, text) for text in texts]
        assert [other.result() for other in others] == [*texts.values()]
        assert error_of(guilty.result())[:2] == (500, "engine_fault")
    assert "died on this text, twice" in guilty.result().json()["error"]["message"]
    until(server.is_empty)
