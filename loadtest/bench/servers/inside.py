"""A server in a child process that measures itself: where its processor time goes.

The real application runs under uvicorn with an engine thread, as `packlight serve` starts it. It reports the processor
time of each kind of thread. In a separate run, a profiler divides the event loop's time among packages.
"""

import asyncio
import cProfile
import os
import pstats
import re
import sys
import threading
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any, Self

import uvloop

from loadtest.bench.servers.aside import Aside
from loadtest.bench.servers.processes import threads_cpu_s
from service import logs
from service.engine.device import device_of
from service.engine.engine import Engine
from service.http.app import create_app
from service.http.protocol.server import Server, config_of
from service.limits import Limits
from service.loading import load_runner, warm_up
from service.metrics import Metrics
from service.requests.decoder import Decoder
from service.settings.settings import Settings

_PACKAGE = re.compile(
    r"(?:site-packages/|lib/python3\.\d+/(?!site-packages))(?P<library>\w+)|/(?P<ours>service|model)/"
)


class ServerInside(Aside):
    """A child process that serves and measures itself. Use as a context manager."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(_serve, settings)

    def __enter__(self) -> Self:
        super().__enter__()
        self.port = int(self.told())
        return self

    def threads_cpu_s(self) -> dict[str, float]:
        """Processor seconds so far of each kind of thread: `loop`, `engine`, `decode`, `header`, `torch`."""
        spent: dict[str, float] = self.ask("threads")
        return spent

    def start_profile(self) -> None:
        self.ask("start")

    def stop_profile(self) -> dict[str, float]:
        """Each package's share of the loop's time, the largest first."""
        shares: dict[str, float] = self.ask("stop")
        return shares


def _serve(end: "Connection[object, object]", given: dict[str, Any]) -> None:
    # Log lines are written, as in a server, and thrown away.
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    uvloop.run(_main(end, Settings(**given)))


async def _main(end: "Connection[object, object]", settings: Settings) -> None:
    logs.configure(settings.log_format, settings.log_level)
    runner, model = load_runner(settings)
    limits = Limits.of(settings, model)
    cost = warm_up(runner, limits)
    metrics = Metrics()
    engine = Engine(device_of(runner), model, limits, metrics=metrics, cost=cost)
    decoder = Decoder.of(settings, model.geometry)
    server = Server(config_of(create_app(settings, engine, decoder, metrics), settings, metrics))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    end.send(server.servers[0].sockets[0].getsockname()[1])
    await asyncio.wait([serving, asyncio.create_task(_answer(end))], return_when=asyncio.FIRST_COMPLETED)


async def _answer(end: "Connection[object, object]") -> None:
    profile = cProfile.Profile()
    while True:
        asked = await asyncio.to_thread(end.recv)
        if asked == "threads":
            end.send(_by_kind())
        elif asked == "start":
            # It profiles this thread only, which runs the loop.
            profile.enable()
            end.send({})
        else:
            profile.disable()
            end.send(_by_package(profile))


def _by_kind() -> dict[str, float]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    spent: Counter[str] = Counter()
    for thread, seconds in threads_cpu_s().items():
        name = names.get(thread, "torch").partition("_")[0]
        spent["loop" if name == "MainThread" else name] += seconds  # type: ignore[assignment]
    return dict(spent)


def _by_package(profile: cProfile.Profile) -> dict[str, float]:
    """Each package's share of time in its own functions, without those that they call. Built-ins count by name.

    The time is wall time, so a call that releases the interpreter's lock, as writing does, includes the wait for it.
    """
    spent: Counter[str] = Counter()
    for (path, _, name), (_, _, own_s, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        found = _PACKAGE.search(path)
        package = (found["library"] or found["ours"]) if found else name if path == "~" else path
        spent[package] += own_s
    # Waiting is not work.
    waiting = [name for name in spent if "epoll" in name or "_asyncio.Future" in name]
    for name in waiting:
        del spent[name]
    whole = spent.total()
    return {name: own_s / whole for name, own_s in spent.most_common()}
