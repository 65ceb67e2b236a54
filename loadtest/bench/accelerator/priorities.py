"""What interactive requests wait for while bulk fills the server, with classes and without, in turn.

Interactive images come on a timetable at a tenth of what an emulated accelerator can do; bulk keeps four packs of
images in flight. With classes bulk says so, without them nobody does. Latencies count from when a request was due.

| case | what is measured |
|---|---|
| `in process` | an engine given patch rows. `over_p99_ms`: by how much a latency was over the packs under way when the image came and its own, 99th percentile |
| `served` | JPEGs to a server of two HTTP processes and an engine process. The packs under way are taken to be two full ones |

`ok`: with classes `over_p99_ms` is at most 20. `bulk_lost` is the part of bulk's rate without classes that it has not
with them, `lost` that of both together. A device that is slower than a GPU (`--factor`) leaves a small machine time to
keep up, so that it is not the machine which is measured.
"""  # noqa: E501

import argparse
import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import aiohttp
import numpy as np
import uvloop

from loadtest.bench.accelerator import mixed, server
from loadtest.bench.clients.closed_loop import ClosedLoop, Load
from loadtest.bench.clients.requests import packlight
from loadtest.bench.servers.running import Running, free_port, running
from loadtest.traffic.arrivals import due_times
from loadtest.traffic.pictures import Studio

Row = dict[str, object]
_CASES = ("in-process", "served")
_MOST_OVER_MS = 20.0
_FORWARD = re.compile(r"forward;dur=([0-9.]+)")
_SEED, _WARM_S, _PATIENCE_S = 1, 1.0, 60.0
_CHECKOUT = Path(__file__).parents[3]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", nargs="+", choices=_CASES, default=list(_CASES))
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each measurement (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="of a round (default: %(default)g)")
    parser.add_argument("--factor", type=float, default=8.0, help="how much slower than an H200 (default: %(default)g)")
    parser.add_argument("--bulk-share", type=float, default=0.25, help="the setting (default: %(default)g)")


def measure(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    if "in-process" in options.cases:
        seen: dict[bool, list[mixed.Seen]] = {True: [], False: []}
        for classes in _turns(options.rounds):
            mix = mixed.Mix(classes, options.seconds, factor=options.factor, bulk_share=options.bulk_share)
            seen[classes].append(uvloop.run(mixed.run(mix)))
        rows += _rows("in process", seen)
    if "served" in options.cases:
        rows += _rows("served", _served(options))
    return rows


def _turns(rounds: int) -> Iterator[bool]:
    """With classes and without in each round, in changing order."""
    for number in range(rounds):
        yield from (False, True) if number % 2 else (True, False)


def _rows(case: str, seen: dict[bool, list[mixed.Seen]]) -> list[Row]:
    rows = [_row(f"{case}, {'with' if classes else 'without'} classes", seen[classes]) for classes in seen]
    pairs = list(zip(seen[True], seen[False], strict=True))
    bulk = statistics.median(1 - _bulk_per_s(ours) / _bulk_per_s(base) for ours, base in pairs)
    both = statistics.median(1 - _per_s(ours) / _per_s(base) for ours, base in pairs)
    p99 = statistics.median(_p99(base.latencies_ms) / _p99(ours.latencies_ms) for ours, base in pairs)
    over_ms = statistics.median(_p99(_over_ms(each)) for each in seen[True])
    gains = {"p99_ratio": round(p99, 1), "bulk_lost": round(bulk, 3), "lost": round(both, 3)}
    return [*rows, {"case": case, **gains, "verdict": "ok" if over_ms <= _MOST_OVER_MS else "failed"}]


def _row(case: str, rounds: Sequence[mixed.Seen]) -> Row:
    """Medians over the rounds."""

    def median(values: Iterator[float]) -> float:
        return round(statistics.median(values), 1)

    return {
        "case": case,
        "p50_ms": median(float(np.median(each.latencies_ms)) for each in rounds),
        "p99_ms": median(_p99(each.latencies_ms) for each in rounds),
        "ahead_p99_ms": median(_p99(each.ahead_ms) for each in rounds),
        "own_p99_ms": median(_p99(each.own_ms) for each in rounds),
        "over_p99_ms": median(_p99(_over_ms(each)) for each in rounds),
        "bulk_images_s": median(_bulk_per_s(each) for each in rounds),
        "interactive": sum(len(each.latencies_ms) for each in rounds),
        **({"in_next_pack": median(float(np.mean(each.in_next)) for each in rounds)} if rounds[0].in_next else {}),
        **({"busy": round(statistics.median(each.busy for each in rounds), 3)} if rounds[0].busy else {}),
    }


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99))


def _over_ms(seen: mixed.Seen) -> list[float]:
    return [
        latency - ahead - own for latency, ahead, own in zip(seen.latencies_ms, seen.ahead_ms, seen.own_ms, strict=True)
    ]


def _bulk_per_s(seen: mixed.Seen) -> float:
    return seen.bulk_images / seen.seconds


def _per_s(seen: mixed.Seen) -> float:
    return (seen.bulk_images + len(seen.latencies_ms)) / seen.seconds


def _served(options: argparse.Namespace) -> dict[bool, list[mixed.Seen]]:
    seen: dict[bool, list[mixed.Seen]] = {True: [], False: []}
    photos = _photos()
    with _serving(options.factor, options.bulk_share) as ready, ClosedLoop() as sender:
        for classes in (True, *_turns(options.rounds)):
            seen[classes].append(uvloop.run(_round(ready, sender, photos, options, classes=classes)))
    # The first round finds out what packs cost.
    return {True: seen[True][1:], False: seen[False]}


@contextmanager
def _serving(factor: float, bulk_share: float) -> Iterator[Running]:
    with tempfile.NamedTemporaryFile() as file:
        server.Figures.create(Path(file.name))
        order, port = server.Order("so400m", 2, file.name, factor), free_port()
        options = (
            "--port", str(port), "--devices", "cpu", "--engine", "process", "--http-workers", "2",
            "--decode-threads", "2", "--max-batch-tokens", str(mixed.PACK_TOKENS), "--bulk-share", str(bulk_share),
            "--log-level", "error",
        )  # fmt: skip
        environment = {"PYTHONPATH": str(_CHECKOUT)}
        with running(server.command(order, options), port=port, ready_path="/readyz", environment=environment) as ready:
            yield ready


def _photos() -> list[bytes]:
    """JPEGs of 256 tokens that take no resizing."""
    studio, random, photos = Studio(1), np.random.default_rng(_SEED), []
    for _ in range(8):
        file = BytesIO()
        studio.photo(256, 256, random).save(file, "JPEG", quality=85)
        photos.append(file.getvalue())
    return photos


async def _round(
    ready: Running, sender: ClosedLoop, photos: Sequence[bytes], options: argparse.Namespace, *, classes: bool
) -> mixed.Seen:
    mix = mixed.Mix(classes, options.seconds, factor=options.factor)
    more = "&encoding=base64" + ("&priority=bulk" if classes else "")
    bulk = [packlight(photo, mixed.IMAGE_TOKENS, more=more) for photo in photos]
    load = Load(ready.port, ready.pid, bulk, mix.bulk_in_flight, _WARM_S + mix.seconds, warm_s=0.0)
    sending = asyncio.create_task(asyncio.to_thread(sender.send, load))
    await asyncio.sleep(_WARM_S)
    seen = mixed.Seen(seconds=mix.seconds)
    await _search(ready.url, photos, mix, seen)
    answers = await sending
    if answers.failed:
        raise RuntimeError(f"{answers.failed} requests of bulk were answered with an error")
    first_s = answers.samples[0].at_s + _WARM_S
    seen.bulk_images = sum(first_s <= at_s < first_s + mix.seconds for at_s in answers.answered_s)
    return seen


async def _search(url: str, photos: Sequence[bytes], mix: mixed.Mix, seen: mixed.Seen) -> None:
    """Sends interactive images when they are due."""
    full_s = mixed.full_pack_s(mix.factor)
    rate = mix.interactive_share * mixed.PACK_IMAGES / full_s
    target, headers = f"{url}/embed?max_tokens={mixed.IMAGE_TOKENS}", {"Content-Type": "image/jpeg"}
    began_s = time.monotonic()

    async def ask(due_s: float, photo: bytes) -> None:
        async with session.post(target, data=photo, headers=headers) as answer:
            await answer.read()
            answer.raise_for_status()
        took_s = time.monotonic() - began_s - due_s
        forward = _FORWARD.search(answer.headers["Server-Timing"])
        assert forward, "an answer without its forward"
        seen.latencies_ms.append(1e3 * took_s)
        seen.ahead_ms.append(2e3 * full_s)
        seen.own_ms.append(float(forward[1]))

    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as asking,
    ):
        for number, due_s in enumerate(due_times("poisson", rate=rate, duration_s=mix.seconds, seed=_SEED)):
            await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
            asking.create_task(ask(float(due_s), photos[number % len(photos)]))
