"""Set-up of every test run."""

import gc
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from model.images.formats import heic
from tests.examples import USUAL, many
from tests.guard import set_guard

# Before anything loads torch: its threads sleep while they wait for one another. By default they spin, and beside other
# workers of the test run they spin on cores that those need. It changes no bit of a result.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Servers of tests run their own packs alone, and record nothing. Tests of the canary ask for one.
os.environ.setdefault("PACKLIGHT_CANARY_INTERVAL_S", "0")


def pytest_configure(config: pytest.Config) -> None:
    # While tests are collected only modules are loaded, which stay: to look for garbage among them takes seconds.
    gc.disable()
    set_guard()
    # No deadline: on a loaded machine an example takes as long as it takes.
    settings.register_profile("packlight", many(USUAL))
    settings.load_profile("packlight")


def pytest_collection_finish(session: pytest.Session) -> None:
    """From now on the collector looks at what tests make, and no more at the modules of PyTorch and Transformers."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the package that reads HEIC were not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic.installed.cache_clear()
    yield
    heic.installed.cache_clear()
