"""`packlight serve` in one process: loads the model, starts the engine, listens, and on SIGTERM drains."""

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from service import logs
from service.assembly import Assembly
from service.engine.under_way import EngineWatch
from service.http.protocol.connection import bounded_protocol
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.metrics import Metrics
from service.processes.listening import announce, bound, listen
from service.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner

# Longer than the idle timeout of common load balancers, so that they close first and never write into a closed socket.
_KEEP_ALIVE_S = 75
# After draining the device has nothing to do, unless it hangs.
_CLOSE_S = 10.0
# Net allocations before the youngest objects are collected; Python's default is 700. Every tenth time older ones are
# collected too, as by default. Collections walk all queued images again and again: with 10,000 in the queue an image
# cost 2.1 to 2.6 times what it costs with 300, and 1.0 to 1.2 times with this (`python -m loadtest.bench scale`).
_YOUNG_ALLOCATIONS = 10_000
# How long a server that has lost its engine may take over its last answers.
_LAST_ANSWERS_S = 5.0

EXIT_FORCED = 1
EXIT_ENGINE_LOST = 3

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, except that the first signal drains and exits with 0, and the second ends at once."""

    def __init__(self, config: uvicorn.Config, *, on_listening: Callable[[str], None] = lambda address: None) -> None:
        """on_listening: called on the event loop with the server's URL, once connections are taken."""
        super().__init__(config)
        self._on_listening = on_listening

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        tune_garbage_collector()
        await super().startup(sockets=sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                self._on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("stopping: new requests are refused, accepted ones finish")
        await super().shutdown(sockets=sockets)
        _log.info("stopped")


class _LossWatch(EngineWatch):
    def __init__(self) -> None:
        self.engine_lost = threading.Event()

    def lost(self) -> None:
        self.engine_lost.set()


def serve(settings: Settings, *, load: "Callable[[Settings], tuple[Runner, ModelFacts]]" = load_runner) -> int:
    """Serves until a signal and returns the exit status. Raises `ModelError` or `SettingsError` if it cannot start.

    Nothing can replace the engine thread of this process: if it dies, the process exits with `EXIT_ENGINE_LOST`.
    """
    logs.configure(settings.log_format, settings.log_level)
    listening = bound(settings.host, settings.port)
    runner, model = load(settings)
    if model.card:
        _log.info("%s is described in %s", model.name, model.card)
    _log.info("%s", model.summary)
    cost = warm_up(runner, Limits.of(settings, model))
    # uvloop would not tell of an error of its own `listen`.
    listen(listening)
    watch = _LossWatch()

    def draining() -> bool:
        return server.should_exit

    parts = Assembly.of(settings, runner, model, cost=cost, watch=watch, draining=draining)
    config = config_of(parts.app, settings, parts.metrics)
    server = Server(config, on_listening=lambda address: announce(_log, address))
    threading.Thread(target=_exit_without_engine, args=(watch.engine_lost, server), daemon=True).start()
    server.run(sockets=[listening])
    forced = watch.engine_lost.is_set() or server.force_exit
    if not parts.close(timeout_s=0 if forced else _CLOSE_S) or forced:
        # The interpreter's own exit would wait for a thread that is still in the device.
        logging.shutdown()
        os._exit(EXIT_ENGINE_LOST if watch.engine_lost.is_set() else EXIT_FORCED)
    return 0


def _exit_without_engine(engine_lost: threading.Event, server: Server) -> None:
    """Stops the server once the engine is lost. Runs in a thread and logs nothing: both loop and log may be stuck."""
    engine_lost.wait()
    server.should_exit = True
    time.sleep(_LAST_ANSWERS_S)
    os._exit(EXIT_ENGINE_LOST)


def tune_garbage_collector() -> None:
    """Exempts all objects made until now from collection: walking them held the loop for 110 ms at a time.

    What a request holds never waits for the collector: see `errors.let_go`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_ALLOCATIONS, 10, 10)


def config_of(app: ASGIApp, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        # One more process reads headers.
        http=bounded_protocol(settings.max_connections, metrics.refuse, processes=settings.decode_threads + 1),
        ws="none",
        # Nothing here uses the client's address.
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )
