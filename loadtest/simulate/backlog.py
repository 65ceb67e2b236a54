"""A backlog that is embedded once: hours, dollars and failures on machines that are given. Arithmetic, no events.

A cascade reads, decodes and embeds every image at a low budget, and a share of them again at a higher one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loadtest.errors import UsageError
from loadtest.simulate.bounds import Bound, Shared, Work, device_s, host_bounds, least, shared_bounds
from loadtest.simulate.demand import Kind, Picture, image_tokens
from loadtest.simulate.inputs import Costs, Host, costs_of, made
from loadtest.traffic.mix import Mix

_DRAWN = 400


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind of machine. deaths_per_1000_hours: of one. lost_s: work that is done again after a death, and the time
    until a new machine works."""

    name: str
    host: Host
    costs: Costs
    dollars_per_hour: float
    deaths_per_1000_hours: float
    lost_s: float
    network_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """low: the budget of every image. high, share: that of a share of them afterwards; 0 without a cascade."""

    low: int
    high: int = 0
    share: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.low} → {self.high} for {self.share:.0%}" if self.share else str(self.low)


@dataclass(frozen=True, slots=True)
class Row:
    """What a plan takes on so many machines of a kind. spare: how far the bound after the first is above it, as a
    factor; next_bound: its name."""

    plan: Plan
    machine: Machine
    machines: int
    images_per_s: float
    hours: float
    dollars: float
    deaths: float
    bound: Bound
    next_bound: Bound


def machines_of(content: Mapping[str, Any], where: str) -> list[Machine]:
    """Raises `UsageError`."""
    if not isinstance(content.get("machines"), list):
        raise UsageError(f'{where}: no list "machines"')
    found = []
    for place, each in enumerate(content["machines"]):
        here = f"{where}: machine {place}"
        machine = made(Machine, each, here)
        costs, host = costs_of(each["costs"], f"{here}: costs"), made(Host, each["host"], f"{here}: host")
        found.append(replace(machine, costs=costs, host=host))
    return found


def kinds_at(mix: Mix, budget: int, costs: Costs, *, seed: int = 1) -> list[Kind]:
    """One image a request, of the sizes and formats of a mix, all under one budget."""
    kinds = []
    for spec in mix.draw(_DRAWN, seed):
        for image in spec.images:
            pixels = image.height * image.width
            size = round(pixels * costs.bytes_per_pixel.get(image.format, 0.0))
            decode_s = costs.decode_s(image.format, pixels)
            kinds.append(Kind((Picture(image_tokens(image.height, image.width, budget), decode_s, size),)))
    return kinds


def row_of(
    plan: Plan, machine: Machine, shared: Shared, *, images: float, machines: int, mix: Mix, job: Mapping[str, float]
) -> Row:
    """job: host_s, write_bytes and images_a_read of an image, as `Work` has them."""
    work = _work(plan, machine, mix, job)
    own = [Bound(name, rate * machines) for name, rate in host_bounds(work, machine.host, machine.network_bytes_per_s)]
    bounds = sorted([*own, *shared_bounds(work, shared)], key=lambda bound: bound.images_per_s)
    bound = least(bounds)
    # A machine is away, or repeats what it lost, for this share of the time.
    away = machine.deaths_per_1000_hours / 1000 * machine.lost_s / 3600
    hours = images / bound.images_per_s / 3600 / (1 - away)
    return Row(
        plan=plan,
        machine=machine,
        machines=machines,
        images_per_s=images / hours / 3600,
        hours=hours,
        dollars=hours * machines * machine.dollars_per_hour,
        deaths=hours * machines * machine.deaths_per_1000_hours / 1000,
        bound=bound,
        next_bound=bounds[1],
    )


def _work(plan: Plan, machine: Machine, mix: Mix, job: Mapping[str, float]) -> Work:
    passes: Sequence[tuple[int, float]] = [(plan.low, 1.0), *([(plan.high, plan.share)] if plan.share else [])]
    kinds = {budget: kinds_at(mix, budget, machine.costs) for budget, _ in passes}
    pictures = [kind.pictures[0] for kind in kinds[plan.low]]
    on_device_s = sum(
        share * device_s(kinds[budget], machine.costs, max_batch_tokens=machine.host.max_batch_tokens)
        for budget, share in passes
    )
    return Work(
        device_s=on_device_s,
        decode_s=sum(picture.decode_s for picture in pictures) / len(pictures),
        host_s=job["host_s"] * (1 + plan.share),
        read_bytes=sum(picture.bytes for picture in pictures) / len(pictures),
        write_bytes=job["write_bytes"],
        passes=1 + plan.share,
        images_a_read=job["images_a_read"],
    )
