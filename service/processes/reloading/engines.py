"""The engine processes of one model, one a device."""

import asyncio
import os
from collections.abc import Callable, Sequence

from service.limits import ModelFacts
from service.processes.engine_keeper import CannotStart, EngineKeeper, differing
from service.processes.messages import EngineDown, EngineStatus, EngineUp, StartEngine
from service.settings.settings import Settings

# How long an engine may take to stop.
_CLOSE_S = 12.0


class Engines:
    """Made on the event loop of the parent. number: of the model, counted from the start of the server."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        command: Sequence[str],
        secret: str,
        tell: Callable[[EngineUp | EngineDown], None],
        *,
        untrue: str | None = None,
    ) -> None:
        """tell: every HTTP process. untrue: what was wrong with the vectors of an engine before these: each has to show
        first that it is right."""
        self.number, self._tell = number, tell
        self._keepers = [
            EngineKeeper(
                engine, command, _start(name, settings, device, secret), hang_after_s=settings.hang_after_s,
                untrue=untrue, on_up=self._up, on_down=self._down,
            )
            for engine, (name, device) in enumerate(
                zip(engine_names(settings, number), settings.device_list, strict=True)
            )
        ]  # fmt: skip
        self._keeping: list[asyncio.Task[None]] = []
        self._failed: Callable[[asyncio.Task[None]], None] | None = None

    async def start(self) -> ModelFacts:
        """Returns what they say of their model once all are ready. Raises `CannotStart`."""
        self._keeping = [asyncio.create_task(keeper.keep(), name=f"keep {keeper.name}") for keeper in self._keepers]
        while pending := [keeper.facts for keeper in self._keepers if not keeper.facts.done()]:
            waited: list[asyncio.Future[object]] = [*pending, *self._keeping]  # type: ignore[list-item]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for keeping in self._keeping:
                if keeping.done():
                    keeping.result()
        return _agreed([keeper.facts.result() for keeper in self._keepers])

    def on_failure(self, failed: "Callable[[asyncio.Task[None]], None]") -> None:
        """failed: called with a task that should not have ended, from now on."""
        self._failed = failed
        for keeping in self._keeping:
            keeping.add_done_callback(failed)

    @property
    def statuses(self) -> list[EngineStatus]:
        return [EngineStatus(keeper.address, keeper.backing_off, keeper.untrue) for keeper in self._keepers]

    def _up(self, engine: int, address: str) -> None:
        self._tell(EngineUp(self.number, engine, address))

    def _down(self, engine: int, names: Sequence[str], backing_off: bool, untrue: str | None) -> None:
        self._tell(EngineDown(self.number, engine, list(names), backing_off, untrue))

    def kill(self) -> None:
        for keeper in self._keepers:
            keeper.kill()

    async def end(self) -> bool:
        """False if one did not stop in time and in order."""
        for keeping in self._keeping:
            if self._failed:
                keeping.remove_done_callback(self._failed)
            keeping.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        return all(await asyncio.gather(*(keeper.end(within_s=_CLOSE_S) for keeper in self._keepers)))


def engine_names(settings: Settings, number: int) -> list[str]:
    """Names of a model's engines. Those of the next model have others, since both keep metrics meanwhile."""
    return [f"engine-{engine}{'b' * (number % 2)}" for engine in range(len(settings.device_list))]


def _start(name: str, settings: Settings, device: str, secret: str) -> StartEngine:
    return StartEngine(name, os.getpid(), secret, settings.for_child(with_keys=False) | {"devices": device})


def _agreed(facts: Sequence[ModelFacts]) -> ModelFacts:
    """What all engines say of their model. Raises `CannotStart` if a vector would depend on which engine made it."""
    for others in facts[1:]:
        if name := differing(facts[0], others):
            raise CannotStart(
                f"the engines have not the same {name}: name a dtype that all devices have (dtype, devices)"
            )
    return facts[0]
