from collections.abc import Iterator
from typing import Any

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests.service.running import Running, serving, until
from tests.text_models import load_whole


@pytest.fixture(scope="session")
def loaded_texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, ModelFacts]:
    """A model that takes texts, for all tests of dialects."""
    return load_whole(tmp_path_factory.mktemp("siglip2"), "siglip2")


@pytest.fixture(scope="session")
def texts_server(loaded_texts: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    """At most four texts or images a request."""
    limits: dict[str, Any] = {"max_text_chars": 2000, "max_texts_per_request": 4, "max_images_per_request": 4}
    with serving(loaded_texts, model_aliases=("packlight-tiny",), **limits) as running:
        yield running


@pytest.fixture(scope="session")
def usual_texts_server(loaded_texts: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded_texts) as running:
        yield running


@pytest.fixture
def texts(usual_texts_server: Running) -> Iterator[Running]:
    """The same with the default limits. Each test leaves it empty."""
    yield usual_texts_server
    until(usual_texts_server.is_empty)
