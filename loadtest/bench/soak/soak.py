"""Mixed load at a part of a server's capacity for hours, while faults are struck; what must have held at the end.

A real server with an engine process and two HTTP processes takes pictures in every form: files, JSON, URLs, and texts
if the model has them; some are broken, some from clients that leave, and two uploads trickle throughout. Half of the
pictures are new to its memory of pictures seen. Every minute or so a fault is struck, each kind once before any comes
again. At the end: each request answered once, with the bits of a quiet server; latency as before each fault within ten
seconds; memory, files and threads flat; nothing left.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import msgspec
import numpy as np

from loadtest.bench.clients.crowd import Crowd
from loadtest.bench.clients.figures import Row, rounded
from loadtest.bench.servers.running import free_port, serving
from loadtest.bench.soak.clients import Clients, picture_host, quiet_digests, timetable
from loadtest.bench.soak.faults import FAULTS, Fault, named
from loadtest.bench.soak.judgement import GROWTH_JUDGED_FROM_S, Judge, fault_rows, seconds_or_never, verdicts
from loadtest.bench.soak.page import drawing, soak_page
from loadtest.bench.soak.records import Record, Sample, Struck
from loadtest.bench.soak.requests import Template, templates_of
from loadtest.bench.soak.scene import Scene
from loadtest.traffic.corpus import Request, from_mix
from loadtest.traffic.mix import load

_SEED = 1
_DISTINCT, _DISTINCT_TEXTS = 60, 24
_CAPACITY_S, _CAPACITY_CLIENTS = 10.0, 16
_SLOW_CLIENTS = 2
_SAMPLE_EVERY_S = 5.0
# Before the first fault, and after the last one began; in a run under two minutes all such times are shorter.
_QUIET_S = 35.0
_EVERY_S = (40.0, 75.0)
# From the end of a fault to the next at least: less, and its recovery would not be seen.
_APART_S = 25.0
# After another engine has taken the place of one: the largest requests, at once.
_BURST, _BURST_AFTER_S = 24, 20.0
# From this part of the run on, the engine's process stays.
_ENGINE_STAYS = 2 / 3
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """share: offered load over capacity. every_s: from one fault to the next."""

    seconds: float
    share: float
    every_s: float
    faults: Sequence[Fault]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=20.0, help="minutes of load (default: 20)")
    parser.add_argument("--share", type=float, default=0.3, help="offered load over capacity (default: 0.3)")
    parser.add_argument("--rate", type=float, help="requests a second, in place of a share")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="from fault to fault (default: 40 to 75)")
    parser.add_argument("--faults", nargs="*", metavar="NAME", help=f"which (default: all): {_names(FAULTS)}")
    parser.add_argument("--model", default="packlight-tiny", help="what to serve (default: packlight-tiny)")
    parser.add_argument("--http-workers", type=int, default=2, help="default: 2")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the curves")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write all that was recorded")
    parser.add_argument("--again", type=Path, metavar="FILE", help="judge what --record wrote, without a run")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the curve of goodput alone")


def _names(faults: Sequence[Fault]) -> str:
    return ", ".join(fault.name.lower().replace(" ", "-") for fault in faults)


def measure(options: argparse.Namespace) -> list[Row]:
    """What must hold, a row each with its verdict; then a row for each kind of fault and for each fault."""
    record = msgspec.json.decode(options.again.read_bytes(), type=Record) if options.again else _recorded(options)
    if options.record:
        options.record.write_bytes(msgspec.json.encode(record))
    judge = Judge(record)
    rows = [*verdicts(judge), *fault_rows(judge)]
    if options.html:
        options.html.write_text(soak_page(judge, rows, options.model), encoding="utf-8")
    if options.svg:
        options.svg.write_text(drawing(judge), encoding="utf-8")
    return [_about(judge), *rows, *_each(judge)]


def _recorded(options: argparse.Namespace) -> Record:
    seconds = options.minutes * 60
    faults = FAULTS if options.faults is None else named(options.faults)
    every_s = options.every or min(max(seconds / (2 * max(len(faults), 1)), _EVERY_S[0]), _EVERY_S[1])
    plan = Plan(seconds, options.share, every_s, faults)
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in (each.split("=", 1) for each in options.set)]
    port = free_port()
    with serving("--model", options.model, "--engine", "process") as server:
        templates, quiet = asyncio.run(_quiet(server.url, picture_host=f"http://127.0.0.1:{port}"))
    needs = {fault.needs for fault in faults}
    with Scene(
        options.model, needs=needs, http_workers=options.http_workers, pictures_port=port, settings=settings
    ) as scene:
        record = asyncio.run(_soak(scene, plan, templates, quiet, port, options.rate))
        if options.log:
            options.log.write_text(scene.log, encoding="utf-8")
    return record


async def _quiet(url: str, *, picture_host: str) -> tuple[list[Template], dict[int, str]]:
    """The distinct requests, and what a server without load and faults answers to each."""
    requests = _requests(takes_texts=await _takes_texts(url))
    templates = templates_of(requests, picture_host=picture_host)
    # The same pictures in a body: nothing serves them yet.
    return templates, await quiet_digests(url, [replace(each, by_url=None) for each in templates])


def _requests(*, takes_texts: bool) -> list[Request]:
    requests = list(from_mix(load("mixed"), count=_DISTINCT, seed=_SEED).requests)
    if takes_texts:
        requests += from_mix(load("search"), count=_DISTINCT_TEXTS, seed=_SEED).requests
    return requests


async def _takes_texts(url: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(url + "/info") as response:
        return bool((await response.json()).get("text"))


async def _soak(
    scene: Scene, plan: Plan, templates: Sequence[Template], quiet: dict[int, str], pictures_port: int,
    rate: float | None,
) -> Record:  # fmt: skip
    end_host = await picture_host(pictures_port, templates)
    async with Clients(scene.server.url, quiet) as clients:
        capacity = await clients.closed_loop(
            templates, clients=_CAPACITY_CLIENTS, seconds=min(_CAPACITY_S, plan.seconds / 10)
        )
    rate = rate or plan.share * capacity
    _say(f"{capacity:.1f} requests/s are the most that {_CAPACITY_CLIENTS} clients get; {rate:.1f} are sent")
    arrivals = timetable(templates, rate=rate, seconds=plan.seconds, seed=_SEED)
    samples: list[Sample] = []
    async with Clients(scene.server.url, quiet) as clients, asyncio.TaskGroup() as group:
        sampling = group.create_task(_sample(scene, clients, samples))
        slow = group.create_task(_slow_uploads(scene.server.url, templates[0], plan.seconds))
        striking = group.create_task(_strike(scene, plan, clients, templates))
        await clients.open_loop(arrivals)
        struck = await striking
        await slow
        sampling.cancel()
    ended = await asyncio.to_thread(scene.end)
    await end_host()
    return Record(plan.seconds, rate, capacity, clients.outcomes, struck, samples, ended, scene.lacking)


async def _slow_uploads(url: str, template: Template, seconds: float) -> None:
    async with Crowd(url, timeout_s=_PATIENCE_S) as crowd:
        await crowd.slow_uploads(template.wire(), clients=_SLOW_CLIENTS, seconds=seconds)


async def _sample(scene: Scene, clients: Clients, samples: list[Sample]) -> None:
    while True:
        samples.append(Sample(clients.now_s, scene.processes()))
        await asyncio.sleep(len(samples) * _SAMPLE_EVERY_S - clients.now_s)


async def _strike(scene: Scene, plan: Plan, clients: Clients, templates: Sequence[Template]) -> list[Struck]:
    """Each kind once, in an order of its own, before any comes again."""
    faults = [fault for fault in plan.faults if fault.needs not in scene.lacking]
    for fault in plan.faults:
        if fault not in faults:
            _say(f"without {fault.name}: {scene.lacking[fault.needs]}")
    struck = [await _burst(clients, templates, plan)]
    rng = np.random.default_rng([_SEED, 0x51])
    order: list[Fault] = []
    at_s = quiet_s = min(_QUIET_S, plan.seconds / 4)
    apart_s = min(_APART_S, plan.seconds / 4)
    settled = [fault for fault in faults if not fault.replaces_engine] or faults
    while faults and at_s + quiet_s <= plan.seconds:
        if plan.seconds >= GROWTH_JUDGED_FROM_S and at_s > plan.seconds * _ENGINE_STAYS and faults is not settled:
            faults, order = settled, []
        order = order or [faults[place] for place in rng.permutation(len(faults))]
        await asyncio.sleep(max(0.0, at_s - clients.now_s))
        fault, start_s = order.pop(), clients.now_s
        missed = await fault.strike(scene) or ""
        struck.append(Struck(fault.name, fault.sign, start_s, clients.now_s, fault.excused, missed))
        _say(f"{start_s:7.1f} s: {fault.name}, for {clients.now_s - start_s:.1f} s {missed}")
        if fault.replaces_engine:
            struck.append(await _burst(clients, templates, plan))
        at_s = max(at_s + plan.every_s, clients.now_s + apart_s)
    return struck


async def _burst(clients: Clients, templates: Sequence[Template], plan: Plan) -> Struck:
    """Fills packs: an engine takes more memory at the first large ones, which later would look like growth."""
    await asyncio.sleep(min(_BURST_AFTER_S, plan.seconds / 6))
    start_s = clients.now_s
    await clients.burst(sorted(templates, key=_tokens)[-_BURST:])
    return Struck("burst", "B", start_s, clients.now_s, frozenset({429}))


def _tokens(template: Template) -> int:
    """The most that it may have; the server's default is 256."""
    return int(template.request.params.get("max_tokens", 256)) * len(template.request.pictures)


def _say(words: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {words}\n")


def _about(judge: Judge) -> Row:
    record = judge.record
    return {
        "case": "the run", "minutes": rounded(record.seconds / 60), "requests": len(record.outcomes),
        "offered_per_s": rounded(record.offered_per_s), "capacity_per_s": rounded(record.capacity_per_s),
        "faults": len(record.struck), "goodput_outside": rounded(judge.goodput_outside, 4),
        "goodput_within": rounded(judge.goodput_within, 4), "normal_p95_ms": rounded(judge.normal_p95_ms),
        **({"left_out": record.lacking} if record.lacking else {}),
    }  # fmt: skip


def _each(judge: Judge) -> list[Row]:
    return [
        {
            "case": f"at {struck.start_s:.0f} s: {struck.name}", "lasted_s": rounded(struck.end_s - struck.start_s, 1),
            "recovery_s": seconds_or_never(judge.recovery_s(struck)), "limit_ms": rounded(judge.limit_ms(struck)),
        }
        for struck in judge.record.struck
    ]  # fmt: skip
