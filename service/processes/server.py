"""`packlight serve` in one process: loads the model, starts the engine, listens, and on SIGTERM drains."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from model.memory import starting
from service import logs
from service.engine.under_way import EngineWatch
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.processes.listening import announce, bound, listen
from service.processes.reloading.hangup import on_hangup
from service.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner
    from service.http.protocol.server import Server
    from service.processes.reloading.thread import Reloader

# After draining the device has nothing to do, unless it hangs.
_CLOSE_S = 10.0
# How long a server that has lost its engine may take over its last answers.
_LAST_ANSWERS_S = 5.0

EXIT_FORCED = 1
EXIT_ENGINE_LOST = 3
EXIT_INTERRUPTED = 130

_log = logging.getLogger(__name__)


class _LossWatch(EngineWatch):
    """on_untrue: called by a thread of an engine whose canary has failed."""

    def __init__(self) -> None:
        self.engine_lost = threading.Event()
        self.on_untrue: Callable[[], object] = lambda: None

    def lost(self) -> None:
        self.engine_lost.set()

    def untrue(self, what: str) -> None:
        self.on_untrue()


def serve(settings: Settings, *, load: "Callable[[Settings], tuple[Runner, ModelFacts]]" = load_runner) -> int:
    """Serves until a signal and returns the exit status. Raises `ModelError` or `SettingsError` if it cannot start.

    Nothing can replace the engine thread of this process: if it dies, the process exits with `EXIT_ENGINE_LOST`. A
    model whose vectors are wrong is loaded again.
    """
    logs.configure(settings.log_format, settings.log_level)
    listening = bound(settings.host, settings.port)
    watch = _LossWatch()

    def draining() -> bool:
        return server.should_exit

    def stop() -> None:
        server.should_exit = True

    def on_listening(address: str) -> None:
        on_hangup(reloader.ask, stop)
        loop = asyncio.get_running_loop()
        watch.on_untrue = partial(loop.call_soon_threadsafe, reloader.ask)
        if reloader.parts.engine.trust.untrue is not None:  # before the loop ran
            reloader.ask()
        announce(_log, address)

    with starting():
        runner, model = load(settings)
        if model.card:
            _log.info("%s is described in %s", model.name, model.card)
        _log.info("%s", model.summary)
        limits = Limits.of(settings, model)
        with _left_at_once():
            thread = ThreadPoolExecutor(1)
            warming = thread.submit(warm_up, runner, limits)
            thread.shutdown(wait=False)
            # Loaded while the device works, which needs the interpreter only now and then.
            from service.assembly import new_metrics
            from service.http.protocol.server import Server, config_of
            from service.processes.reloading.thread import Reloader
            from service.tracing.switch import tracing_of

            cost = warming.result()
        # uvloop would not tell of an error of its own `listen`.
        listen(listening)
        metrics = new_metrics()
        tracing = tracing_of(settings, metrics)
        reloader = Reloader(settings, load, metrics=metrics, watch=watch, draining=draining, tracing=tracing)
        reloader.begin(runner, model, cost)
        # Its memory is free once another model has taken its place.
        del runner
        server = Server(config_of(reloader.versions, settings, metrics), on_listening=on_listening)
    threading.Thread(target=_exit_without_engine, args=(watch.engine_lost, server), daemon=True).start()
    server.run(sockets=[listening])
    if tracing:
        tracing.close()
    _close(reloader, lost=watch.engine_lost.is_set(), forced=server.force_exit)
    return 0


def _close(reloader: "Reloader", *, lost: bool, forced: bool) -> None:
    """Ends the engine, or the process at once if something would be waited for that nobody needs.

    lost: the engine's thread has died. forced: a second signal has come.
    """
    at_once = lost or forced
    if not reloader.parts.close(timeout_s=0 if at_once else _CLOSE_S) or at_once:
        # The interpreter's own exit would wait for a thread that is still in the device.
        logging.shutdown()
        os._exit(EXIT_ENGINE_LOST if lost else EXIT_FORCED)
    if reloader.building:
        # Nobody needs the model that a thread is loading.
        logging.shutdown()
        os._exit(0)


@contextmanager
def _left_at_once() -> Iterator[None]:
    """At Ctrl-C the process ends as any command does, but at once: the interpreter's own exit would wait for a thread
    that is in the device, perhaps for a minute."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("packlight: interrupted\n")
        logging.shutdown()
        os._exit(EXIT_INTERRUPTED)


def _exit_without_engine(engine_lost: threading.Event, server: "Server") -> None:
    """Stops the server once the engine is lost. Runs in a thread and logs nothing: both loop and log may be stuck."""
    engine_lost.wait()
    server.should_exit = True
    time.sleep(_LAST_ANSWERS_S)
    os._exit(EXIT_ENGINE_LOST)
