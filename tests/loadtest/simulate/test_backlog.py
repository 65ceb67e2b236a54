"""The arithmetic of a backlog, of a day's windows, and the commands that print both."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.simulate.__main__ import main
from loadtest.simulate.backlog import Machine, Plan, machines_of, row_of
from loadtest.simulate.bounds import Shared
from loadtest.simulate.crowd import Fate
from loadtest.simulate.demand import day_rate, image_tokens
from loadtest.simulate.fleet import Day, DayOf
from loadtest.simulate.inputs import Clients, Costs, DecodeCost, Fleet, Host, PackCost
from loadtest.traffic import mix
from tests.loadtest.simulate.test_simulation import _COSTS, _MIXED

_DECODE = {"jpeg": DecodeCost(0.001, 0.004), "webp": DecodeCost(0.001, 0.01)}
_MACHINE = Machine(
    "m",
    Host(cores=8),
    Costs(PackCost(1e-6, 1e-10, 0.002), _DECODE, http_s=0.001, bytes_per_pixel={"jpeg": 0.25}),
    dollars_per_hour=2.0,
    deaths_per_1000_hours=0.0,
    lost_s=600.0,
    network_bytes_per_s=1e9,
)
_NO_BOUND = Shared()
_JOB = {"host_s": 0.0001, "write_bytes": 1536.0, "images_a_read": 100.0}
_PHOTOS = mix.load("photos")


def row(plan: Plan, *, machine: Machine = _MACHINE, machines: int = 10, shared: Shared = _NO_BOUND):
    return row_of(plan, machine, shared, images=1e9, machines=machines, mix=_PHOTOS, job=_JOB)


def test_hours_and_dollars_follow_from_the_least_bound():
    one, ten = row(Plan(1024), machines=1), row(Plan(1024))
    assert one.hours == pytest.approx(10 * ten.hours)
    assert one.dollars == pytest.approx(ten.dollars) == pytest.approx(one.hours * 2.0)
    assert ten.images_per_s == pytest.approx(ten.bound.images_per_s)
    assert ten.bound.images_per_s <= ten.next_bound.images_per_s
    assert ten.hours * ten.images_per_s * 3600 == pytest.approx(1e9)


def test_what_binds_changes_with_budget_cores_and_machines():
    assert row(Plan(64)).bound.name == "decoding"
    many_cores = replace(_MACHINE, host=Host(cores=1000), network_bytes_per_s=0.0)
    assert row(Plan(1024), machine=many_cores).bound.name == "device"
    store = Shared(store_bytes_per_s=1e9)
    assert row(Plan(64), machines=1, shared=store).bound.name == "decoding"
    assert row(Plan(64), machines=100, shared=store).bound.name == "store, bytes"
    assert row(Plan(64), machines=200, shared=store).hours == pytest.approx(
        row(Plan(64), shared=store, machines=100).hours
    )
    assert row(Plan(64), shared=Shared(store_requests_per_s=1.0)).images_per_s == pytest.approx(100)


def test_a_cascade_costs_its_low_pass_and_a_share_of_the_high_one():
    fast = replace(_MACHINE, host=Host(cores=10_000), network_bytes_per_s=0.0)
    low, high, both = (row(plan, machine=fast).hours for plan in (Plan(64), Plan(576), Plan(64, 576, 0.25)))
    assert both == pytest.approx(low + 0.25 * high)


def test_deaths_are_expected_by_machine_hours_and_their_work_is_done_again():
    mortal = replace(_MACHINE, deaths_per_1000_hours=50.0, lost_s=3600.0)
    safe, risky = row(Plan(256)), row(Plan(256), machine=mortal)
    assert risky.hours == pytest.approx(safe.hours / 0.95)
    assert risky.deaths == pytest.approx(risky.hours * 10 * 0.05)


def test_a_budget_is_filled_as_the_server_fills_it():
    assert image_tokens(1000, 1000, 256) == 256
    assert image_tokens(1000, 2000, 256) <= 256


def test_a_days_rate_has_its_mean_and_its_peak():
    rates = [day_rate(100, hour) for hour in range(24)]
    assert sum(rates) / 24 == pytest.approx(100)
    assert max(rates) == rates[20] == pytest.approx(160)


def test_a_thousand_hosts_are_cells_of_a_few():
    day = Day(window_requests=40, least_window_s=0.05, cell_hosts=2, deploy_hours=(10,))
    given: dict[str, Any] = {"host": Host(cores=4, load_s=10), "costs": _COSTS, "clients": Clients(), "kinds": _MIXED}
    two, thousand = (
        DayOf(day, fleet=Fleet(hosts=hosts, deaths_per_hour=0.1, notice_s=0.2), **given).totals() for hosts in (2, 1000)
    )
    assert thousand.requests == pytest.approx(500 * two.requests)
    assert thousand.deaths == pytest.approx(500 * two.deaths) == pytest.approx(2400)
    assert thousand.percentile_s(95) == two.percentile_s(95)
    assert two.share(Fate.ANSWERED) > 0.99
    # The windows stand for a whole day, but for what a few deaths add.
    images_a_request = sum(len(kind.pictures) for kind in _MIXED) / len(_MIXED)
    assert two.requests / 86_400 == pytest.approx(0.5 * 2 * two.bound.images_per_s / images_a_request, rel=0.05)


def test_the_commands_print_tables(capsys, tmp_path):
    assert main(["backlog", "--on", "5", "--tokens", "64", "--cascade", "64:256:0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 * 2
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"machines": [{"name": "x", "prize": 3}], "job": {}, "pictures": "photos"}))
    assert main(["backlog", "--inputs", str(wrong)]) == 2
    assert "unknown prize" in capsys.readouterr().err
    assert main(["fleet", "--machine", "none"]) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.pop("pictures"), "pictures names no mix"),
        (lambda content: content.update(job=3), "job is no object"),
        (lambda content: content["job"].pop("host_s"), "job has no host_s"),
        (lambda content: content["machines"][0]["costs"].update(pack=[1]), "machine 0: costs: pack is no object"),
        (lambda content: content["machines"][0]["costs"]["decode"].pop("jpeg"), "decode has no jpeg"),
    ],
)
def test_inputs_that_lack_something_are_named(capsys, tmp_path, change, said):
    content = json.loads(Path("loadtest/simulate/examples/machines.json").read_text())
    change(content)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    assert main(["backlog", "--inputs", str(wrong)]) == 2
    assert said in capsys.readouterr().err


def test_the_example_names_its_prices_as_examples():
    content = json.loads(Path("loadtest/simulate/examples/machines.json").read_text())
    assert "Example inputs" in content["about"]
    assert machines_of(content, "example")
