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
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from model.child_process import module_command
from service import logs
from service.limits import Limits, ModelFacts
from service.processes.engine_keeper import CannotStart, EngineKeeper, differing
from service.processes.http_keeper import HttpKeeper
from service.processes.listening import announce, bound, listen
from service.processes.messages import EngineDown, EngineStatus, EngineUp, StartEngine, StartHttp
from service.processes.metrics_folder import MetricsFolder, metrics_folder
from service.settings import Settings, SettingsError

EXIT_FORCED = 1

# How long after `drain_s` HTTP processes have to end, and engines after them.
_LAST_WORDS_S = 5.0
_ENGINE_CLOSE_S = 12.0
_FOLDER_CHECK_S = 1.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class MetricsLost(Exception):
    """The metrics folder is gone: no process could be started again, and `/metrics` fails."""


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
        metrics_folder([*_engine_names(settings), *_http_names(settings)]) as folder,
    ):
        # Read by the children when they import the metrics library.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)

        async def main() -> int:
            return await Supervisor(settings, listening, command, folder).run()

        return asyncio.run(main())


class Supervisor:
    """All processes of one server. Made on the event loop that runs it."""

    def __init__(
        self, settings: Settings, listening: socket.socket, engine_command: Sequence[str], folder: MetricsFolder
    ) -> None:
        self._settings, self._listening, self._folder = settings, listening, folder
        self._secret = secrets.token_hex(16)
        self._engines = [
            EngineKeeper(
                number, engine_command, self._start_of_engine(name, device), hang_after_s=settings.hang_after_s,
                on_up=self._engine_up, on_down=self._engine_down,
            )
            for number, (name, device) in enumerate(zip(_engine_names(settings), settings.device_list, strict=True))
        ]  # fmt: skip
        command = module_command("service.processes.http_process")
        self._http = [
            HttpKeeper(name, command, partial(self._start_of_http, name), listening.fileno())
            for name in _http_names(settings)
        ]
        self._model: ModelFacts | None = None
        # Done at a signal; holds the error if a task that keeps the server running has failed.
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._signals = 0

    async def run(self) -> int:
        """Raises `SettingsError` if the server cannot start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        keeping = [self._kept(self._watch_folder()), *(self._kept(engine.keep()) for engine in self._engines)]
        serving = [self._kept(keeper.keep()) for keeper in self._http]
        orderly = False
        try:
            facts = await self._unless_ending([engine.facts for engine in self._engines])
            if facts:
                await self._serve(_agreed(facts), serving)
            if self._ending.done():
                self._ending.result()
            orderly = True
        except CannotStart as error:
            raise SettingsError(str(error)) from None
        except SettingsError:
            raise
        except MetricsLost:
            _log.critical(
                "%s (TMPDIR), where the processes keep their metrics, has lost files: the server ends, to be started "
                "again", self._folder.path,
            )  # fmt: skip
        except Exception:
            _log.critical("the server cannot keep its processes running", exc_info=True)
        finally:
            for keeper in self._http:
                keeper.kill()
            await _cancelled([*serving, *keeping])
            ended = await asyncio.gather(*(engine.end(within_s=_ENGINE_CLOSE_S) for engine in self._engines))
        return 0 if orderly and all(ended) else EXIT_FORCED

    async def _serve(self, model: ModelFacts, serving: "Sequence[asyncio.Task[None]]") -> None:
        """From the time when the engines are ready until the last HTTP process has ended. serving: what keeps those."""
        self._model = model
        Limits.of(self._settings, model)
        listen(self._listening)
        if model.card:
            _log.info("%s is described in %s", model.name, model.card)
        _log.info("%s", model.summary)
        for keeper in self._http:
            keeper.begin()
        addresses = await self._unless_ending([keeper.listening for keeper in self._http])
        if addresses:
            announce(_log, addresses[0])
            await asyncio.wait([self._ending])
        await self._drain(serving)

    async def _drain(self, keeping: "Sequence[asyncio.Task[None]]") -> None:
        """HTTP processes end by themselves once they have answered what they accepted; engines live on meanwhile."""
        _log.info("stopping: new requests are refused, accepted ones finish")
        # HTTP processes close their copies of the socket when they stop: then the port takes no connection.
        self._listening.close()
        for keeper in self._http:
            keeper.stop()
        await asyncio.wait(keeping, timeout=self._settings.drain_s + _LAST_WORDS_S)
        _log.info("stopped")

    async def _watch_folder(self) -> None:
        while True:
            await asyncio.sleep(_FOLDER_CHECK_S)
            if not self._folder.is_whole():
                raise MetricsLost

    def _kept(self, keeping: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(keeping)
        task.add_done_callback(self._keeper_ended)
        return task

    def _keeper_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) and not self._ending.done():
            self._ending.set_exception(error)

    async def _unless_ending(self, wanted: "Sequence[asyncio.Future[T]]") -> list[T]:
        """Waits for all that is wanted. Empty if a signal comes first; raises the error that ends the server first."""
        while not self._ending.done() and (pending := [future for future in wanted if not future.done()]):
            futures: list[asyncio.Future[Any]] = [self._ending, *pending]
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if self._ending.done():
            self._ending.result()
            return []
        return [future.result() for future in wanted]

    def _signalled(self) -> None:
        """The first signal drains, the second ends everything at once."""
        self._signals += 1
        if not self._ending.done():
            self._ending.set_result(None)
        if self._signals > 1:
            for worker in self._http:
                worker.kill()
            for engine in self._engines:
                engine.kill()
            self._folder.remove()
            logging.shutdown()
            os._exit(EXIT_FORCED)

    def _engine_up(self, number: int, address: str) -> None:
        self._tell_http(EngineUp(number, address))

    def _engine_down(self, number: int, names: Sequence[str], backing_off: bool) -> None:
        self._tell_http(EngineDown(number, list(names), backing_off))

    def _tell_http(self, message: EngineUp | EngineDown) -> None:
        for keeper in self._http:
            keeper.tell(message)

    def _start_of_engine(self, name: str, device: str) -> StartEngine:
        settings = self._settings.for_child(with_keys=False) | {"devices": device}
        return StartEngine(name, os.getpid(), self._secret, settings)

    def _start_of_http(self, name: str) -> StartHttp:
        assert self._model is not None, "HTTP processes begin once the model is known"
        return StartHttp(
            name, os.getpid(), self._secret, self._settings.for_child(with_keys=True), self._model,
            engines=[EngineStatus(engine.address, engine.backing_off) for engine in self._engines],
            listening_fd=self._listening.fileno(),
        )  # fmt: skip


def _engine_names(settings: Settings) -> list[str]:
    return [f"engine-{number}" for number in range(len(settings.device_list))]


def _http_names(settings: Settings) -> list[str]:
    return [f"http-{number}" for number in range(settings.http_workers)]


def _agreed(facts: Sequence[ModelFacts]) -> ModelFacts:
    """What all engines say of their model. Raises `CannotStart` if a vector would depend on which engine made it."""
    for others in facts[1:]:
        if name := differing(facts[0], others):
            raise CannotStart(
                f"the engines have not the same {name}: name a dtype that all devices have (dtype, devices)"
            )
    return facts[0]


async def _cancelled(tasks: "Sequence[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
