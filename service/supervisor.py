"""`packlight serve` in several processes: the parent, which starts the others, watches them, and stops them in order.

It serves nothing itself and loads no model: what it does is too little to go wrong. One engine process a device, as
many HTTP processes as are asked for, which share the port and feed every engine.
"""

import asyncio
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from service import logs
from service.child import module_command
from service.engine_keeper import CannotStart, EngineKeeper
from service.http_keeper import HttpKeeper
from service.limits import Limits, ModelFacts
from service.listening import bound
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
    with bound(settings.host, settings.port) as listening, _metrics_folder() as folder:
        # The children's: their metrics are files in this folder, which any of them can add up.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        return asyncio.run(_supervise(settings, listening, engine_command or module_command("service.engine_process")))


async def _supervise(settings: Settings, listening: socket.socket, engine_command: Sequence[str]) -> int:
    return await Supervisor(settings, listening, engine_command).run()


class Supervisor:
    """All processes of one server."""

    def __init__(self, settings: Settings, listening: socket.socket, engine_command: Sequence[str]) -> None:
        self._settings, self._listening = settings, listening
        self._secret = secrets.token_hex(16)
        self._common = {"parent": os.getpid(), "secret": self._secret}
        self._engines = [
            EngineKeeper(
                number, engine_command, self._engine_config(number, device), hang_after_s=settings.hang_after_s,
                on_up=self._engine_up, on_down=self._engine_down,
            )
            for number, device in enumerate(settings.device_list)
        ]  # fmt: skip
        self._http: list[HttpKeeper] = []
        self._signals = 0
        self._told_to_stop = asyncio.Event()

    async def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        stop = asyncio.create_task(self._told_to_stop.wait())
        keeping = [asyncio.create_task(engine.keep()) for engine in self._engines]
        try:
            facts = await _first(stop, [engine.facts for engine in self._engines], keeping)
            if facts:
                await self._serve(stop, ModelFacts.of_plain(facts[0]))
        except CannotStart as error:
            raise SettingsError(str(error)) from None
        finally:
            for task in (stop, *keeping):
                task.cancel()
            await asyncio.gather(stop, *keeping, return_exceptions=True)
            ended = await asyncio.gather(*(engine.end(within_s=_ENGINE_CLOSE_S) for engine in self._engines))
        return 0 if all(ended) else EXIT_FORCED

    async def _serve(self, stop: "asyncio.Task[Any]", model: ModelFacts) -> None:
        """From the moment the engines are ready to the moment the last HTTP process has ended."""
        Limits.settle(self._settings, model)
        if model.notice:
            _log.warning(model.notice)
        _log.info("%s on %s in %s, attention %s", model.name, model.device, model.dtype, model.attention)
        self._http = [
            HttpKeeper(
                module_command("service.http_process"), lambda number=number: self._http_config(number, model),  # type: ignore[misc]
                self._listening.fileno(),
            )
            for number in range(self._settings.http_workers)
        ]  # fmt: skip
        keeping = [asyncio.create_task(keeper.keep()) for keeper in self._http]
        try:
            addresses = await _first(stop, [keeper.listening for keeper in self._http], keeping)
            if addresses:
                _log.info("ready on %s", addresses[0])
                await asyncio.wait([stop, *keeping], return_when=asyncio.FIRST_COMPLETED)
            await self._drain(keeping)
        finally:
            for keeper in self._http:
                keeper.kill()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def _drain(self, keeping: "Sequence[asyncio.Task[None]]") -> None:
        """HTTP processes end by themselves once they have answered what they accepted; engines live on meanwhile."""
        _log.info("stopping: nothing new is let in, what was accepted is finished")
        # The last copy: from now on the port takes no connection.
        self._listening.close()
        for keeper in self._http:
            keeper.stop()
        await asyncio.wait(keeping, timeout=self._settings.drain_s + _LAST_WORDS_S)
        _log.info("stopped")

    def _signalled(self) -> None:
        """The first signal drains, the second ends everything at once."""
        self._signals += 1
        self._told_to_stop.set()
        if self._signals > 1:
            for worker in self._http:
                worker.kill()
            for engine in self._engines:
                engine.kill()
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

    def _http_config(self, number: int, model: ModelFacts) -> dict[str, Any]:
        addresses = [engine.address for engine in self._engines]
        return self._common | {
            "name": f"http-{number}",
            "settings": self._settings.for_child(with_keys=True),
            "model": asdict(model),
            "engines": addresses,
            "socket": self._listening.fileno(),
        }


async def _first(
    stop: "asyncio.Task[Any]", wanted: "Sequence[asyncio.Future[T]]", keeping: "Sequence[asyncio.Task[None]]"
) -> list[T]:
    """Waits for all that is wanted; empty if there is a signal before it. Raises what ended a keeper before it."""
    while not stop.done() and not all(future.done() for future in wanted):
        pending = [future for future in wanted if not future.done()]
        await asyncio.wait([stop, *pending, *keeping], return_when=asyncio.FIRST_COMPLETED)
        for task in keeping:
            if task.done():
                task.result()
    return [] if stop.done() else [future.result() for future in wanted]


@contextmanager
def _metrics_folder() -> Iterator[Path]:
    """An empty folder; those of servers that were killed before they could take theirs away are taken away too."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_METRICS_PREFIX}*"):
        pid = left.name.removeprefix(_METRICS_PREFIX)
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = root / f"{_METRICS_PREFIX}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
