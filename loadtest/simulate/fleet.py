"""A day of a fleet: windows of it are simulated, and each stands for the time that is like it.

A large fleet is cells of a few dozen hosts, each with a balancer of its own, among which traffic is split at random, as
where every balancer has a subset of the hosts. One cell is simulated.

Every hour has a window with all hosts, every few hours have one with a host away, and deploys have one in which hosts
drain and stay away. A death is simulated from the moment of it until all is quiet again, at the mean and at the
peak of the day, and counts as often as hosts die.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loadtest.simulate.bounds import Bound, host_bounds, least, work_of
from loadtest.simulate.crowd import Fate
from loadtest.simulate.demand import Kind, day_rate
from loadtest.simulate.inputs import Clients, Costs, Fleet, Host
from loadtest.simulate.simulation import Result, Simulation
from loadtest.traffic.arrivals import Floats, due_times

_HOURS = 24
_AWAY_EVERY_HOURS = 6
_PEAK_HOUR, _MEAN_HOUR = 20, 2
# Close to the bound queues take long to fill, so these windows are longer, and with them what comes before.
_NEAR, _LONGER = 0.95, 6
# Room for clients that come back, after the balancer has noticed a death.
_QUIET_S = 5.0


@dataclass(frozen=True, slots=True)
class Day:
    """load: mean of the day over what all hosts could do. swing: the peak is so much above the mean. window_requests:
    of a window, which is never shorter than least_window_s. cell_hosts: at most so many are simulated."""

    load: float = 0.5
    swing: float = 0.6
    deploy_hours: tuple[int, ...] = (10, 15)
    window_requests: int = 6000
    least_window_s: float = 2.0
    cell_hosts: int = 16
    seed: int = 1


@dataclass(slots=True)
class Totals:
    """The sums over a day and the whole fleet.

    latencies_s, weights: of requests that were answered, and how many each stands for.
    busy_s of device_s: when devices ran a pack. deaths: expected. simulated: requests. bound: of one host.
    peak_bytes_per_s: of bodies, through all balancers.
    """

    hosts: int
    bound: Bound
    peak_bytes_per_s: float
    requests: float = 0.0
    images: float = 0.0
    fates: "Counter[Fate]" = field(default_factory=Counter)
    deaths: float = 0.0
    simulated: int = 0
    busy_s: float = 0.0
    device_s: float = 0.0
    packs: float = 0.0
    packed_images: float = 0.0
    _latencies: list[Floats] = field(default_factory=list)
    _weights: list[Floats] = field(default_factory=list)

    def add(self, result: Result, times: float, *, hosts: int) -> None:
        """One window that stands for `times` like it, of `hosts` with engines."""
        self.requests += result.requests * times
        self.images += result.images * times
        for fate, count in result.fates.items():
            self.fates[fate] += count * times  # type: ignore[assignment]
        self.simulated += result.requests
        self.busy_s += result.device_busy * result.seconds * hosts * times
        self.device_s += result.seconds * hosts * times
        self.packs += result.packs * times
        self.packed_images += result.packed_images * times
        self._latencies.append(result.latencies_s)
        self._weights.append(np.full(len(result.latencies_s), times))

    def share(self, fate: Fate) -> float:
        return self.fates[fate] / self.requests

    def percentile_s(self, level: float) -> float:
        latencies, weights = np.concatenate(self._latencies), np.concatenate(self._weights)
        order = np.argsort(latencies)
        passed = np.cumsum(weights[order])
        return float(latencies[order][np.searchsorted(passed, level / 100 * passed[-1])])


class DayOf:
    """Simulates the windows of a day."""

    def __init__(
        self, day: Day, *, host: Host, costs: Costs, fleet: Fleet, clients: Clients, kinds: Sequence[Kind]
    ) -> None:
        self._day, self._host, self._costs, self._clients, self._kinds = day, host, costs, clients, kinds
        self._all_hosts = fleet.hosts
        self._fleet = replace(fleet, hosts=min(fleet.hosts, day.cell_hosts))
        self._images = sum(len(kind.pictures) for kind in kinds) / len(kinds)
        self._bound = least(host_bounds(work_of(kinds, costs, host), host))
        self._windows = 0

    def totals(self) -> Totals:
        day, fleet = self._day, self._fleet
        cells = self._all_hosts / fleet.hosts
        peak_bytes_per_s = self._rate(_PEAK_HOUR) * cells * sum(kind.bytes for kind in self._kinds) / len(self._kinds)
        totals = Totals(self._all_hosts, self._bound, peak_bytes_per_s)
        away = min(1.0, fleet.hosts * fleet.deaths_per_hour * (fleet.replace_s + self._host.load_s) / 3600)
        deploying = self._deploy_share()
        for hour in range(_HOURS):
            in_deploy = deploying if hour in day.deploy_hours else 0.0
            self._window(totals, hour, cells * (1 - away) * (1 - in_deploy))
            if in_deploy:
                self._window(totals, hour, cells * (1 - away) * in_deploy, drain=fleet.deploy_at_once)
            if away and hour % _AWAY_EVERY_HOURS == _MEAN_HOUR:
                self._window(totals, hour, cells * away * _AWAY_EVERY_HOURS, away=1)
        totals.deaths = self._all_hosts * fleet.deaths_per_hour * _HOURS
        for hour in (_MEAN_HOUR, _PEAK_HOUR) if totals.deaths else ():
            self._death(totals, hour, totals.deaths / 2)
        return totals

    def _deploy_share(self) -> float:
        """The share of an hour that a deploy of the cell takes."""
        rounds = math.ceil(self._fleet.hosts / self._fleet.deploy_at_once)
        return min(1.0, rounds * self._host.load_s / 3600)

    def _rate(self, hour: int) -> float:
        """Requests a second of the cell."""
        most = self._bound.images_per_s / self._images * self._fleet.hosts
        return day_rate(most * self._day.load, hour, swing=self._day.swing, peak_hour=_PEAK_HOUR)

    def _window(self, totals: Totals, hour: int, times: float, *, away: int = 0, drain: int = 0) -> None:
        """times: how many hours like this the window stands for, over all cells. Hosts drain at its start."""
        rate = self._rate(hour)
        seconds = max(self._day.least_window_s, self._day.window_requests / rate)
        if rate * self._images > _NEAR * self._bound.images_per_s * self._fleet.hosts:
            seconds *= _LONGER
        warm_s = seconds / 3
        simulation, due_s = self._simulation(rate, warm_s + seconds)

        def start() -> None:
            for server in simulation.servers[:drain]:
                simulation.balancer.leave(server)
                server.drain(lambda: None)

        for server in simulation.servers[:away]:
            simulation.changes.down(server)
        result = simulation.run(due_s, from_s=warm_s, until_s=warm_s + seconds, at_start=start)
        totals.add(result, times * 3600 / seconds, hosts=self._fleet.hosts)

    def _death(self, totals: Totals, hour: int, times: float) -> None:
        rate = self._rate(hour)
        warm_s = self._day.least_window_s / 3
        end_s = warm_s + self._fleet.notice_s + _QUIET_S
        simulation, due_s = self._simulation(rate, end_s)
        result = simulation.run(
            due_s, from_s=warm_s, until_s=end_s, at_start=lambda: simulation.changes.kill(simulation.servers[0])
        )
        totals.add(result, times, hosts=self._fleet.hosts)

    def _simulation(self, rate: float, seconds: float) -> tuple[Simulation, Floats]:
        self._windows += 1
        seed = self._day.seed * 1000 + self._windows
        simulation = Simulation(
            host=self._host, costs=self._costs, fleet=self._fleet, clients=self._clients, kinds=self._kinds, seed=seed
        )
        return simulation, due_times("poisson", rate=rate, duration_s=seconds, seed=seed)
