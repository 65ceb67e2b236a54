"""Whether the host keeps up with a GPU: engine and server in front of an emulated accelerator.

It takes the time that an H200 would take (16,384 tokens of base in 4 ms, of so400m in 19 ms, copies at the rate of
PCIe 5) and next to no processor. Everything around it is real.

| row | what is measured |
|---|---|
| `rows in process` | the share of time for which the device of base computes, given patch rows in process |
| `two packs` | so400m with two packs under way over one, in turn, with as many images in flight: images a second, and the 99th percentile of their latency |
| `between processes` | patch rows from one process to an engine in another, without HTTP: the processor time an image of both, and with `--before` how much less that is |
| `served` | a server of two HTTP processes and an engine process, JPEGs of 256×256 pixels over sockets as fast as this machine can send them: the device's share, or how much of the cores is taken, and images a second |

With `--before CHECKOUT` all rows but `two packs` are measured with that checkout too, in turn. Gains are medians of
ratios within a round. Other programs on the machine lower all rates; `cpu_us` hardly depends on them: it is the
processor time an image, of the engine process, of the HTTP processes and of the sender.
"""  # noqa: E501

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from loadtest.bench.accelerator import between, inside, server
from loadtest.bench.clients.closed_loop import ClosedLoop, Load
from loadtest.bench.clients.requests import packlight, packlight_form
from loadtest.bench.servers.processes import process_uses
from loadtest.bench.servers.running import Running, free_port, running
from loadtest.traffic.pictures import Studio
from model.kernels.hardware import usable_cores

Row = dict[str, object]
_CASES = ("rows", "two-packs", "between", "served")
_LEAST_BUSY, _LEAST_GAIN_OF_TWO, _LEAST_GAIN = 0.97, 1.25, 1.5
# A queue for a second pack, and one for a third that is chosen: so many images of 256 tokens are four packs.
_IN_FLIGHT = 4 * inside.PACK_TOKENS // 256
_FULL_CORES = 0.95
_CHECKOUT = Path(__file__).parents[3]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", nargs="+", choices=_CASES, default=list(_CASES))
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each measurement (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of a round (default: %(default)g)")
    parser.add_argument(
        "--images", nargs="+", type=int, default=[1, 16], metavar="N", help="a request of `served` (default: 1 16)"
    )


def measure(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    if "rows" in options.cases:
        rows.append(_rows(options))
    if "two-packs" in options.cases:
        rows.append(_two_packs(options))
    if "between" in options.cases:
        rows.append(_between(options))
    if "served" in options.cases:
        rows += [_served(images, options) for images in options.images]
    return rows


def _rows(options: argparse.Namespace) -> Row:
    order = inside.Order("base", 2, _IN_FLIGHT, options.seconds)
    seen: dict[str, list[inside.Seen]] = {"now": [], "before": []}
    for which in _turns(options):
        seen[which].append(inside.measured(order, options.before if which == "before" else None))
    now = seen["now"]
    row: Row = {"case": "rows in process"} | _medians(now)
    if seen["before"]:
        pairs = list(zip(now, seen["before"], strict=True))
        row["before_busy"] = round(statistics.median(each.busy for each in seen["before"]), 3)
        row["gain"] = round(statistics.median(each.images_s / base.images_s for each, base in pairs), 2)
        row["cpu_gain"] = round(statistics.median(base.cpu_us / each.cpu_us for each, base in pairs), 2)
    right = not any(each.wrong for each in now)
    return row | {"verdict": "ok" if right and max(each.busy for each in now) >= _LEAST_BUSY else "failed"}


def _medians(seen: Sequence[inside.Seen]) -> Row:
    return {
        "busy": round(statistics.median(each.busy for each in seen), 3),
        "early_ms": round(statistics.median(each.early_ms for each in seen), 2),
        "images_s": round(statistics.median(each.images_s for each in seen)),
        "images_a_pack": round(statistics.median(each.images_a_pack for each in seen), 1),
        "p50_ms": round(statistics.median(each.p50_ms for each in seen), 1),
        "p99_ms": round(statistics.median(each.p99_ms for each in seen), 1),
        "cpu_us": round(statistics.median(each.cpu_us for each in seen), 1),
        "wrong": sum(each.wrong for each in seen),
    }


def _two_packs(options: argparse.Namespace) -> Row:
    one: list[inside.Seen] = []
    two: list[inside.Seen] = []
    for number in range(options.rounds):
        for depth in (1, 2) if number % 2 else (2, 1):
            order = inside.Order("so400m", depth, _IN_FLIGHT, options.seconds)
            (one if depth == 1 else two).append(inside.measured(order))
    pairs = list(zip(two, one, strict=True))
    gain = statistics.median(each.images_s / base.images_s for each, base in pairs)
    p99 = statistics.median(each.p99_ms / base.p99_ms for each, base in pairs)
    right = not any(each.wrong for each in two)
    return {"case": "two packs"} | _medians(two) | {
        "one_busy": round(statistics.median(each.busy for each in one), 3),
        "gain": round(gain, 2),
        "p99_ratio": round(p99, 2),
        "verdict": "ok" if right and gain >= _LEAST_GAIN_OF_TWO and p99 <= 1 else "failed",
    }  # fmt: skip


def _between(options: argparse.Namespace) -> Row:
    seen: dict[str, list[between.Passed]] = {"now": [], "before": []}
    for which in _turns(options):
        seen[which].append(between.measured(options.seconds, options.before if which == "before" else None))
    row: Row = {"case": "between processes"}
    for which in ("now", "before") if options.before else ("now",):
        prefix = "" if which == "now" else "before_"
        row[f"{prefix}sender_us"] = round(statistics.median(each.sender_us for each in seen[which]))
        row[f"{prefix}engine_us"] = round(statistics.median(each.engine_us for each in seen[which]))
    if options.before:
        pairs = zip(seen["now"], seen["before"], strict=True)
        gain = statistics.median(
            (base.sender_us + base.engine_us) / (each.sender_us + each.engine_us) for each, base in pairs
        )
        row |= {"cpu_gain": round(gain, 2), "verdict": "ok" if gain >= _LEAST_GAIN else "failed"}
    return row


class _Round:
    """One round of a server: what its device did, and what its processes took."""

    def __init__(self, images: int, seconds: float, busy_s: float, packs: float, cpu_s: dict[str, float]) -> None:
        self.images_s, self.busy = images / seconds, busy_s / seconds
        self.images_a_pack = images / max(1.0, packs)
        self.cpu_us = {name: spent / images * 1e6 for name, spent in cpu_s.items()}
        self.cores = sum(cpu_s.values()) / seconds

    @property
    def server_us(self) -> float:
        return sum(spent for name, spent in self.cpu_us.items() if name != "sender")


class _Emulated:
    """A server that runs, and the file in which its device counts."""

    def __init__(self, running_server: Running, figures: server.Figures) -> None:
        self._server, self._figures = running_server, figures

    def round(self, sender: ClosedLoop, requests: Sequence[bytes], images: int, seconds: float) -> _Round:
        before, spent = self._figures.read(), self._cpu_s(sender)
        load = Load(self._server.port, self._server.pid, requests, max(8, _IN_FLIGHT // images), seconds, warm_s=0.0)
        answers = sender.send(load)
        after, now = self._figures.read(), self._cpu_s(sender)
        # All answers count, and so does all the time until the last.
        took_s = answers.answered_s[-1] - answers.answered_s[0]
        assert not answers.failed, f"{answers.failed} requests failed"
        return _Round(
            images * len(answers.answered_s), took_s, after[0] - before[0], after[1] - before[1],
            {name: now[name] - spent[name] for name in now},
        )  # fmt: skip

    def _cpu_s(self, sender: ClosedLoop) -> dict[str, float]:
        spent = {"engine": 0.0, "http": 0.0}
        for use in process_uses(self._server.pid):
            if use.name in spent:
                spent[use.name] += use.cpu_s
        return spent | {"sender": sum(use.cpu_s for use in process_uses(sender.pid))}


@contextmanager
def _serving(checkout: Path | None) -> Iterator[_Emulated]:
    with tempfile.NamedTemporaryFile() as file:
        server.Figures.create(Path(file.name))
        order, port = server.Order("base", 2, file.name), free_port()
        options = (
            "--port", str(port), "--devices", "cpu", "--engine", "process", "--http-workers", "2",
            "--decode-threads", str(max(2, usable_cores())), "--max-batch-tokens", str(inside.PACK_TOKENS),
            "--max-queue-tokens", str(64 * inside.PACK_TOKENS), "--log-level", "error",
            "--default-timeout-ms", "3600000", "--max-inflight-bytes", str(2**30),
        )  # fmt: skip
        environment = {"PYTHONPATH": str((checkout or _CHECKOUT).resolve())}
        with running(server.command(order, options), port=port, ready_path="/readyz", environment=environment) as ready:
            yield _Emulated(ready, server.Figures(file.name))


def _served(images: int, options: argparse.Namespace) -> Row:
    requests = _requests(images)
    rounds: dict[str, list[_Round]] = {"now": [], "before": []}
    with ClosedLoop() as sender:
        for which in _turns(options):
            # One at a time: two servers would share the processor's caches.
            with _serving(options.before if which == "before" else None) as emulated:
                emulated.round(sender, requests, images, 1.0)
                rounds[which].append(emulated.round(sender, requests, images, options.seconds))
    return _served_row(images, rounds["now"], rounds["before"])


def _served_row(images: int, now: Sequence[_Round], before: Sequence[_Round]) -> Row:
    def median(values: Iterator[float], digits: int = 3) -> float:
        return round(statistics.median(values), digits)

    cores = usable_cores()
    row: Row = {
        "case": f"served, {images} images a request" if images > 1 else "served, an image a request",
        "images_s": median(each.images_s for each in now),
        "busy": median(each.busy for each in now),
        "of_cores": median(each.cores / cores for each in now),
        "images_a_pack": median((each.images_a_pack for each in now), 1),
    }
    row |= {f"{name}_us": median((each.cpu_us[name] for each in now), 0) for name in now[0].cpu_us}
    full = any(each.busy >= _LEAST_BUSY or each.cores >= _FULL_CORES * cores for each in now)
    if before:
        pairs = list(zip(now, before, strict=True))
        gain = median((each.images_s / base.images_s for each, base in pairs), 2)
        row |= {f"before_{name}_us": median((each.cpu_us[name] for each in before), 0) for name in now[0].cpu_us}
        row["gain"] = gain
        row["cpu_gain"] = median((base.server_us / each.server_us for each, base in pairs), 2)
        return row | {"verdict": "ok" if full and gain >= _LEAST_GAIN else "failed"}
    return row | {"verdict": "ok" if full else "failed"}


def _turns(options: argparse.Namespace) -> Iterator[str]:
    """Both checkouts in each round, in changing order."""
    for number in range(options.rounds):
        if options.before:
            yield from ("before", "now") if number % 2 else ("now", "before")
        else:
            yield "now"


def _requests(images: int) -> list[bytes]:
    """Whole requests of so many JPEGs, which take 256 tokens each and no resizing."""
    studio, random, photos = Studio(1), np.random.default_rng(1), []
    for _ in range(8):
        file = BytesIO()
        studio.photo(256, 256, random).save(file, "JPEG", quality=85)
        photos.append(file.getvalue())
    more = "&encoding=base64"
    if images == 1:
        return [packlight(photo, 256, more=more) for photo in photos]
    groups = [[photos[(first + each) % len(photos)] for each in range(images)] for first in range(len(photos))]
    return [packlight_form(group, 256, more=more) for group in groups]
