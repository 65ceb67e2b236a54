from collections.abc import Iterator
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from model.checkpoint import tiny
from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.service.running import Running, serving, until


@pytest.fixture(scope="session")
def bundled() -> tuple[Runner, ModelFacts]:
    """The bundled model in float32, loaded once: for tests that compare with what others load."""
    return load_runner(Settings(devices="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, ModelFacts]:
    """The bundled model in float32 with the first of its four blocks, which takes a third of the time."""
    weights, folder = load_file(tiny.FOLDER / "model.safetensors"), tmp_path_factory.mktemp("tiny")
    first = {name: tensor for name, tensor in weights.items() if "layers." not in name or "layers.0." in name}
    save_file(first, folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "FOLDER", folder)
        patch.setattr(tiny, "CONFIG", replace(tiny.CONFIG, depth=1))
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
