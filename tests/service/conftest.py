from collections.abc import Iterator

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.service.running import Running, serving, until


@pytest.fixture(scope="session")
def loaded() -> tuple[Runner, ModelFacts]:
    """The bundled model in float32, loaded once."""
    return load_runner(Settings(devices="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def module_server(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded) as running:
        yield running
        assert running.embed(small_png(), max_tokens=1).status_code == 200


@pytest.fixture
def server(module_server: Running) -> Iterator[Running]:
    """A server with the default settings, shared by a module's tests: each leaves it as it found it, and the last of
    them leaves it serving."""
    until(module_server.is_quiet)
    yield module_server
    until(module_server.is_empty)


@pytest.fixture
def png() -> bytes:
    return small_png()


def small_png() -> bytes:
    return pictures.save(pictures.picture(48, 64), "PNG")
