"""One browser and one server for all tests, and a visit for each."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests.browser.visit import Visit
from tests.process.server import Server, running
from tests.service.running import Running, serving, until

_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP packlight.test 127.0.0.1",
]  # fmt: skip

Open = Callable[..., Visit]


@pytest.fixture(scope="session")
def loaded() -> tuple[Runner, ModelFacts]:
    return load_runner(Settings(devices="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def session_server(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded) as running:
        yield running


@pytest.fixture
def server(session_server: Running) -> Iterator[Running]:
    # The test before may have left a request that only now ends.
    until(session_server.is_quiet)
    yield session_server
    until(session_server.is_empty)


@contextmanager
def alone() -> Iterator[Server]:
    """A server in a process of its own, which a test may end. One of this process then takes its port at once."""
    with running("--engine", "thread") as server:
        yield server


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium without a window, which asks no server of its makers for anything."""
    chromium = shutil.which("chromium-headless-shell")
    assert chromium, "run tests/browser/install.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens the page at an address. What was wrong with it fails the test at its end."""
    opened: list[Visit] = []

    def open_page(address: str, **options: Any) -> Visit:
        opened.append(Visit.of(browser, address, **options))
        return opened[-1]

    yield open_page
    for each in opened:
        each.close()


def address_of(server: Running, *, host: str = "127.0.0.1") -> str:
    """host: `packlight.test` is this machine too, and to a browser a stranger on plain HTTP."""
    return f"http://{host}:{server.port}/"
