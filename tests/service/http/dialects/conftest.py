from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from service.loading import load_runner
from service.settings import Settings
from tests.service.running import Running, serving, until
from tests.text_models import save_whole

# In place of the path of its folder, which no test knows.
NAME = "random-siglip2"


@pytest.fixture(scope="session")
def texts_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves a model that takes texts, for all tests of dialects. At most four texts or images a request."""
    folder = tmp_path_factory.mktemp("siglip2")
    save_whole(folder, "siglip2")
    runner, facts = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    loaded = (runner, replace(facts, name=NAME))
    limits: dict[str, Any] = {"max_text_chars": 2000, "max_texts_per_request": 4, "max_images_per_request": 4}
    with serving(loaded, model_aliases=("packlight-tiny",), **limits) as running:
        yield running


@pytest.fixture(scope="session")
def usual_texts_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("siglip2")
    save_whole(folder, "siglip2")
    runner, facts = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving((runner, replace(facts, name=NAME))) as running:
        yield running


@pytest.fixture
def texts(usual_texts_server: Running) -> Iterator[Running]:
    """The same with the default limits. Each test leaves it empty."""
    yield usual_texts_server
    until(usual_texts_server.is_empty)
