"""A server under several times its capacity: goodput, refusals, deadlines, memory.

Capacity is measured before and after each overload, by clients that always keep the queue filled. During an overload,
requests come on a timetable at a multiple of the capacity. Each is a photograph of 256 tokens with a deadline; some are
broken, some clients leave, and some trickle their uploads. The server is a real one. The sender shares its machine and
reports its own processor time.

With `--bulk` a share of the good requests are bulk, and a row tells of each class. `--all-on` runs it with half of them
bulk, the memory of pictures and traces: no picture comes twice, so that none is answered from memory.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.bench.clients.crowd import Answer, Crowd, Kind, timetable
from loadtest.bench.clients.figures import (
    Row,
    Stretch,
    goodput_over_capacity,
    outcome,
    retry_after,
    rounded,
    statuses,
    steady_rate,
)
from loadtest.bench.refusal import jpeg
from loadtest.bench.servers.base_model import write_base_model
from loadtest.bench.servers.gauges import Gauges
from loadtest.bench.servers.processes import Cores, ProcessUse, process_uses
from loadtest.bench.servers.running import Running, serving
from loadtest.bench.servers.tracing import collector
from loadtest.traffic.bodies import Adapter, Wire
from loadtest.traffic.corpus import Picture, Request, from_mix
from loadtest.traffic.mix import parse

SHARES: dict[Kind, float] = {"corrupt": 0.05, "leaving": 0.05}
SLOW_CLIENTS = 8
_SEED = 1
_DISTINCT = 24
# Until the queue is filled and answers come steadily.
_SETTLING_S = 3.0
# So late that nothing is refused for it.
_NO_DEADLINE_MS = 600_000
# How long a client waits for an answer that never comes.
_PATIENCE_S = 60.0
# After the load, requests ask for more room than the queue has yet: shares of the whole queue.
_PROBES = (0.375, 0.625, 0.875)
_PHOTOS = {
    "name": "photos",
    "about": "Photographs of a third of a megapixel to two.",
    "classes": [
        {
            "name": "photo", "content": "photo", "megapixels": [0.3, 2], "aspect": {"4:3": 60, "3:4": 40},
            "quality": [75, 90],
        }
    ],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of one run. timeout_s: the deadline of every request. bulk: the share of good requests that are.
    distinct: no picture comes twice."""

    factor: float = 3.0
    rounds: int = 1
    seconds: float = 60.0
    capacity_seconds: float = 15.0
    clients: int = 64
    timeout_s: float = 30.0
    tokens: int = 256
    bulk: float = 0.0
    distinct: bool = False


_DEFAULT = Plan()


@dataclass(frozen=True, slots=True)
class Bodies:
    """Prepared requests. patient: without a deadline of their own. probe: a tiny picture."""

    patient: Sequence[Wire]
    good: Sequence[Wire]
    bulk: Sequence[Wire]
    corrupt: Sequence[Wire]
    probe: Picture
    tokens: int

    def many(self, images: int) -> Wire:
        """One request of `images` pictures."""
        params = {"max_tokens": self.tokens, "timeout_ms": _NO_DEADLINE_MS}
        return Adapter().wire(Request(0, (self.probe,) * images, params))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="what to serve (default: the base shape with random weights)")
    parser.add_argument("--engine", choices=("thread", "process"), default="process", help="default: process")
    parser.add_argument("--factor", type=float, default=_DEFAULT.factor, help="offered, over capacity (default: 3)")
    parser.add_argument("--rounds", type=int, default=_DEFAULT.rounds, help="of overload (default: 1)")
    parser.add_argument("--seconds", type=float, default=_DEFAULT.seconds, help="of overload (default: 60)")
    parser.add_argument("--capacity-seconds", type=float, default=_DEFAULT.capacity_seconds, help="each (default: 15)")
    parser.add_argument("--clients", type=int, default=_DEFAULT.clients, help="that find the capacity (default: 64)")
    parser.add_argument("--timeout-ms", type=int, default=30_000, help="deadline of a request (default: 30000)")
    parser.add_argument("--bulk", type=float, metavar="SHARE", help="share of good requests that are bulk (default: 0)")
    parser.add_argument("--all-on", action="store_true", help="half of them bulk, pictures remembered, requests traced")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")


def measure(options: argparse.Namespace) -> list[Row]:
    """Rows of the table: capacity, the overload and its parts, what it took, capacity again."""
    plan = Plan(
        factor=options.factor, rounds=options.rounds, seconds=options.seconds,
        capacity_seconds=options.capacity_seconds, clients=options.clients, timeout_s=options.timeout_ms / 1000,
        bulk=(0.5 if options.all_on else 0.0) if options.bulk is None else options.bulk, distinct=options.all_on,
    )  # fmt: skip
    # Short enough for slow uploads to be ended within the run; room for the requests that ask for most of the queue.
    settings = {"upload_timeout_ms": "5000", "max_images_per_request": "256", "engine": options.engine}
    settings |= dict(text.split("=", 1) for text in options.set)
    bodies = make_bodies(plan)
    with _model(options.model) as model, collector() if options.all_on else nullcontext() as endpoint:
        if endpoint is not None:
            settings = {"cache_bytes": str(2**28), "tracing_endpoint": endpoint} | settings
        words = [f"--{name.replace('_', '-')}={value}" for name, value in {"model": model, **settings}.items()]
        with serving(*words) as server:
            return asyncio.run(_measure(server, plan, bodies))


@contextmanager
def _model(name: str | None) -> Iterator[str]:
    if name is not None:
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="base-shape-") as folder:
        write_base_model(Path(folder))
        yield folder


def make_bodies(plan: Plan, *, distinct: int = _DISTINCT) -> Bodies:
    corpus = from_mix(parse(_PHOTOS, source="overload"), count=distinct, seed=_SEED, extra={"max_tokens": plan.tokens})
    icon = Picture(jpeg(64, 64), 64, 64, "image/jpeg")
    adapter, timeout_ms = Adapter(form="raw"), round(plan.timeout_s * 1000)
    timed = [Request(0, each.pictures, {**each.params, "timeout_ms": timeout_ms}) for each in corpus.requests]
    return Bodies(
        patient=[adapter.wire(each) for each in corpus.requests],
        good=[adapter.wire(each) for each in timed],
        bulk=[adapter.wire(replace(each, params={**each.params, "priority": "bulk"})) for each in timed],
        corrupt=[adapter.wire(truncated(each)) for each in timed],
        probe=icon,
        tokens=plan.tokens,
    )


def truncated(request: Request) -> Request:
    """The request with the first two thirds of each picture: a whole header, but not all pixels."""
    pictures = tuple(
        Picture(each.data[: len(each.data) * 2 // 3], each.height, each.width, each.media_type)
        for each in request.pictures
    )
    return Request(request.class_index, pictures, request.params)


async def _measure(server: Running, plan: Plan, bodies: Bodies) -> list[Row]:
    row, stretch = await capacity(server, plan, bodies)
    memory = {process.name: process.memory_bytes for process in process_uses(server.pid)}
    rows, capacities, overloads = [row], [stretch], []
    for _ in range(plan.rounds):
        more_rows, stretch = await overload(server, plan, bodies, rate=plan.factor * capacities[-1].images_per_s)
        overloads.append(stretch)
        row, stretch = await capacity(server, plan, bodies)
        capacities.append(stretch)
        rows += [*more_rows, row]
    return [
        {"case": "goodput over capacity", **goodput_over_capacity(capacities, overloads)},
        *rows,
        *(_memory(process, memory.get(process.name, 0)) for process in process_uses(server.pid)),
    ]


async def capacity(server: Running, plan: Plan, bodies: Bodies) -> tuple[Row, Stretch]:
    """The rate while the queue is always full."""
    async with Crowd(server.url, timeout_s=_PATIENCE_S, distinct=plan.distinct) as crowd:
        seconds = _SETTLING_S + plan.capacity_seconds
        with Cores(server.pid) as cores:
            await crowd.closed_loop(bodies.patient, clients=plan.clients, seconds=seconds)
    done_s = [answer.done_s for answer in crowd.answers if answer.status == 200]
    per_s = steady_rate(done_s, _SETTLING_S, seconds)
    if not per_s:
        raise RuntimeError(f"no answer in {plan.capacity_seconds:g} s: the server or the machine is too busy")
    failed = len(crowd.answers) - len(done_s)
    row = {"case": "capacity", "images_per_s": rounded(per_s), "failed": failed, **cores.row()}
    return row, Stretch(per_s, cores.total, cores.sender)


async def overload(server: Running, plan: Plan, bodies: Bodies, *, rate: float) -> tuple[list[Row], Stretch]:
    """The rows of one overload, and its goodput."""
    wires: dict[Kind, Sequence[Wire]] = {
        "good": bodies.good, "corrupt": bodies.corrupt, "leaving": bodies.good, "bulk": bodies.bulk,
    }  # fmt: skip
    shares: dict[Kind, float] = {**SHARES, "bulk": plan.bulk * (1 - sum(SHARES.values()))} if plan.bulk else SHARES
    arrivals = timetable(wires, shares, rate=rate, seconds=plan.seconds, seed=_SEED)
    patience_s = plan.timeout_s + _PATIENCE_S
    async with (
        Crowd(server.url, timeout_s=patience_s, distinct=plan.distinct) as crowd,
        Gauges(server.url) as gauges,
    ):
        watching = asyncio.create_task(gauges.watch())
        with Cores(server.pid) as cores:
            slow = asyncio.create_task(crowd.slow_uploads(bodies.good[0], clients=SLOW_CLIENTS, seconds=plan.seconds))
            sending = asyncio.create_task(crowd.open_loop(arrivals))
            await slow
        # Measuring ends here: `_room` reads /metrics many times a second.
        room = await _room(crowd, gauges, bodies)
        await sending
        watching.cancel()
    answers = [answer for answer in crowd.answers if answer.images == 1]
    row, goodput = outcome(answers, seconds=plan.seconds, timeout_s=plan.timeout_s, settling_s=_SETTLING_S)
    return [
        {"case": f"{plan.factor:g} times capacity", "offered_per_s": rounded(rate), **row, **cores.row()},
        *_of_classes(answers, plan),
        {"case": "held at most", **gauges.most()},
        *({"case": f"answers to {kind}", **statuses(answers, kind)} for kind in ("good", *shares, "slow")),
        {"case": "Retry-After", **retry_after(answers)},
        *room,
    ], Stretch(goodput, cores.total, cores.sender)


def _of_classes(answers: Sequence[Answer], plan: Plan) -> list[Row]:
    """A row about each class of the good requests, if there are two."""
    if not plan.bulk:
        return []
    rows: list[Row] = []
    names: dict[Kind, str] = {"good": "interactive", "bulk": "bulk"}
    for kind, name in names.items():
        own = [answer for answer in answers if answer.kind == kind]
        row, _ = outcome(own, seconds=plan.seconds, timeout_s=plan.timeout_s, settling_s=_SETTLING_S, good=(kind,))
        rows.append({"case": f"{name} of them", **row})
    return rows


async def _room(crowd: Crowd, gauges: "Gauges", bodies: Bodies) -> list[Row]:
    """Once the load is over, sends requests of many images that the queue refuses, and finds when they would fit."""
    most = await gauges.max_queue_tokens()
    while await gauges.queue_tokens() >= most:  # the first gate, which knows no sizes, would refuse  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    sizes = [int(share * most) // bodies.tokens for share in _PROBES]
    asked_s = crowd.now_s
    asking = [asyncio.create_task(crowd.ask(bodies.many(images))) for images in sizes]
    fits_s: dict[int, float] = {}
    while len(fits_s) < len(sizes):
        queued = await gauges.queue_tokens()
        for images in sizes:
            if queued + images * bodies.tokens <= most:
                fits_s.setdefault(images, crowd.now_s - asked_s)
        await asyncio.sleep(0.02)
    said = {answer.images: answer for answer in await asyncio.gather(*asking) if answer.status == 429}
    return [
        {"case": f"Retry-After of {images} images, the load over", "said_s": said[images].retry_after_s,
         "room_s": rounded(fits_s[images])}
        for images in sizes if images in said
    ]  # fmt: skip


def _memory(process: ProcessUse, before_bytes: int) -> Row:
    return {
        "case": f"memory of {process.name}, MB",
        "before": round(before_bytes / 1e6),
        "high_water": round(process.high_water_bytes / 1e6),
        "after": round(process.memory_bytes / 1e6),
    }
