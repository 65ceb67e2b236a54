"""The simulator against queueing theory, and what holds in every run: nobody is lost from the books."""

from typing import Any

import numpy as np
import pytest

from loadtest.simulate.balancer import BALANCINGS
from loadtest.simulate.crowd import Fate
from loadtest.simulate.demand import Kind, Picture
from loadtest.simulate.inputs import Clients, Costs, DecodeCost, Fleet, Host, PackCost
from loadtest.simulate.server import Answer
from loadtest.simulate.simulation import Result, Simulation
from loadtest.traffic.arrivals import Floats, due_times

_HOST = Host(cores=4, max_batch_tokens=4096, load_s=1.0, drain_s=5.0)
_COSTS = Costs(PackCost(1e-5, 0.0, 0.001), {"jpeg": DecodeCost(0.002, 0.0)}, http_s=0.0005)
_MIXED = [Kind((Picture(tokens, 0.002, 1000),) * images) for tokens, images in ((64, 4), (256, 1), (1024, 1), (576, 2))]


def poisson(rate: float, seconds: float, seed: int = 3) -> Floats:
    return due_times("poisson", rate=rate, duration_s=seconds, seed=seed)


def simulated(*, rate: float, seconds: float = 4.0, seed: int = 1, kinds=_MIXED, **parts) -> tuple[Simulation, Result]:
    given: dict[str, Any] = {"host": _HOST, "costs": _COSTS, "fleet": Fleet(), "clients": Clients(tries=1)} | parts
    simulation = Simulation(kinds=kinds, seed=seed, **given)
    return simulation, simulation.run(poisson(rate, seconds, seed), until_s=seconds)


def test_images_of_one_size_one_at_a_time_wait_as_pollaczek_and_khinchine_say():
    seconds, load = 0.01, 0.7
    host = Host(cores=1, max_batch_tokens=256)
    costs = Costs(PackCost(0.0, 0.0, seconds), {}, http_s=0.0)
    _, result = simulated(
        rate=load / seconds, seconds=150, kinds=[Kind((Picture(256, 0.0, 0),))], host=host, costs=costs
    )
    expected_s = seconds + load * seconds / (2 * (1 - load))
    # Ten thousand waits, each like some dozen of its neighbours: 5% is about two deviations of their mean.
    assert result.latencies_s.mean() == pytest.approx(expected_s, rel=0.08)
    assert result.device_busy == pytest.approx(load, rel=0.03)


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_every_request_has_one_end_and_nothing_stays_charged(balancing):
    fleet = Fleet(hosts=3, balancing=balancing, notice_s=0.1, replace_s=0.5)
    simulation = Simulation(host=_HOST, costs=_COSTS, fleet=fleet, clients=Clients(tries=2), kinds=_MIXED, seed=2)
    simulation.events.at(0.3, lambda _: simulation.changes.kill(simulation.servers[0]))
    simulation.events.at(0.6, lambda _: simulation.changes.deploy(1))
    due_s = poisson(900, 1.5)
    result = simulation.run(due_s, until_s=1.5)
    assert sum(result.fates.values()) == len(due_s)
    assert result.fates[Fate.PENDING] == 0
    assert len(result.latencies_s) == result.fates[Fate.ANSWERED] > 0
    assert (result.latencies_s > 0).all()
    assert simulation.changes.deployed_s
    for server in simulation.servers:
        assert not server.held
        assert (server.outstanding_tokens, server.admission.tokens, server.admission.bytes) == (0, 0, 0)
        assert [engine.outstanding_tokens for engine in server.engines] == [0]


def test_an_unfinished_run_counts_what_is_under_way():
    simulation = Simulation(host=_HOST, costs=_COSTS, fleet=Fleet(), clients=Clients(), kinds=_MIXED, seed=1)
    result = simulation.run(np.full(300, 0.1), until_s=0.2, finish=False)
    assert 0 < result.fates[Fate.PENDING] < sum(result.fates.values()) == 300


def test_the_same_seed_gives_the_same_run():
    first, again, other = (simulated(rate=400, seconds=0.5, seed=seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first.latencies_s, again.latencies_s)
    assert first.fates == again.fates
    assert not np.array_equal(first.latencies_s, other.latencies_s)


def test_no_device_is_idle_while_an_image_waits():
    simulation = Simulation(
        host=Host(cores=4, engines=2), costs=_COSTS, fleet=Fleet(), clients=Clients(), kinds=_MIXED, seed=1
    )
    engines = simulation.servers[0].engines
    simulation.crowd.send(poisson(600, 0.5, 1), [0, 1, 2, 3] * 100)
    for step in range(1, 500):
        simulation.events.run(step / 1000)
        assert not any(engine.idle_with_work for engine in engines)
    assert all(engine.packs for engine in engines)


def test_overload_is_refused_with_a_time_to_come_back_and_the_device_stays_busy():
    simulation, result = simulated(rate=600, host=Host(cores=16, http_workers=8, max_batch_tokens=4096))
    assert result.fates[Fate.REFUSED] > 0
    assert result.fates[Fate.LATE] == result.fates[Fate.LOST] == 0
    assert result.device_busy > 0.97
    answered_tokens = result.packed_tokens / result.seconds
    assert answered_tokens == pytest.approx(4096 / (4096 * 1e-5 + 0.001), rel=0.05)
    _, patient = simulated(
        rate=600, seconds=1.0, host=Host(cores=16, http_workers=8, max_batch_tokens=4096), clients=Clients(tries=20)
    )
    assert patient.fates[Fate.ANSWERED] == patient.requests
    assert patient.tries[Answer.REFUSED] > 0


def test_a_late_image_is_not_run():
    host = Host(cores=4, max_batch_tokens=1024, max_queue_tokens=100_000)
    _, result = simulated(rate=600, seconds=1.0, host=host, clients=Clients(tries=1, timeout_s=0.2))
    # Admission refuses most; an estimate that was too low lets some in that are late.
    assert result.fates[Fate.REFUSED] > 0
    assert np.percentile(result.latencies_s, 99) < 0.3


def test_a_deploy_loses_nothing():
    fleet = Fleet(hosts=3)
    simulation = Simulation(host=_HOST, costs=_COSTS, fleet=fleet, clients=Clients(tries=1), kinds=_MIXED, seed=2)
    simulation.events.at(0.5, lambda _: simulation.changes.deploy(1))
    result = simulation.run(poisson(150, 5), until_s=5)
    assert simulation.changes.deployed_s == pytest.approx(3.5, abs=0.3)
    assert result.fates[Fate.ANSWERED] == result.requests


@pytest.mark.parametrize(("tries", "lost"), [(1, True), (2, False)])
def test_a_death_loses_what_its_host_held_and_a_second_try_saves_it(tries, lost):
    fleet = Fleet(hosts=3, notice_s=0.2, replace_s=10)
    simulation = Simulation(host=_HOST, costs=_COSTS, fleet=fleet, clients=Clients(tries=tries), kinds=_MIXED, seed=2)
    simulation.events.at(0.5, lambda _: simulation.changes.kill(simulation.servers[1]))
    result = simulation.run(poisson(150, 1), until_s=1)
    assert result.deaths == 1
    assert bool(result.fates[Fate.LOST]) == lost
    assert result.fates[Fate.ANSWERED] + result.fates[Fate.LOST] == result.requests
    assert result.tries[Answer.BROKEN] > 0


def test_balancing_by_outstanding_tokens_is_no_worse_than_at_random():
    p95 = {}
    for balancing in ("random", "two_choices", "least_requests", "outstanding_tokens"):
        _, result = simulated(rate=420, seconds=3.0, fleet=Fleet(hosts=4, balancing=balancing))
        p95[balancing] = result.percentile_s(95)
    assert p95["outstanding_tokens"] < p95["random"]
    assert p95["outstanding_tokens"] < 1.1 * p95["least_requests"]
    assert p95["two_choices"] < p95["random"]
