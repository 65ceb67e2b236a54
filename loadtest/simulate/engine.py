"""One engine: the service's own scheduler in front of a device that takes the seconds that the cost formula gives."""

from collections.abc import Callable, Sequence

import numpy as np

from loadtest.simulate.cores import Cores
from loadtest.simulate.events import Events
from loadtest.simulate.inputs import Host, PackCost
from service.engine.cost.fit import CostModel
from service.engine.queue.room import QueuedItem
from service.engine.scheduler import Scheduler


class Item(QueuedItem):
    """An image in the queue, and the try that it belongs to."""

    __slots__ = ("owner",)

    def __init__(self, tokens: int, owner: object, *, arrived_s: float, deadline_s: float) -> None:
        super().__init__(tokens, arrived_s, deadline_s)
        self.owner = owner


OnItem = Callable[[Item], None]


class Engine:
    """Runs a pack after another. outstanding_tokens: of the images that were added and have no outcome yet."""

    def __init__(
        self,
        events: Events,
        cores: Cores,
        host: Host,
        cost: PackCost,
        rng: np.random.Generator,
        *,
        done: OnItem,
        late: OnItem,
    ) -> None:
        self._events, self._cores, self._cost, self._rng = events, cores, cost, rng
        self._threads = host.engine_threads
        self._done, self._late = done, late
        self._scheduler: Scheduler[Item] = Scheduler(max_batch_tokens=host.max_batch_tokens, max_wait_s=host.max_wait_s)
        self._measured = CostModel()
        self._running = False
        self._life = 0
        self.outstanding_tokens = 0
        self.busy_s = 0.0
        self.packs = self.pack_tokens = self.pack_items = 0

    @property
    def tokens_per_s(self) -> float | None:
        return self._measured.tokens_per_s

    @property
    def idle_with_work(self) -> bool:
        """What must never be true without a hold: the device is idle, and an image waits."""
        return not self._running and self._scheduler.queue_items > 0

    def add(self, item: Item) -> None:
        self._scheduler.add(item)
        self.outstanding_tokens += item.tokens
        if not self._running:
            self._next()

    def drop(self, item: Item) -> None:
        if self._scheduler.drop(item):
            self.outstanding_tokens -= item.tokens

    def die(self) -> None:
        """Forgets all it has. What it learned of its rate is gone too."""
        self._scheduler.drain()
        self._measured = CostModel()
        self._running = False
        self._life += 1
        self.outstanding_tokens = 0

    def _next(self, life: int | None = None) -> None:
        if self._running or (life is not None and life != self._life):
            return
        while True:
            decision = self._scheduler.next_pack(self._events.now_s, tokens_per_s=self.tokens_per_s)
            for item in decision.late:
                self.outstanding_tokens -= item.tokens
                self._late(item)
            if decision.pack or not decision.late:
                break
        if decision.pack:
            self._run(decision.pack)
        elif decision.wait_s is not None:
            self._events.after(decision.wait_s, self._next, self._life)

    def _run(self, pack: Sequence[Item]) -> None:
        self._running = True
        tokens = sum(item.tokens for item in pack)
        seconds = self._cost.seconds(tokens, sum(item.tokens**2 for item in pack))
        if self._cost.scatter:
            seconds *= self._cost.scatter[int(self._rng.integers(len(self._cost.scatter)))]
        self.packs += 1
        self.pack_tokens += tokens
        self.pack_items += len(pack)
        what = (pack, tokens, self._events.now_s, self._life)
        if self._threads:
            self._cores.run(seconds, self._ran, what, threads=self._threads)
        else:
            self._events.after(seconds, self._ran, what)

    def _ran(self, what: tuple[Sequence[Item], int, float, int]) -> None:
        pack, tokens, began_s, life = what
        if life != self._life:
            return
        took_s = self._events.now_s - began_s
        self.busy_s += took_s
        self._measured.observe_rate(tokens, took_s)
        self._running = False
        self.outstanding_tokens -= tokens
        self._next()
        for item in pack:
            self._done(item)
