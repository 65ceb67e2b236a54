"""Nothing is left of a model once another has taken its place: neither its weights nor the memory of its rows."""

import asyncio
import gc
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.running.runner import Runner
from service.engine.under_way import EngineWatch
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.metrics import Metrics
from service.processes.http_process import _Parent
from service.processes.messages import EngineStatus, EngineUp, ServeModel, StartHttp
from service.processes.reloading.http import Models
from service.processes.reloading.thread import Reloader
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests.service.engine.test_engine import FACTS
from tests.service.running import NAFLEX, PATIENCE_S

SETTINGS = Settings(devices="cpu", dtype="float32", decode_threads=1, max_batch_tokens=256, max_image_tokens=256)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """A reload has the collector look less often. What it exempts from collection stays so: other tests' collections
    would walk all modules."""
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


def slabs() -> set[str]:
    """The inodes of the memory for rows that is mapped: other tests' may go at any time."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:packlight-rows" in line}


def test_an_http_process_keeps_no_client_and_no_rows_of_the_model_before() -> None:
    facts = replace(FACTS, geometry=NAFLEX, default_max_tokens=256)

    async def main() -> None:
        before = slabs()
        start = StartHttp("http-0", os.getpid(), "secret", {}, ServeModel(0, facts, [EngineStatus(None)]), 0)
        models = Models(start, SETTINGS, metrics=Metrics(), draining=lambda: False)
        models.start()
        # Others would take memory of their own for what they decode, and keep it.
        threads = {thread for thread in threading.enumerate() if thread.name.startswith(("header", "decode"))}
        for number in range(1, 3):
            client = weakref.ref(models._parts.client)
            # As an open connection has the one of its last request.
            kept = models._parts.version.app if number == 2 else None
            async with asyncio.timeout(PATIENCE_S):
                await models.serve(ServeModel(number, facts, [EngineStatus(None)]))
            assert (client() is None) == (kept is None)
            assert len(slabs() - before) == 1
            assert threads >= {each for each in threading.enumerate() if each.name.startswith(("header", "decode"))}
        assert threads
        models.close()

    asyncio.run(main())


def test_an_engine_that_is_up_right_after_its_model_is_named_is_used() -> None:
    facts = replace(FACTS, geometry=NAFLEX, default_max_tokens=256)
    address = f"packlight-test-{secrets.token_hex(8)}"

    async def main() -> None:
        start = StartHttp("http-0", os.getpid(), "secret", {}, ServeModel(0, facts, [EngineStatus(None)]), 0)
        metrics = Metrics()
        models = Models(start, SETTINGS, metrics=metrics, draining=lambda: False)
        models.start()
        moved: asyncio.Queue[Any] = asyncio.Queue()
        parent = _Parent(SimpleNamespace(send=moved.put_nowait), None, models, metrics, 10)  # type: ignore[arg-type]
        # Both come while the loop is busy.
        parent.heed(ServeModel(1, facts, [EngineStatus(None)]))
        parent.heed(EngineUp(1, 0, address))
        async with asyncio.timeout(PATIENCE_S):
            await moved.get()
        assert models._parts.client.any_device_ready
        models._parts.client.close()
        models.close()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(f"\0{address}")
        listening.listen()
        asyncio.run(main())


def test_a_server_of_one_process_keeps_no_weights_of_the_model_before() -> None:
    runners: list[weakref.ref[Any]] = []

    def load(settings: Settings) -> tuple[Runner, ModelFacts]:
        runner, facts = load_runner(settings)
        runners.append(weakref.ref(runner))
        return runner, facts

    async def main() -> None:
        reloader = Reloader(SETTINGS, load, metrics=Metrics(), watch=EngineWatch(), draining=lambda: False)
        runner, facts = load(SETTINGS)
        reloader.begin(runner, facts, warm_up(runner, Limits.of(SETTINGS, facts)))
        del runner
        # As an open connection has the one of its last request.
        kept = reloader.parts.app
        reloader.ask()
        assert reloader._task
        async with asyncio.timeout(PATIENCE_S):
            await reloader._task
        assert [runner() is None for runner in runners] == [True, False]
        assert kept is not reloader.parts.app
        reloader.parts.close(timeout_s=PATIENCE_S)

    asyncio.run(main())


def test_a_load_that_goes_on_when_the_loop_ends_is_known_to_go_on() -> None:
    """The interpreter's own exit would end a thread within PyTorch, and the process with it."""
    loading, end = threading.Event(), threading.Event()

    def load(settings: Settings) -> tuple[Runner, ModelFacts]:
        loading.set()
        end.wait(PATIENCE_S)
        raise SettingsError("nobody waits for it")

    async def main() -> None:
        reloader = Reloader(SETTINGS, load, metrics=Metrics(), watch=EngineWatch(), draining=lambda: False)
        runner, facts = load_runner(SETTINGS)
        reloader.begin(runner, facts, warm_up(runner, Limits.of(SETTINGS, facts)))
        reloader.ask()
        task = reloader._task
        assert task
        await asyncio.to_thread(loading.wait, PATIENCE_S)
        task.cancel()
        await asyncio.wait([task])
        assert reloader.building
        end.set()
        reloader.ask()
        assert reloader._task
        await reloader._task
        assert not reloader.building
        reloader.parts.close(timeout_s=PATIENCE_S)

    asyncio.run(main())
