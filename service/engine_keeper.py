"""Keeps one engine process running: starts it, watches it, and starts it again when it dies or hangs."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.child import Child
from service.restarts import Restarts

# A pack may take this many times as long as was predicted.
_PATIENCE = 10.0

# Never less: after a pause of its own the parent first reads what was said during it.
_GRACE_S = 1.0

_log = logging.getLogger(__name__)


class CannotStart(Exception):
    """A process ended before it was ready for the first time. The message is its reason."""


@dataclass(slots=True)
class _Life:
    """What is known of an engine from its start to its end. names: of the images of the pack it is at."""

    useful: bool = False
    cause: str = "died"
    names: Sequence[str] = field(default_factory=list)


class EngineKeeper:
    """One device's engine, through all its lives."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        config: dict[str, Any],
        *,
        hang_after_s: float,
        on_up: Callable[[int, str], None],
        on_down: Callable[[int, Sequence[str], bool], None],
    ) -> None:
        """on_up: told the engine's number and address. on_down: the names that were in its pack, and whether it takes a
        while until the next start."""
        self._number, self._command, self._config, self._hang_after_s = number, command, config, hang_after_s
        self._on_up, self._on_down = on_up, on_down
        self._child: Child | None = None
        # The first start may fetch a model; later ones should take about as long as it did.
        self._start_patience_s: float | None = None
        self.facts: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.address: str | None = None

    async def keep(self) -> None:
        """For ever, until cancelled. Raises `CannotStart` where it never was ready."""
        restarts, cause = Restarts(), None
        while True:
            life = await self._live(cause)
            delay_s, cause = restarts.delay_s(was_useful=life.useful), life.cause
            if self.address is not None:
                self.address = None
                self._on_down(self._number, life.names, delay_s > 0)
            _log.log(
                logging.ERROR, "%s: %d images were in its pack; starting it again %s", self._config["name"],
                len(life.names), f"in {delay_s:g} s" if delay_s else "at once",
            )  # fmt: skip
            await asyncio.sleep(delay_s)

    async def _live(self, replaces: str | None) -> _Life:
        """From one start to the end that follows."""
        began_s = _now_s()
        self._child = child = await Child.spawn(
            self._config["name"], self._command, self._config | {"replaces": replaces}
        )
        life = _Life()
        ready = await self._within(child, self._start_patience_s, life)
        if ready is not None and "ready" in ready:
            took_s = _now_s() - began_s
            self._start_patience_s = max(self._hang_after_s, _PATIENCE * took_s)
            self.address = ready["address"]
            if not self.facts.done():
                self.facts.set_result(ready["ready"])
            _log.info("%s (pid %d) is ready after %.1f s", child.name, child.pid, took_s)
            self._on_up(self._number, ready["address"])
            await self._watch(child, life)
        reason = await child.ended()
        if not self.facts.done():
            raise CannotStart(ready["failed"] if ready else f"{child.name} ended with {reason} before it was ready")
        _log.error("%s (pid %d) %s: it ended with %s", child.name, child.pid, life.cause, reason)
        return life

    async def _watch(self, child: Child, life: _Life) -> None:
        """Reads what it says of itself until its end, and ends it where it takes too long over anything."""
        alive_by_s = _now_s() + self._hang_after_s
        pack_by_s = float("inf")
        while (
            message := await self._within(child, max(_GRACE_S, min(alive_by_s, pack_by_s) - _now_s()), life)
        ) is not None:
            if "begins" in message:
                life.names = message["begins"]
                pack_by_s = _now_s() + max(self._hang_after_s, _PATIENCE * (message["predicted_s"] or 0.0))
            elif "ends" in message:
                life.names, pack_by_s = [], float("inf")
                life.useful = life.useful or message["ends"]
            elif message["alive"] > pack_by_s:
                # Its own clock says so, which is this one: nothing that was said in time is still to be read.
                life.cause = "hung"
                child.kill()
            alive_by_s = _now_s() + self._hang_after_s

    async def _within(self, child: Child, seconds: float | None, life: _Life) -> dict[str, Any] | None:
        """Its next line. If there is none in time it is killed, and what it had said by then is still read."""
        try:
            async with asyncio.timeout(seconds):
                return await child.hear()
        except TimeoutError:
            life.cause = "hung"
            child.kill()
            return await child.hear()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def end(self, *, within_s: float) -> bool:
        """After `keep` was cancelled. True where the engine ended by itself; one not yet ready hears nothing."""
        return self._child is None or await self._child.end(within_s=within_s if self.address else 0)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
