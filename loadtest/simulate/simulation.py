"""A fleet under a load: builds the parts, runs the events, and counts what came of every request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.simulate.balancer import Balancer
from loadtest.simulate.changes import Changes
from loadtest.simulate.crowd import Crowd, Fate
from loadtest.simulate.demand import Kind
from loadtest.simulate.events import Events
from loadtest.simulate.inputs import Clients, Costs, Fleet, Host
from loadtest.simulate.server import Answer, Server
from loadtest.traffic.arrivals import Floats
from service.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of the requests that were due in the measured time; shares are of the engines' and cores' time in it.

    latencies_s: of those that were answered, from when they were due. answered_s: when they were, ascending. tries:
    answers of all tries, also of the requests due before. packs: that ran in the measured time, with so many images and
    tokens.
    """

    seconds: float
    images: int
    fates: dict[Fate, int]
    latencies_s: Floats
    answered_s: Floats
    tries: dict[Answer, int]
    device_busy: float
    cores_busy: float
    packs: int
    packed_images: int
    packed_tokens: int
    deaths: int

    @property
    def requests(self) -> int:
        return sum(self.fates.values())

    def share(self, fate: Fate) -> float:
        return self.fates[fate] / self.requests if self.requests else 0.0

    def percentile_s(self, level: float) -> float:
        """NaN if nothing was answered."""
        return float(np.percentile(self.latencies_s, level)) if len(self.latencies_s) else float("nan")


class Simulation:
    """One run. `events`, `servers` and `changes` are for callers that let something happen in it."""

    def __init__(
        self, *, host: Host, costs: Costs, fleet: Fleet, clients: Clients, kinds: Sequence[Kind], seed: int
    ) -> None:
        packs, picks, crowd, self._order = (np.random.default_rng([seed, place]) for place in range(4))
        self._kinds = kinds
        self.events = Events()
        # Admission counts into metrics; nobody reads them here.
        metrics = Metrics()
        self.servers = [Server(self.events, host, costs, metrics, packs) for _ in range(fleet.hosts)]
        self.balancer = Balancer(self.servers, fleet.balancing, picks)
        self.changes = Changes(self.events, self.servers, self.balancer, fleet, host)
        self.crowd = Crowd(self.events, self.balancer, clients, kinds=kinds, rng=crowd)

    def run(
        self,
        due_s: Floats,
        *,
        from_s: float = 0.0,
        until_s: float,
        kind_numbers: Sequence[int] | None = None,
        finish: bool = True,
        at_start: Callable[[], None] = lambda: None,
    ) -> Result:
        """Requests at `due_s`; those due in `[from_s, until_s)` count.

        kind_numbers: the kind of each, by default drawn. finish: run on until the last is answered. at_start: is called
        at `from_s`.
        """
        if kind_numbers is None:
            kind_numbers = self._order.integers(len(self._kinds), size=len(due_s)).tolist()
        self.crowd.send(due_s, kind_numbers)
        self.events.run(from_s)
        before = self._spent()
        at_start()
        self.events.run(until_s)
        spent = self._spent() - before
        if finish:
            self.events.run()
        return self._result(np.asarray(due_s), from_s, until_s, spent)

    def _spent(self) -> Floats:
        """Engine seconds, core seconds, packs, and their images and tokens, of all servers so far."""
        engines = [engine for server in self.servers for engine in server.engines]
        return np.array(
            [
                sum(engine.busy_s for engine in engines),
                sum(server.cores.busy_s for server in self.servers),
                sum(engine.packs for engine in engines),
                sum(engine.pack_items for engine in engines),
                sum(engine.pack_tokens for engine in engines),
            ]
        )

    def _result(self, due_s: Floats, from_s: float, until_s: float, spent: Floats) -> Result:
        counted = np.flatnonzero((due_s >= from_s) & (due_s < until_s))
        fates = dict.fromkeys(Fate, 0)
        images = 0
        for number in counted:
            fates[self.crowd.fates[number]] += 1
            if self.crowd.fates[number] is Fate.ANSWERED:
                images += len(self._kinds[self.crowd.kind_numbers[number]].pictures)
        answered = [number for number in counted if self.crowd.fates[number] is Fate.ANSWERED]
        done_s = np.array([self.crowd.done_s[number] for number in answered], np.float64)
        seconds = until_s - from_s
        busy_s, cores_s, packs, items, tokens = (float(value) for value in spent)
        return Result(
            seconds=seconds,
            images=images,
            fates=fates,
            latencies_s=done_s - due_s[answered],
            answered_s=np.sort(done_s),
            tries=dict(self.crowd.answers),
            device_busy=busy_s / (seconds * sum(len(server.engines) for server in self.servers)),
            cores_busy=cores_s / (seconds * sum(server.cores.cores for server in self.servers)),
            packs=round(packs),
            packed_images=round(items),
            packed_tokens=round(tokens),
            deaths=self.changes.deaths,
        )
