"""Keeps one engine process running: starts it, watches it, and starts it again when it dies or hangs."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from service.limits import ModelFacts
from service.processes import messages
from service.processes.child import Child, Restarts
from service.processes.messages import Alive, FromEngine, PackBegins, PackEnds, Ready, StartEngine, Untrue

# A pack, and a later start, may take this many times as long as expected.
_PATIENCE = 10.0
# All engines of a server must agree in these, in every life.
_SAME = ("fingerprint", "dim", "token_dim")

_log = logging.getLogger(__name__)


class CannotStart(Exception):
    """A process ended before it was ready for the first time. The message is its reason."""


@dataclass(slots=True)
class _Life:
    """What is known of an engine between its start and its end. packs: those that it has begun and not ended, the
    oldest first, by their numbers. pack_by_s: when the first of them must have ended. untrue: what was wrong with its
    vectors, as a clause."""

    hang_after_s: float
    useful: bool = False
    cause: str = "died"
    untrue: str | None = None
    packs: dict[int, PackBegins] = field(default_factory=dict)
    pack_by_s: float = math.inf

    @property
    def names(self) -> list[str]:
        """Names of the items in its packs. One of the items may be at fault."""
        if self.untrue is not None:
            return []
        return [name for pack in self.packs.values() for name in pack.names]

    def lies(self, what: str) -> None:
        """Its canary has failed."""
        self.cause, self.untrue = "untrue", what

    def begins(self, pack: PackBegins) -> None:
        self.packs[pack.number] = pack
        if len(self.packs) == 1:
            self._first_runs()

    def ends(self, pack: PackEnds) -> None:
        was_first = pack.number == next(iter(self.packs), None)
        begun = self.packs.pop(pack.number, None)
        # Nobody has sent the canary, which runs in every life.
        self.useful |= pack.succeeded and begun is not None and bool(begun.names)
        if was_first:
            self._first_runs()

    def pauses(self, paused_s: float) -> None:
        """The whole server has, for so long. No engine is late because of that."""
        self.pack_by_s += paused_s

    def _first_runs(self) -> None:
        """The device works on the first pack from now on, so its time is counted from now."""
        pack = next(iter(self.packs.values()), None)
        self.pack_by_s = math.inf
        if pack is not None:
            self.pack_by_s = _now_s() + max(self.hang_after_s, _PATIENCE * (pack.predicted_s or 0.0))


class EngineKeeper:
    """One device's engine, through all its lives."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        start: StartEngine,
        *,
        hang_after_s: float,
        untrue: str | None = None,
        on_up: Callable[[int, str], None],
        on_down: Callable[[int, Sequence[str], bool, str | None], None],
    ) -> None:
        """on_up: called with the engine's number and address. on_down: called with its number, the names of the items
        in its packs, whether the next start is delayed, and what was wrong with its vectors. untrue: what was wrong
        with those of the engine that it shall replace."""
        self._number, self._command, self._first_message, self._hang_after_s = number, command, start, hang_after_s
        self._on_up, self._on_down = on_up, on_down
        self._child: Child[FromEngine] | None = None
        # The first start may download a model; a later one should take about as long as the one before.
        self._start_patience_s = float("inf")
        # What the first life said of its model.
        self.facts: asyncio.Future[ModelFacts] = asyncio.get_running_loop().create_future()
        self.address: str | None = None
        self.backing_off = False
        self.untrue = untrue

    async def keep(self) -> None:
        """Until cancelled. Raises `CannotStart` if the first life never was ready."""
        restarts, cause = Restarts(), None if self.untrue is None else "untrue"
        while True:
            life = await self._live(cause)
            delay_s = restarts.delay_s(useful=life.useful)
            # Until an engine has been shown to be right, the next one has to show it.
            self.untrue = life.untrue or self.untrue
            cause = "untrue" if self.untrue is not None else life.cause
            self.address, self.backing_off = None, delay_s > 0
            self._on_down(self._number, life.names, self.backing_off, self.untrue)
            _log.error(
                "%s: %d items were in its packs; starting it again %s", self.name, len(life.names),
                f"in {delay_s:g} s" if delay_s else "at once",
            )  # fmt: skip
            await asyncio.sleep(delay_s)

    @property
    def name(self) -> str:
        return self._first_message.name

    async def _live(self, replaces: str | None) -> _Life:
        """From one start to the end that follows."""
        life, began_s = _Life(self._hang_after_s), _now_s()
        try:
            self._child = child = await Child.spawn(self.name, self._command, messages.from_engine)
        except OSError as error:
            self._never_ready(f"{self.name} cannot be started: {error.strerror or error}")
            return life
        child.tell(msgspec.structs.replace(self._first_message, replaces=replaces))
        reason = await self._wait_until_ready(child, began_s, life)
        if reason is None:
            await self._watch(child, life)
        ended = await child.ended()
        if reason is not None:
            self._never_ready(reason or f"{child.name} ended with {ended} before it was ready")
        what = "gave wrong vectors" if life.untrue is not None else life.cause
        _log.error("%s (pid %d) %s: it ended with %s", child.name, child.pid, what, ended)
        return life

    async def _wait_until_ready(self, child: Child[FromEngine], began_s: float, life: _Life) -> str | None:
        """None once it is ready; otherwise it is ending, and this is its reason, empty if it gave none."""
        message = await child.hear_within(self._start_patience_s)
        while isinstance(message, PackBegins | PackEnds):  # of a canary that has to pass first
            message = await child.hear_within(self._start_patience_s)
        if isinstance(message, Untrue):
            life.lies(message.what)
            return f"the canary of {child.name} has failed before it was ready: {message.what}"
        if child.hung:
            life.cause = "hung"
            self._start_patience_s *= 2
            return f"{child.name} took too long to start"
        if not isinstance(message, Ready):
            return message.reason if isinstance(message, messages.StartFailed) else ""
        if self.facts.done() and (changed := differing(self.facts.result(), message.facts)):
            child.kill()
            return f"{child.name} has come back with another {changed}: is the model still the one that was served?"
        took_s = _now_s() - began_s
        self._start_patience_s = max(self._hang_after_s, _PATIENCE * took_s)
        self.address, self.backing_off, self.untrue = message.address, False, None
        if not self.facts.done():
            self.facts.set_result(message.facts)
        _log.info("%s (pid %d) is ready after %.1f s", child.name, child.pid, took_s)
        self._on_up(self._number, message.address)
        return None

    def _never_ready(self, reason: str) -> None:
        """Ends the server if this was the first life; later it is worth a log line."""
        if not self.facts.done():
            raise CannotStart(reason)
        _log.error("%s", reason)

    async def _watch(self, child: Child[FromEngine], life: _Life) -> None:
        """Reads its messages until its end, and kills it if it is silent or at one pack for too long."""
        alive_by_s, paused_s = _now_s() + self._hang_after_s, child.paused_s
        while (message := await child.hear_within(min(alive_by_s, life.pack_by_s) - _now_s())) is not None:
            life.pauses(child.paused_s - paused_s)
            paused_s = child.paused_s
            match message:
                case PackBegins():
                    life.begins(message)
                case PackEnds():
                    life.ends(message)
                case Untrue(what=what):
                    life.lies(what)
                case Alive(at_s=at_s) if at_s > life.pack_by_s:
                    # Both processes share one clock: nothing that was sent in time is still to be read.
                    life.cause = "hung"
                    child.kill()
            alive_by_s = _now_s() + self._hang_after_s
        if child.hung:
            life.cause = "hung"

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def end(self, *, within_s: float) -> bool:
        """After `keep` was cancelled. False if the process did not stop in time and in order."""
        if self._child is None:
            return True
        # A process that is not ready yet does not read messages.
        if self.address is None:
            self._child.kill()
            await self._child.ended()
            return True
        return await self._child.end(within_s=within_s)


def differing(facts: ModelFacts, others: ModelFacts) -> str | None:
    """The first fact in which two engines differ and must not."""
    return next((name for name in _SAME if getattr(facts, name) != getattr(others, name)), None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
