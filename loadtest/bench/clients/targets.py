"""The servers that `python -m loadtest.bench serve` compares, each with requests in the form that it takes."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.bench.clients import requests
from loadtest.bench.clients.padding import Counts, noted, of_metrics
from loadtest.bench.peers import servers as peers
from loadtest.bench.peers.environments import PeerUnavailable
from loadtest.bench.servers.base_model import write_base_model, write_model
from loadtest.bench.servers.running import DidNotStart, Running, free_port, paused, running, serving
from model.checkpoint import tiny

CORES = len(os.sched_getaffinity(0))

Row = dict[str, object]


# Every kind of request that photographs, pages and thumbnails make: from 64 tokens to 1,024.
_MIXED = (64, 576, 256, 128, 1024, 256, 576, 256)

Start = Callable[[ExitStack], "Target"]


@dataclass(frozen=True, slots=True)
class Case:
    """model: a folder or a name. budgets: `max_tokens` of the requests, in turn. batch: images of a full pack."""

    name: str
    model: str
    budgets: tuple[int, ...]
    batch: int

    @property
    def in_flight(self) -> int:
        return 2 * self.batch

    @property
    def fixed(self) -> bool:
        """Every image is a square of one size."""
        return "CLIP" in self.name


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, and requests in the form that it takes. counts: what it has computed up to now."""

    name: str
    server: Running
    requests: list[bytes]
    ours: bool
    counts: Callable[[], Counts | None]


def cases(options: argparse.Namespace, folder: Path, rows: list[Row]) -> Iterator[Case]:
    """The requested cases, with their models written. A case that cannot run becomes a line in `rows`."""

    def base(place: Path) -> None:
        write_base_model(place, options.layers)

    wanted = options.cases.split(",")
    if "tiny" in wanted:
        yield Case("packlight-tiny, 64 tokens", _written(folder / "tiny", _write_tiny), (64,), batch=64)
    if "base" in wanted:
        yield Case("base, 256 tokens", _written(folder / "base", base), (256,), batch=16)
    if "mixed" in wanted:
        yield Case("base, 64 to 1,024 tokens", _written(folder / "mixed", base), _MIXED, batch=16)
    if "fixed" in wanted:
        try:
            clip = _written(folder / "clip", lambda place: peers.write_clip(place, options.peers_dir))
            yield Case("CLIP of the base shape, 256 tokens", clip, (256,), batch=16)
        except PeerUnavailable as error:
            rows.append({"case": "fixed", "cannot_run": str(error)})


def _written(folder: Path, write: Callable[[Path], None]) -> str:
    folder.mkdir()
    write(folder)
    return str(folder)


def _write_tiny(folder: Path) -> None:
    """The shape of packlight-tiny as a folder that other servers can read."""
    write_model(folder, tiny.CONFIG)


def alone(target: Target, targets: Sequence[Target]) -> AbstractContextManager[None]:
    return paused(other.server for other in targets if other is not target)


def makers(case: Case, photos: list[bytes], options: argparse.Namespace) -> Iterator[tuple[str, Start]]:
    """Names of servers, and functions that start them. What a function raises says why it cannot."""
    kinds = [(engine, options.dtype) for engine in ("thread", "process")]
    if case.fixed and options.dtype == "auto":
        kinds.append(("thread", "float32"))
    for engine, dtype in kinds:
        name = f"packlight, engine={engine}" + (f", {dtype}" if dtype != "auto" else "")
        yield name, _packlight(name, case, photos, ("--engine", engine, "--dtype", dtype))
    wanted = [name for name in options.peers.split(",") if name]
    for peer, engine in (("litserve", "transformers"), ("litserve-openvino", "openvino")):
        for workers in sorted({1, CORES}) if peer in wanted and not case.fixed else ():
            name = f"{peer}, {workers} workers"
            yield name, _litserve(name, case, photos, options, (engine, workers))
    if "infinity" in wanted and case.fixed:
        yield "infinity, float32", _infinity(case, photos, options.peers_dir)


def prepared(case: Case, photos: list[bytes], form: Callable[[bytes, int], bytes]) -> list[bytes]:
    """A request for each photo, with the budgets in turn. form: a server's, of a photo and its `max_tokens`."""
    return [form(photo, case.budgets[index % len(case.budgets)]) for index, photo in enumerate(photos)]


def _packlight(name: str, case: Case, photos: list[bytes], options: Sequence[str]) -> Start:
    def start(stack: ExitStack) -> Target:
        server = stack.enter_context(packlight_server(case, *options))
        return Target(name, server, prepared(case, photos, requests.packlight), True, lambda: of_metrics(server.url))

    return start


def packlight_server(case: Case, *options: str) -> AbstractContextManager[Running]:
    return serving("--model", case.model, *options)


def _litserve(name: str, case: Case, photos: list[bytes], options: argparse.Namespace, kind: tuple[str, int]) -> Start:
    """kind: the engine in it, and how many workers."""

    def start(stack: ExitStack) -> Target:
        engine, workers = kind
        port, counts = free_port(), Path(case.model) / f"counts-{engine}-{workers}"
        dtype = _native() if options.dtype == "auto" else options.dtype
        served = peers.LitServe(engine, Path(case.model), dtype, workers, case.batch, counts)
        server = running(
            served.command(options.peers_dir, port), port=port, ready_path="/health",
            environment=peers.LITSERVE_ENVIRONMENT,
        )  # fmt: skip
        sent = prepared(case, photos, requests.litserve)
        return Target(name, stack.enter_context(server), sent, False, lambda: noted(counts))

    return start


def _infinity(case: Case, photos: list[bytes], folder: Path) -> Start:
    def start(stack: ExitStack) -> Target:
        port = free_port()
        command = peers.infinity_command(Path(case.model), folder=folder, port=port, batch_size=case.batch)
        server = running(
            command, port=port, ready_path="/health",
            environment=peers.INFINITY_ENVIRONMENT,
        )  # fmt: skip
        sent = [requests.infinity(photo) for photo in photos]
        return Target("infinity, float32", stack.enter_context(server), sent, False, lambda: None)

    return start


def _native() -> str:
    from model.kernels.hardware import has_native_bfloat16

    return "bfloat16" if has_native_bfloat16() else "float32"


def start_target(named: tuple[str, Start], stack: ExitStack, case: Case, rows: list[Row]) -> Target | None:
    name, start = named
    try:
        target = start(stack)
        requests.vector(target.server.port, target.requests[0])
    except (PeerUnavailable, DidNotStart, requests.Refused) as error:
        rows.append({"case": case.name, "server": name, "cannot_run": str(error)})
        return None
    return target


def agreement(target: Target, targets: list[Target]) -> Row:
    if target.ours:
        return {}
    ours = next((other for other in targets if other.ours), None)
    if ours is None:
        return {}
    theirs, our = (requests.vector(each.server.port, each.requests[0]) for each in (target, ours))
    return {"cosine": round(float(theirs @ our / np.linalg.norm(theirs) / np.linalg.norm(our)), 4)}
