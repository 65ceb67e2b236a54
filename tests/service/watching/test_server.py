"""The threads of a server are kept, whichever a running one starts. `tests/process/endings` ends them."""

import threading
from typing import Any

import pytest

from model import threads
from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.running import serving


@pytest.mark.parametrize("settings", [{}, {"tracing_endpoint": "http://127.0.0.1:1", "cache_bytes": 1_000_000}])
def test_every_thread_of_a_server_has_a_name_and_is_kept(
    loaded: tuple[Runner, ModelFacts], settings: dict[str, Any]
) -> None:
    before = set(threading.enumerate())
    with serving(loaded, **settings) as server:
        for kind in ("PNG", "TIFF"):
            assert server.embed(pictures.save(pictures.picture(48, 64), kind)).status_code == 200
        # The event loop has the main thread where it is not in a test.
        started = {thread for thread in set(threading.enumerate()) - before if thread.name != "server"}
        names = {thread.name.partition("_")[0] for thread in started}
        assert names >= {"decode", "engine-0", "header", "helper", "starter"}
        assert "traces" in names or not settings
        assert {thread.name for thread in started - set(threads.kept())} == set()
        assert not [name for name in names if name.startswith("Thread")]
