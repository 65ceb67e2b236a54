"""Keeps one engine process running: starts it, watches it, and starts it again when it dies or hangs."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.processes.child import Child
from service.processes.restarts import Restarts

# A pack may take this many times as long as was predicted.
_PATIENCE = 10.0
# Silence is waited for in pieces of this length: a pause of the parent itself is at most one of them.
_SLICE_S = 1.0
# Facts that no engine of a server may change, and in which all agree.
_SAME = ("fingerprint", "dim", "token_dim")

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
        self._start_patience_s = float("inf")
        self.facts: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.address: str | None = None
        self.backing_off = False

    async def keep(self) -> None:
        """For ever, until cancelled. Raises `CannotStart` where it never was ready."""
        restarts, cause = Restarts(), None
        while True:
            life = await self._live(cause)
            delay_s, cause = restarts.delay_s(was_useful=life.useful), life.cause
            self.address, self.backing_off = None, delay_s > 0
            self._on_down(self._number, life.names, self.backing_off)
            _log.error(
                "%s: %d images were in its pack; starting it again %s", self._config["name"], len(life.names),
                f"in {delay_s:g} s" if delay_s else "at once",
            )  # fmt: skip
            await asyncio.sleep(delay_s)

    async def _live(self, replaces: str | None) -> _Life:
        """From one start to the end that follows."""
        life, began_s = _Life(), _now_s()
        try:
            self._child = child = await Child.spawn(self._config["name"], self._command)
        except OSError as error:
            self._never_ready(f"{self._config['name']} cannot be started: {error.strerror or error}")
            return life
        child.tell(self._config | {"replaces": replaces})
        reason = await self._start(child, began_s, life)
        if reason is None:
            await self._watch(child, life)
        ended = await child.ended()
        if reason is not None:
            self._never_ready(reason or f"{child.name} ended with {ended} before it was ready")
        _log.error("%s (pid %d) %s: it ended with %s", child.name, child.pid, life.cause, ended)
        return life

    async def _start(self, child: Child, began_s: float, life: _Life) -> str | None:
        """Waits until it is ready. Else it is at its end, and this is the reason that it gave."""
        said = await self._within(child, self._start_patience_s, life)
        if life.cause == "hung":
            self._start_patience_s *= 2
            return f"{child.name} took too long to start"
        if said is None or "ready" not in said:
            return said["failed"] if said else ""
        if self.facts.done() and (changed := differing(self.facts.result(), said["ready"])):
            child.kill()
            return f"{child.name} has come back with another {changed}: is the model still the one that was served?"
        took_s = _now_s() - began_s
        self._start_patience_s = max(self._hang_after_s, _PATIENCE * took_s)
        self.address, self.backing_off = said["address"], False
        if not self.facts.done():
            self.facts.set_result(said["ready"])
        _log.info("%s (pid %d) is ready after %.1f s", child.name, child.pid, took_s)
        self._on_up(self._number, said["address"])
        return None

    def _never_ready(self, reason: str) -> None:
        """Of the first life it ends the server; of a later one it is worth a line."""
        if not self.facts.done():
            raise CannotStart(reason)
        _log.error("%s", reason)

    async def _watch(self, child: Child, life: _Life) -> None:
        """Reads what it says of itself until its end, and ends it where it takes too long over anything."""
        alive_by_s = _now_s() + self._hang_after_s
        pack_by_s = float("inf")
        while (message := await self._within(child, min(alive_by_s, pack_by_s) - _now_s(), life)) is not None:
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

    async def _within(self, child: Child, seconds: float, life: _Life) -> dict[str, Any] | None:
        """Its next line. If there is none in time it is killed, and what it had said by then is still read."""
        hearing = asyncio.create_task(child.hear())
        try:
            while not hearing.done() and seconds > -_SLICE_S:
                await asyncio.wait([hearing], timeout=_SLICE_S)
                seconds -= _SLICE_S
            if not hearing.done():
                life.cause = "hung"
                child.kill()
            return await hearing
        finally:
            hearing.cancel()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def end(self, *, within_s: float) -> bool:
        """After `keep` was cancelled. True unless it had to be killed at its work; one not yet ready hears nothing."""
        if self._child is None:
            return True
        if self.address is None:
            self._child.kill()
            await self._child.ended()
            return True
        return await self._child.end(within_s=within_s)


def differing(facts: dict[str, Any], others: dict[str, Any]) -> str | None:
    """The first of the facts in which two engines have to agree and do not."""
    return next((name for name in _SAME if facts.get(name) != others.get(name)), None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
