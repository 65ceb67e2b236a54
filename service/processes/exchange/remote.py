"""The `EngineClient` of a process that owns no device: it tells engine processes of images and texts.

It keeps every item until it is answered. When an engine dies, the items that were in its packs run again alone, and an
item that was alone on the device at a second death is at fault. Belongs to one event loop. It is told when engines
start and die, and starts none.
"""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from service.engine.client import Job, JobResult, Trust
from service.engine.cost.fit import CostFit
from service.engine.pack_log import PackReport
from service.errors import DeadlineExceeded, EngineFault, ServiceError
from service.limits import ModelFacts
from service.metrics import Metrics
from service.processes.exchange.engine_link import EngineLink
from service.processes.exchange.messages import Answers, Hello, Packs, Reply
from service.processes.exchange.slab import Slab
from service.processes.exchange.wire import read_outcomes
from service.processes.messages import EngineStatus
from service.watching.timers import timers

_DEATHS_OF_THE_GUILTY = 2
# Whether an engine has died is known in less, nearly always.
_CONNECT_AGAIN_S = 1.0
# The parent replaces an engine that is silent for `hang_after_s`. One that it leaves for so many times as long is lost.
_PATIENCE = 3.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Item:
    """An item that has not been answered. engine: the one that has it, None while it waits for one. alone: it gets a
    pack of its own."""

    number: int
    job: Job
    future: "asyncio.Future[JobResult]"
    alone: bool
    engine: EngineLink | None = None
    deaths: int = 0


class RemoteEngine:
    """Sends each image and text to the engine with the fewest tokens to do; an interactive one to that with the fewest
    that do not give way to it."""

    def __init__(
        self,
        model: ModelFacts,
        *,
        name: str,
        engines: Sequence[EngineStatus],
        secret: str,
        slab: Slab,
        metrics: Metrics,
        max_abandoned_tokens: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """name: of this process among those that share the engines. engines: as they are now. slab: rows in it are not
        sent, but read where they are. max_abandoned_tokens: while engines have not answered so many that nobody waits
        for, they get no more: they are stuck, and keep the rows."""
        self._model, self._hello, self._slab = model, Hello(secret, name), slab
        self._metrics, self._clock = metrics, clock
        self._addresses = [engine.address for engine in engines]
        self._engines = [EngineLink(slab, backing_off=engine.backing_off, untrue=engine.untrue) for engine in engines]
        self._doubts = 0
        self._max_abandoned_tokens = max_abandoned_tokens
        self._numbers = itertools.count()
        self._items: dict[int, _Item] = {}

    @property
    def model(self) -> ModelFacts:
        return self._model

    @property
    def accepts_jobs(self) -> bool:
        abandoned_tokens = sum(engine.abandoned_tokens for engine in self._engines)
        return abandoned_tokens <= self._max_abandoned_tokens and any(
            engine.up or not (engine.backing_off or engine.untrue) for engine in self._engines
        )

    @property
    def any_device_ready(self) -> bool:
        return any(engine.ready for engine in self._engines)

    @property
    def all_devices_ready(self) -> bool:
        return all(engine.ready for engine in self._engines)

    @property
    def trust(self) -> Trust:
        untrue = next((engine.untrue for engine in self._engines if engine.untrue), None)
        return Trust(untrue, self._doubts, min(engine.state.proven_s for engine in self._engines))

    @property
    def tokens_per_s(self) -> float | None:
        return sum(engine.tokens_per_s for engine in self._engines if engine.up) or None

    @property
    def cost(self) -> CostFit | None:
        """The cost fit of the engine that has run most packs; None until an engine has sent one."""
        costs = [engine.state.cost for engine in self._engines if engine.up and engine.state.cost]
        return max(costs, key=lambda cost: cost.packs, default=None)

    @property
    def packs(self) -> Sequence[Sequence[PackReport]]:
        return [engine.log.packs for engine in self._engines]

    def silent(self, hang_after_s: float) -> list[int]:
        """The numbers of engines that are said to be up and have sent no news for far longer than the parent waits.

        Asked twice a second, by a thread: a pause of this process counts for nothing."""
        for engine in self._engines:
            engine.silent_looks += engine.up
        most = 2 * _PATIENCE * hang_after_s
        return [number for number, engine in enumerate(self._engines) if engine.up and engine.silent_looks > most]

    def refresh_packs(self) -> None:
        for engine in self._engines:
            engine.ask_packs()

    def start(self) -> None:
        """Connects to the engines that are up."""
        for number, address in enumerate(self._addresses):
            if address is not None:
                self.engine_up(number, address)

    def engine_up(self, number: int, address: str) -> None:
        """An engine has started and waits at `address`: it gets the items that wait for one."""
        engine = self._engines[number]
        if engine.up:
            self.engine_down(number, (), backing_off=False)
        self._connect(number, address)
        self._metrics.engine_up.set(self.all_devices_ready)
        for item in list(self._items.values()):
            if item.engine is None:
                self._send(item)

    def _connect(self, number: int, address: str) -> None:
        def on_cut() -> None:
            asyncio.get_running_loop().call_later(_CONNECT_AGAIN_S, self._connect_again, number, address)

        self._engines[number].connect(address, self._hello, self._heard, on_cut)

    def _connect_again(self, number: int, address: str) -> None:
        """To an engine that has ended a connection, because it had no descriptor for it or no memory to answer. It gets
        what it had again. If it has died instead, nobody listens, and `engine_down` comes."""
        engine = self._engines[number]
        if not engine.cut_off:
            return
        self._connect(number, address)
        if engine.cut_off:
            asyncio.get_running_loop().call_later(_CONNECT_AGAIN_S, self._connect_again, number, address)
            return
        _log.warning("an engine had ended the connection, and is connected to again")
        for item in [item for item in self._items.values() if item.engine is engine]:
            self._send_again(item)

    def engine_down(
        self, number: int, suspects: Collection[str], *, backing_off: bool, untrue: str | None = None
    ) -> None:
        """An engine has died, with `suspects` in its packs. Its items go elsewhere, or wait until it is back. untrue:
        what was wrong with its vectors."""
        engine, suspects = self._engines[number], set(suspects)
        engine.disconnect(backing_off=backing_off, untrue=untrue)
        self._doubts += untrue is not None
        self._metrics.engine_up.set(0)
        for item in [item for item in self._items.values() if item.engine is engine]:
            item.engine = None
            if f"{self._hello.name}:{item.number}" in suspects:
                item.deaths += 1
                item.alone = True
            if item.deaths >= _DEATHS_OF_THE_GUILTY:
                _fail(item, EngineFault(f"the engine died on this {item.job.kind}, twice; nothing was charged"))
            else:
                self._send_again(item)

    async def submit(self, job: Job) -> JobResult:
        # Admission asks whether an engine is there; an admitted item waits for one until its deadline.
        future: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        item = _Item(next(self._numbers), job, future, job.alone)
        self._items[item.number] = item
        self._send(item)
        late = timers()
        if job.deadline_s is not None:
            at_s = time.monotonic() + job.deadline_s - self._clock()
            late.set(future, at_s, partial(self._deadline_passed, item))
        try:
            return await future
        finally:
            late.clear(future)
            self._forget(item)

    def _deadline_passed(self, item: _Item) -> None:
        """The engine knows whether the item is in a pack: then its result is waited for."""
        if item.engine is None:
            _fail(item, _too_late())
        else:
            item.engine.cancel(item.number)

    def _send_again(self, item: _Item) -> None:
        item.engine = None
        if item.job.deadline_s is not None and item.job.deadline_s <= self._clock():
            _fail(item, _too_late())
        else:
            self._send(item)

    def _send(self, item: _Item) -> None:
        """To the engine with the least to do before it. While none is up, the item waits."""
        up = [engine for engine in self._engines if engine.up]
        if up and not item.future.done():
            bulk = item.job.bulk
            item.engine = min(up, key=lambda each: (0 if bulk else each.interactive_tokens, each.load_tokens))
            item.engine.send(item.number, item.job, alone=item.alone)

    def _heard(self, engine: EngineLink, message: Reply, behind: memoryview) -> None:
        engine.state = message.state
        self._metrics.engine_up.set(self.all_devices_ready)
        if isinstance(message, Packs):
            # The same packs come twice if the engine was asked again before it answered.
            for pack in message.packs:
                if pack.ended_s > engine.log.last_s:
                    engine.log.add(pack)
        elif isinstance(message, Answers):
            for number, outcome in read_outcomes(message.answers, behind):
                engine.answered(number)
                self._answer(engine, number, outcome)
        else:
            self._slab.trim()

    def _answer(self, engine: EngineLink, number: int, outcome: JobResult | ServiceError | None) -> None:
        item = self._items.get(number)
        if item is None or item.engine is not engine:
            return  # it was given up while its answer was on the way
        item.engine = None
        if outcome is None:
            _fail(item, _too_late())
        elif isinstance(outcome, ServiceError):
            _fail(item, outcome)
        elif not item.future.done():
            item.future.set_result(outcome)

    def _forget(self, item: _Item) -> None:
        del self._items[item.number]
        item.future.cancel()
        if item.engine is not None:
            item.engine.abandon(item.number)

    def close(self) -> None:
        """Leaves the engines, once every item is answered."""
        for engine in self._engines:
            engine.disconnect()
        self._slab.close()


def _fail(item: _Item, error: ServiceError) -> None:
    if not item.future.done():
        item.future.set_exception(error)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before its turn came (timeout_ms, default_timeout_ms)")
