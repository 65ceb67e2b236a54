"""`packlight serve` in several processes: the parent, which starts the others, watches them, and stops them in order.

One engine process a device, and as many HTTP processes as the settings say, which share the port and feed every engine.
The parent serves nothing and loads no model: it does too little to go wrong.
"""

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from model import threads
from model.child_process import module_command
from service import logs
from service.limits import Limits, ModelFacts
from service.processes.engine_keeper import CannotStart
from service.processes.http_keeper import HttpKeeper
from service.processes.listening import announce, bound, listen
from service.processes.messages import Alive, EngineDown, EngineUp, Reloaded, ServeModel, StartHttp
from service.processes.metrics_folder import MetricsFolder, metrics_folder
from service.processes.reloading.engines import Engines, engine_names
from service.processes.reloading.hangup import on_hangup
from service.settings.names import SettingsError
from service.settings.settings import Settings
from service.watching.exits import EXIT_FORCED
from service.watching.tasks import how_failed, name_main

# How long after `drain_s` HTTP processes have to end.
_LAST_WORDS_S = 5.0
# How often the parent looks at what it keeps, and says that it is alive.
_LOOK_S = 1.0
# A server without any engine for this long, and for so many times as its engines took to start, ends, to be started
# again: a container may then find its device again.
_NO_ENGINE_S = 300.0
_STARTS = 3.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class CannotGoOn(Exception):
    """Something that the server needs is gone, and nothing replaces it. The message says what and why."""


def supervise(settings: Settings, *, engine_command: Sequence[str] | None = None, platform: str = sys.platform) -> int:
    """Serves until a signal and returns the exit status. Raises `SettingsError` if it cannot start."""
    if platform != "linux":
        raise SettingsError(
            "engine=process, and with it several http_workers or devices, needs the abstract sockets of Linux: set "
            "engine (PACKLIGHT_ENGINE, --engine) to thread"
        )
    logs.configure(settings.log_format, settings.log_level)
    command = engine_command or module_command("service.processes.engine_process")
    with (
        bound(settings.host, settings.port) as listening,
        metrics_folder([*engine_names(settings, 0), *engine_names(settings, 1), *_http_names(settings)]) as folder,
    ):
        # Read by the children when they import the metrics library.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)

        # Otherwise a thread waits for each child, and what it waits for is never noticed if it ends.
        _wait_without_threads()

        async def main() -> int:
            return await Supervisor(settings, listening, command, folder).run()

        return asyncio.run(main())


class Supervisor:
    """All processes of one server. Made on the event loop that runs it."""

    def __init__(
        self, settings: Settings, listening: socket.socket, engine_command: Sequence[str], folder: MetricsFolder
    ) -> None:
        self._settings, self._listening, self._folder = settings, listening, folder
        self._command, self._secret = engine_command, secrets.token_hex(16)
        self._engines = self._new_engines(0)
        # With those of a model that is loaded, or was served before.
        self._all_engines = [self._engines]
        command = module_command("service.processes.http_process")
        self._http = [
            HttpKeeper(
                name,
                command,
                partial(self._start_of_http, name),
                listening.fileno(),
                hang_after_s=settings.hang_after_s,
            )
            for name in _http_names(settings)
        ]
        self._model: ModelFacts | None = None
        self._no_engine_s = _NO_ENGINE_S
        self._reload_wanted = False
        self._reloading: asyncio.Task[None] | None = None
        # Done at a signal; holds the error if a task that keeps the server running has failed.
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._signals = 0

    async def run(self) -> int:
        """Raises `SettingsError` if the server cannot start."""
        name_main()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        # Apart from the watch, whose end is followed by a drain: until the end of that, HTTP processes listen for it.
        keeping = [self._kept(self._watch(), "watch"), self._kept(self._beat(), "heartbeat")]
        clock_s = asyncio.get_running_loop().time
        began_s = clock_s()
        starting = asyncio.create_task(self._engines.start(), name="start of engines")
        serving = [self._kept(keeper.keep(), f"keep {keeper.name}") for keeper in self._http]
        orderly = False
        try:
            facts = await self._unless_ending([starting])
            if facts:
                self._no_engine_s = max(_NO_ENGINE_S, _STARTS * (clock_s() - began_s))
                self._engines.on_failure(self._keeper_ended)
                await self._serve(facts[0], serving)
            if self._ending.done():
                self._ending.result()
            orderly = True
        except CannotStart as error:
            raise SettingsError(str(error)) from None
        except SettingsError:
            raise
        except CannotGoOn as error:
            _log.critical("%s: the server ends, to be started again", error)
        except asyncio.CancelledError:
            _log.critical("the main task was cancelled: the server ends, to be started again")
        except Exception:
            _log.critical("the server cannot keep its processes running", exc_info=True)
        finally:
            # From here on, tasks may end.
            self._ending.cancel()
            for keeper in self._http:
                keeper.kill()
            await _cancelled([*serving, *keeping, starting, *([self._reloading] if self._reloading else [])])
            await asyncio.gather(*(keeper.end() for keeper in self._http))
            ended = await asyncio.gather(*(engines.end() for engines in self._all_engines))
        return 0 if orderly and all(ended) else EXIT_FORCED

    async def _serve(self, model: ModelFacts, serving: "Sequence[asyncio.Task[None]]") -> None:
        """From the time when the engines are ready until the last HTTP process has ended. serving: what keeps those."""
        Limits.of(self._settings, model)
        self._model = model
        listen(self._listening)
        if model.card:
            _log.info("%s is described in %s", model.name, model.card)
        _log.info("%s", model.summary)
        for keeper in self._http:
            keeper.begin()
        addresses = await self._unless_ending([keeper.listening for keeper in self._http])
        if addresses:
            on_hangup(self._ask_reload, self._signalled)
            announce(_log, addresses[0])
            await asyncio.wait([self._ending])
        await self._drain(serving)

    async def _drain(self, keeping: "Sequence[asyncio.Task[None]]") -> None:
        """HTTP processes end by themselves once they have answered what they accepted; engines live on meanwhile."""
        if why := self._ending.exception():
            _log.critical("the server must end: %s", why)
        _log.info("stopping: new requests are refused, accepted ones finish")
        # HTTP processes close their copies of the socket when they stop: then the port takes no connection.
        self._listening.close()
        for keeper in self._http:
            keeper.stop()
        await asyncio.wait(keeping, timeout=self._settings.drain_s + _LAST_WORDS_S)
        _log.info("stopped")

    def _ask_reload(self) -> None:
        """Loads the model again. If one is being loaded, once more afterwards."""
        self._reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = self._kept(self._reload(), "reload")

    async def _reload(self) -> None:
        while self._reload_wanted:
            self._reload_wanted = False
            outcome: Literal["done", "failed"] = "done" if await self._replace_engines() else "failed"
            self._http[0].tell(Reloaded(outcome))

    async def _replace_engines(self) -> bool:
        """False if the model cannot be served: that before it stays."""
        assert self._model
        _log.info("loading %s again; the model that is served goes on meanwhile", self._settings.model)
        before, served = self._engines, self._model
        untrue = next((engine.untrue for engine in before.statuses if engine.untrue), None)
        engines = self._new_engines(before.number + 1, untrue=untrue)
        self._all_engines.append(engines)
        try:
            model = await engines.start()
            Limits.of(self._settings, model)
        except (CannotStart, SettingsError) as error:
            _log.error("the reload has failed, and %s is served as before: %s", served.fingerprint, error)
            await self._ended(engines)
            return False
        engines.on_failure(self._keeper_ended)
        self._engines, self._model = engines, model
        _log.info("serving %s in place of %s", model.fingerprint, served.fingerprint)
        self._tell_http(self._served())
        await asyncio.gather(*(keeper.moved(engines.number) for keeper in self._http))
        await self._ended(before)
        return True

    async def _ended(self, engines: Engines) -> None:
        await engines.end()
        self._all_engines.remove(engines)
        self._folder.forget_gauges(engine_names(self._settings, engines.number))

    async def _watch(self) -> None:
        looks_without = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            if ended := threads.lost():
                raise CannotGoOn(f"the thread {ended[0]} has ended")
            if not self._folder.is_whole():
                # No process could be started again, and `/metrics` fails.
                raise CannotGoOn(
                    f"{self._folder.path} (TMPDIR), where the processes keep their metrics, has lost files"
                )
            up = self._model is None or any(engine.address for engine in self._engines.statuses)
            looks_without = 0 if up else looks_without + 1
            if looks_without * _LOOK_S > self._no_engine_s:
                raise CannotGoOn(f"no engine has come back for {self._no_engine_s:.0f} s")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._tell_http(Alive(time.monotonic()))

    def _kept(self, keeping: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(keeping, name=name)
        task.add_done_callback(self._keeper_ended)
        return task

    def _keeper_ended(self, task: "asyncio.Task[None]") -> None:
        if self._ending.done():
            return
        if task.cancelled():
            self._ending.set_exception(CannotGoOn(how_failed(task)))
        elif error := task.exception():
            self._ending.set_exception(error)

    async def _unless_ending(self, wanted: "Sequence[asyncio.Future[T]]") -> list[T]:
        """Waits for all that is wanted. Empty if a signal comes first; raises the error that ends the server first."""
        while not self._ending.done() and (pending := [future for future in wanted if not future.done()]):
            futures: list[asyncio.Future[Any]] = [self._ending, *pending]
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if self._ending.done():
            self._ending.result()
            return []
        for future in wanted:
            if future.cancelled() and isinstance(future, asyncio.Task):
                raise CannotGoOn(how_failed(future))
        return [future.result() for future in wanted]

    def _signalled(self) -> None:
        """The first signal drains, the second ends everything at once."""
        self._signals += 1
        if not self._ending.done():
            self._ending.set_result(None)
        if self._signals > 1:
            for worker in self._http:
                worker.kill()
            for engines in self._all_engines:
                engines.kill()
            self._folder.remove()
            logs.leave(EXIT_FORCED)

    def _new_engines(self, number: int, *, untrue: str | None = None) -> Engines:
        return Engines(number, self._settings, self._command, self._secret, self._tell_http, untrue=untrue)

    def _tell_http(self, message: ServeModel | EngineUp | EngineDown | Alive) -> None:
        for keeper in self._http:
            keeper.tell(message)

    def _served(self) -> ServeModel:
        assert self._model is not None, "HTTP processes begin once the model is known"
        return ServeModel(self._engines.number, self._model, self._engines.statuses)

    def _start_of_http(self, name: str) -> StartHttp:
        return StartHttp(
            name, os.getpid(), self._secret, self._settings.for_child(with_keys=True), self._served(),
            listening_fd=self._listening.fileno(),
        )  # fmt: skip


def _wait_without_threads() -> None:
    """As asyncio does by itself from Python 3.12 on, where the kernel can tell of the end of a process."""
    if sys.version_info >= (3, 12):
        return
    with suppress(OSError):
        os.close(os.pidfd_open(os.getpid()))
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def _http_names(settings: Settings) -> list[str]:
    return [f"http-{number}" for number in range(settings.http_workers)]


async def _cancelled(tasks: "Sequence[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
