"""`python -m loadtest.simulate backlog | fleet`: what a backlog takes, how a day of a fleet goes. Prints Markdown."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.errors import LoadtestError, UsageError
from loadtest.simulate.backlog import Machine, Plan, Row, machines_of, row_of
from loadtest.simulate.balancer import BALANCINGS
from loadtest.simulate.bounds import Shared
from loadtest.simulate.crowd import Fate
from loadtest.simulate.demand import kinds_of
from loadtest.simulate.fleet import Day, DayOf, Totals
from loadtest.simulate.inputs import Clients, Fleet, made, object_in, read
from loadtest.traffic import mix
from loadtest.traffic.mix import Mix

_EXAMPLE = Path(__file__).with_name("examples") / "machines.json"
_KINDS = 400


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m loadtest.simulate", description=__doc__, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True)
    backlog = commands.add_parser("backlog", allow_abbrev=False, help="hours, dollars and failures of one pass")
    _common(backlog)
    backlog.add_argument("--images", type=float, default=5e9, help="(5e9)")
    backlog.add_argument("--on", type=int, nargs="+", default=[100], metavar="MACHINES", help="of each kind (100)")
    backlog.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 576, 1024], help="budgets of an image")
    backlog.add_argument(
        "--cascade", type=_cascade, nargs="+", default=[Plan(64, 576, 0.2), Plan(256, 1024, 0.1)],
        metavar="LOW:HIGH:SHARE", help="all at LOW, a share of them again at HIGH (64:576:0.2 256:1024:0.1)",
    )  # fmt: skip
    fleet = commands.add_parser("fleet", allow_abbrev=False, help="a day: latency, refusals, losses, idle time")
    _common(fleet)
    fleet.add_argument("--machine", default="", help="name of one in the file, or how it begins (the first)")
    fleet.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 8, 64, 1000])
    fleet.add_argument("--balancing", choices=BALANCINGS, nargs="+", default=["least_requests"])
    fleet.add_argument("--load", type=float, nargs="+", default=[0.5], help="the day's mean over what all hosts can do")
    fleet.add_argument("--deaths-per-day", type=float, help="of one host (as the file has it)")
    fleet.add_argument("--cell", type=int, default=16, help="most hosts behind one balancer (16)")
    fleet.add_argument("--tries", type=int, default=3, help="of a client for one request (3)")
    fleet.add_argument("--seed", type=int, default=1)
    return top


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--inputs", type=Path, default=_EXAMPLE, help="machines, costs and prices (the example's)")
    command.add_argument("--mix", help="of the load test, or a .json file (as the inputs say)")


def _cascade(text: str) -> Plan:
    try:
        low, high, share = text.split(":")
        return Plan(int(low), int(high), float(share))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW:HIGH:SHARE") from None


def backlog_command(args: argparse.Namespace) -> str:
    content = read(args.inputs)
    machines, shared = machines_of(content, str(args.inputs)), made(Shared, content.get("shared", {}), "shared")
    pictures, job = _mix(args, content), object_in(content, "job", str(args.inputs))
    if missing := sorted({"host_s", "write_bytes", "images_a_read"} - job.keys()):
        raise UsageError(f"{args.inputs}: job has no {', '.join(missing)}")
    rows = [
        row_of(plan, machine, shared, images=args.images, machines=count, mix=pictures, job=job)
        for machine in machines
        for count in args.on
        for plan in (*map(Plan, args.tokens), *args.cascade)
    ]
    head = "| machines | tokens | images/s | hours | machine-hours | dollars | deaths | bound | next bound, images/s |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|---|", *map(_backlog_line, rows)])


def _backlog_line(row: Row) -> str:
    return (
        f"| {row.machines:,} × {row.machine.name} | {row.plan.name} | {row.images_per_s:,.0f} | {row.hours:,.1f} | "
        f"{row.hours * row.machines:,.0f} | {row.dollars:,.0f} | {row.deaths:.1f} | {row.bound.name} | "
        f"{row.next_bound.name}, {row.next_bound.images_per_s:,.0f} |"
    )


def fleet_command(args: argparse.Namespace) -> str:
    content = read(args.inputs)
    machine = _machine(machines_of(content, str(args.inputs)), args.machine)
    kinds = kinds_of(_mix(args, content), _KINDS, args.seed, costs=machine.costs, host=machine.host)
    lines = [
        "| hosts | balancing | load | images/s, mean | p50, p95, p99 ms | refused | late | lost | deaths | "
        "devices idle | images a pack | bound of a host, images/s | GB/s at the peak | simulated |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    deaths_per_hour = machine.deaths_per_1000_hours / 1000 if args.deaths_per_day is None else args.deaths_per_day / 24
    for hosts in args.hosts:
        for balancing in args.balancing:
            for load in args.load:
                began_s = time.perf_counter()
                day = DayOf(
                    Day(load=load, cell_hosts=args.cell, seed=args.seed), host=machine.host, costs=machine.costs,
                    clients=Clients(tries=args.tries), kinds=kinds,
                    fleet=Fleet(
                        hosts=hosts, balancing=balancing, deaths_per_hour=deaths_per_hour,
                        deploy_at_once=max(1, min(hosts, args.cell) // 10),
                    ),
                )  # fmt: skip
                totals = day.totals()
                lines.append(_fleet_line(totals, f"{balancing} | {load:g}", time.perf_counter() - began_s))
                sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines)


def _fleet_line(totals: Totals, how: str, took_s: float) -> str:
    times = ", ".join(f"{totals.percentile_s(level) * 1e3:,.0f}" for level in (50, 95, 99))
    fates = " | ".join(_share(totals.share(fate)) for fate in (Fate.REFUSED, Fate.LATE, Fate.LOST))
    return (
        f"| {totals.hosts:,} | {how} | {totals.images / 86_400:,.0f} | {times} | {fates} | {totals.deaths:.2g} | "
        f"{1 - totals.busy_s / totals.device_s:.0%} | {totals.packed_images / totals.packs:.1f} | "
        f"{totals.bound.name}, {totals.bound.images_per_s:,.0f} | {totals.peak_bytes_per_s / 1e9:,.2f} | "
        f"{totals.simulated:,} requests in {took_s:.0f} s |"
    )


def _share(value: float) -> str:
    """A share of requests, in parts of a million if it is small."""
    return "0" if not value else f"{value:.2%}" if value >= 1e-3 else f"{value * 1e6:.1f} ppm"


def _mix(args: argparse.Namespace, content: Mapping[str, Any]) -> Mix:
    name = args.mix or content.get("pictures")
    if not isinstance(name, str):
        raise UsageError(f"{args.inputs}: pictures names no mix; --mix names one")
    return mix.load(name)


def _machine(machines: Sequence[Machine], name: str) -> Machine:
    for machine in machines:
        if machine.name.startswith(name):
            return machine
    raise UsageError(
        f"--machine {name}: no machine has this name; the file has {', '.join(each.name for each in machines)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 if the inputs cannot be used."""
    args = parser().parse_args(argv)
    commands: dict[str, Any] = {"backlog": backlog_command, "fleet": fleet_command}
    try:
        sys.stdout.write(commands[args.command](args) + "\n")
    except LoadtestError as error:
        sys.stderr.write(f"simulate: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
