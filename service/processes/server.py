"""`packlight serve` in one process: loads the model, starts the engine, listens, and on SIGTERM drains."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from model import threads
from model.kernels.hardware import usable_cores
from model.memory import starting
from service import logs
from service.engine.cost.fit import CostModel
from service.engine.under_way import EngineWatch
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.processes.listening import announce, bound, listen
from service.processes.reloading.hangup import on_hangup
from service.settings.settings import Settings
from service.watching.exits import EXIT_FORCED, EXIT_INTERRUPTED, EXIT_LOST
from service.watching.watchdog import LAST_ANSWERS_S, Watchdog, lasting

if TYPE_CHECKING:
    from model.running.runner import Runner
    from service.processes.reloading.thread import Reloader

    Load = Callable[[Settings], tuple[Runner, ModelFacts]]

# After draining the device has nothing to do, unless it hangs.
_CLOSE_S = 10.0

# Nothing here needs them before the model is there.
_OF_HTTP = ("service.http.protocol.server", "service.processes.reloading.thread", "service.tracing.switch")

_log = logging.getLogger(__name__)


class _LossWatch(EngineWatch):
    """on_untrue: called by a thread of an engine whose canary has failed."""

    def __init__(self) -> None:
        self.engine_lost = threading.Event()
        self.on_untrue: Callable[[], object] = lambda: None

    def begin(self, reloader: "Reloader") -> None:
        """From now on a device that is found untrue is loaded again. Called by the event loop."""
        self.on_untrue = partial(asyncio.get_running_loop().call_soon_threadsafe, reloader.ask)
        if reloader.parts.engine.trust.untrue is not None:  # before the loop ran
            reloader.ask()

    def lost(self) -> None:
        self.engine_lost.set()

    def untrue(self, what: str) -> None:
        # Nobody waits on a loop that has closed.
        with suppress(RuntimeError):
            self.on_untrue()

    def check(self) -> str | None:
        return "the engine thread has died" if self.engine_lost.is_set() else None


def serve(settings: Settings, *, load: "Load" = load_runner) -> int:
    """Serves until a signal and returns the exit status. Raises `ModelError` or `SettingsError` if it cannot start.

    If a thread dies or hangs, the process exits with `EXIT_LOST`. A model whose vectors are wrong is loaded again."""
    logs.configure(settings.log_format, settings.log_level)
    listening = bound(settings.host, settings.port)
    watch = _LossWatch()

    def draining() -> bool:
        return server.should_exit

    def end() -> None:
        server.stop()
        time.sleep(LAST_ANSWERS_S)
        logs.leave(EXIT_LOST)

    def on_listening(address: str) -> None:
        watchdog.begin()
        on_hangup(reloader.ask, server.stop)
        watch.begin(reloader)
        announce(_log, address)

    with starting(usable_cores()):
        runner, model = _loaded(settings, load)
        cost = _warmed_up(runner, Limits.of(settings, model))
        from service.assembly import new_metrics
        from service.http.protocol.liveness import Liveness
        from service.http.protocol.server import Server, config_of
        from service.processes.reloading.thread import Reloader
        from service.tracing.switch import tracing_of

        # uvloop would not tell of an error of its own `listen`.
        listen(listening)
        metrics = new_metrics()
        logs.count_lost(metrics.log_lines_lost.inc)
        tracing = tracing_of(settings, metrics)
        reloader = Reloader(settings, load, metrics=metrics, watch=watch, draining=draining, tracing=tracing)
        reloader.begin(runner, model, cost)
        # Its memory is free once another model has taken its place.
        del runner
        late = lasting(lambda: reloader.parts.engine.fault, settings.hang_after_s)
        watchdog = Watchdog(end, hang_after_s=settings.hang_after_s, checks=[(watch.check, end), (late, end)])
        app = Liveness(reloader.versions, lambda: watchdog.fault)
        server = Server(config_of(app, settings, metrics), on_listening=on_listening)
    lost = not server.ran([listening])
    watchdog.close()
    if tracing:
        tracing.close()
    _close(reloader, lost=lost or watch.engine_lost.is_set() or bool(watchdog.fault), forced=server.force_exit)
    return 0


def _loaded(settings: Settings, load: "Load") -> "tuple[Runner, ModelFacts]":
    runner, model = load(settings)
    if model.card:
        _log.info("%s is described in %s", model.name, model.card)
    _log.info("%s", model.summary)
    return runner, model


def _warmed_up(runner: "Runner", limits: Limits) -> CostModel:
    """Meanwhile loads what serves HTTP: a device that works needs the interpreter only now and then."""
    with _left_at_once():
        thread = threads.ThreadPool(1, "warm-up")
        warming = thread.submit(warm_up, runner, limits)
        thread.shutdown(wait=False)
        for name in _OF_HTTP:
            import_module(name)
        return warming.result()


def _close(reloader: "Reloader", *, lost: bool, forced: bool) -> None:
    """Ends the engine, or the process at once if something would be waited for that nobody needs.

    lost: something has died that nothing here replaces. forced: a second signal has come.
    """
    at_once = lost or forced
    if not reloader.parts.close(timeout_s=0 if at_once else _CLOSE_S) or at_once:
        # The interpreter's own exit would wait for a thread that is still in the device.
        logs.leave(EXIT_LOST if lost else EXIT_FORCED)
    if reloader.building:
        # Nobody needs the model that a thread is loading.
        logs.leave(0)


@contextmanager
def _left_at_once() -> Iterator[None]:
    """At Ctrl-C the process ends as any command does, but at once: the interpreter's own exit would wait for a thread
    that is in the device, perhaps for a minute. A handler, as while it serves: without one, a process that a script
    has started in the background would ignore the signal.
    """
    before = signal.signal(signal.SIGINT, _leave_interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_interrupted(number: int, frame: object) -> None:
    logs.flush()
    os.write(sys.stderr.fileno(), b"packlight: interrupted\n")
    logs.leave(EXIT_INTERRUPTED)
