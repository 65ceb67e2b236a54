"""`packlight serve` in several processes: the parent, which starts the others, watches them, and stops them in order.

It serves nothing itself and loads no model: what it does is too little to go wrong. One engine process a device, as
many HTTP processes as are asked for, which share the port and feed every engine.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from service import logs
from service.limits import Limits, ModelFacts
from service.processes.child import module_command
from service.processes.engine_keeper import CannotStart, EngineKeeper, differing
from service.processes.http_keeper import HttpKeeper
from service.processes.listening import bound, listen
from service.settings import Settings, SettingsError

EXIT_FORCED = 1

_METRICS_PREFIX = "packlight-metrics-"
# How long after `drain_s` HTTP processes are given to end, and engines after them.
_LAST_WORDS_S = 5.0
_ENGINE_CLOSE_S = 12.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


def supervise(settings: Settings, *, engine_command: Sequence[str] | None = None) -> int:
    """Serves until a signal and returns the exit status. Raises `SettingsError` if it cannot start."""
    logs.configure(settings.log_format, settings.log_level)
    command = engine_command or module_command("service.processes.engine_process")
    with bound(settings.host, settings.port) as listening, _metrics_folder() as folder:
        # The children's: their metrics are files in this folder, which any of them can add up.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)

        async def main() -> int:
            return await Supervisor(settings, listening, command, clean_up=partial(_remove, folder)).run()

        return asyncio.run(main())


class Supervisor:
    """All processes of one server. Made on the event loop that it is run on."""

    def __init__(
        self,
        settings: Settings,
        listening: socket.socket,
        engine_command: Sequence[str],
        *,
        clean_up: Callable[[], None],
    ) -> None:
        """clean_up: called where there is no time for an orderly end."""
        self._settings, self._listening, self._clean_up = settings, listening, clean_up
        self._common = {"parent": os.getpid(), "secret": secrets.token_hex(16)}
        self._engines = [
            EngineKeeper(
                number, engine_command, self._engine_config(number, device), hang_after_s=settings.hang_after_s,
                on_up=self._engine_up, on_down=self._engine_down,
            )
            for number, device in enumerate(settings.device_list)
        ]  # fmt: skip
        self._http: list[HttpKeeper] = []
        # Done at a signal; with the error where something that keeps a process running has failed.
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._signals = 0

    async def run(self) -> int:
        """Raises `SettingsError` for what could not start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        keeping = [self._kept(engine.keep()) for engine in self._engines]
        orderly = True
        try:
            facts = await self._unless_ending([engine.facts for engine in self._engines])
            if facts:
                await self._serve(_agreed(facts))
            if self._ending.done():
                self._ending.result()
        except CannotStart as error:
            raise SettingsError(str(error)) from None
        except SettingsError:
            raise
        except Exception:
            _log.critical("the server cannot keep its processes running", exc_info=True)
            orderly = False
        finally:
            await _cancelled(keeping)
            ended = await asyncio.gather(*(engine.end(within_s=_ENGINE_CLOSE_S) for engine in self._engines))
        return 0 if orderly and all(ended) else EXIT_FORCED

    async def _serve(self, model: ModelFacts) -> None:
        """From the moment the engines are ready to the moment the last HTTP process has ended."""
        Limits.of(self._settings, model)
        listen(self._listening)
        if model.card:
            _log.info("%s is described in %s", model.name, model.card)
        _log.info("%s on %s in %s, attention %s", model.name, model.device, model.dtype, model.attention)
        self._http = [
            HttpKeeper(
                name, module_command("service.processes.http_process"), partial(self._http_config, name, model),
                self._listening.fileno(),
            )
            for name in (f"http-{number}" for number in range(self._settings.http_workers))
        ]  # fmt: skip
        keeping = [self._kept(keeper.keep()) for keeper in self._http]
        try:
            addresses = await self._unless_ending([keeper.listening for keeper in self._http])
            if addresses:
                _log.info("ready on %s", addresses[0])
                await asyncio.wait([self._ending])
            await self._drain(keeping)
        finally:
            for keeper in self._http:
                keeper.kill()
            await _cancelled(keeping)

    async def _drain(self, keeping: "Sequence[asyncio.Task[None]]") -> None:
        """HTTP processes end by themselves once they have answered what they accepted; engines live on meanwhile."""
        _log.info("stopping: nothing new is let in, what was accepted is finished")
        # The last copy: from now on the port takes no connection.
        self._listening.close()
        for keeper in self._http:
            keeper.stop()
        await asyncio.wait(keeping, timeout=self._settings.drain_s + _LAST_WORDS_S)
        _log.info("stopped")

    def _kept(self, keeping: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(keeping)
        task.add_done_callback(self._keeper_ended)
        return task

    def _keeper_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) and not self._ending.done():
            self._ending.set_exception(error)

    async def _unless_ending(self, wanted: "Sequence[asyncio.Future[T]]") -> list[T]:
        """Waits for all that is wanted; empty if there was a signal before. Raises what ended a keeper before."""
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
            self._clean_up()
            logging.shutdown()
            os._exit(EXIT_FORCED)

    def _engine_up(self, number: int, address: str) -> None:
        self._tell_http({"engine": number, "address": address})

    def _engine_down(self, number: int, names: Sequence[str], backing_off: bool) -> None:
        self._tell_http({"engine": number, "address": None, "suspects": names, "backing_off": backing_off})

    def _tell_http(self, message: dict[str, Any]) -> None:
        for keeper in self._http:
            keeper.tell(message)

    def _engine_config(self, number: int, device: str) -> dict[str, Any]:
        settings = self._settings.for_child(with_keys=False) | {"devices": device}
        return self._common | {"name": f"engine-{number}", "settings": settings}

    def _http_config(self, name: str, model: ModelFacts) -> dict[str, Any]:
        return self._common | {
            "name": name,
            "settings": self._settings.for_child(with_keys=True),
            "model": asdict(model),
            "engines": [engine.address for engine in self._engines],
            "backing_off": [engine.backing_off for engine in self._engines],
            "socket": self._listening.fileno(),
        }


def _agreed(facts: Sequence[dict[str, Any]]) -> ModelFacts:
    """What all engines say of their model. Raises `CannotStart` where a vector would depend on who made it."""
    for others in facts[1:]:
        if name := differing(facts[0], others):
            raise CannotStart(
                f"the engines have not the same {name}: name a dtype that all devices have (dtype, devices)"
            )
    return ModelFacts.of_plain(facts[0])


async def _cancelled(tasks: "Sequence[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _metrics_folder() -> Iterator[Path]:
    """An empty folder; those of servers that were killed before they could take theirs away are taken away too.

    Who uses a folder holds a lock on it, which the system gives back however it ends. Raises `SettingsError`."""
    try:
        root = Path(tempfile.gettempdir())
        for left in root.glob(f"{_METRICS_PREFIX}*"):
            with suppress(OSError):
                os.close(_locked(left))
                _remove(left)
        folder = Path(tempfile.mkdtemp(prefix=f"{_METRICS_PREFIX}{os.getpid()}-"))
        lock = _locked(folder)
    except OSError as error:
        raise SettingsError(f"several processes need a temporary folder for their metrics (TMPDIR): {error}") from None
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock. Raises `OSError` where another process does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
