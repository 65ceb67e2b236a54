"""The servers that `python -m loadtest.bench serve` compares, each with requests in the form that it takes."""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from loadtest.bench.clients import requests
from loadtest.bench.servers import peer as peers
from loadtest.bench.servers.base_model import write_base_model
from loadtest.bench.servers.running import DidNotStart, Running, free_port, paused, running, serving
from model.checkpoint import tiny

CORES = len(os.sched_getaffinity(0))

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """model: a folder or a name. batch: images of a full pack."""

    name: str
    model: str
    max_tokens: int
    batch: int

    @property
    def in_flight(self) -> int:
        return 2 * self.batch


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, and requests in the form that it takes."""

    name: str
    server: Running
    requests: list[bytes]
    ours: bool


def cases(options: argparse.Namespace, folder: Path, rows: list[Row]) -> Iterator[Case]:
    """The requested cases, with their models written. A case that cannot run becomes a line in `rows`."""
    wanted = options.cases.split(",")
    if "tiny" in wanted:
        yield Case("packlight-tiny, 64 tokens", _written(folder / "tiny", _write_tiny), max_tokens=64, batch=64)
    if "base" in wanted:
        yield Case("base, 256 tokens", _written(folder / "base", write_base_model), max_tokens=256, batch=16)
    if "fixed" in wanted:
        try:
            model = _written(folder / "clip", peers.peer("infinity", options.peers_dir).write_clip)
            yield Case("CLIP of the base shape, 256 tokens", model, max_tokens=256, batch=16)
        except peers.PeerUnavailable as error:
            rows.append({"case": "fixed", "cannot_run": str(error)})


def _written(folder: Path, write: Any) -> str:
    folder.mkdir()
    write(folder)
    return str(folder)


def _write_tiny(folder: Path) -> None:
    """The shape of packlight-tiny as a folder that other servers can read."""
    shape = {
        "hidden_size": tiny.CONFIG.width,
        "num_hidden_layers": tiny.CONFIG.depth,
        "num_attention_heads": tiny.CONFIG.heads,
        "intermediate_size": tiny.CONFIG.mlp_width,
    }
    save_file(tiny.seeded_tensors(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip2_vision_model"} | shape), encoding="utf-8")


def alone(target: Target, targets: Sequence[Target]) -> AbstractContextManager[None]:
    return paused(other.server for other in targets if other is not target)


def makers(case: Case, photos: list[bytes], options: argparse.Namespace) -> Iterator[Any]:
    """Names of servers, and functions that start them. What a function raises says why it cannot."""
    kinds = [("thread", "auto"), ("process", "auto")]
    if "CLIP" in case.name:
        kinds.append(("thread", "float32"))
    for engine, dtype in kinds:
        yield (
            f"packlight, engine={engine}" + (f", {dtype}" if dtype != "auto" else ""),
            _packlight(case, photos, engine, dtype),
        )
    wanted = [name for name in options.peers.split(",") if name]
    if "litserve" in wanted and "CLIP" not in case.name:
        for workers in sorted({1, CORES}):
            yield f"litserve, {workers} workers", _litserve(case, photos, options.peers_dir, workers)
    if "infinity" in wanted and "CLIP" in case.name:
        yield "infinity, float32", _infinity(case, photos, options.peers_dir)


def _packlight(case: Case, photos: list[bytes], engine: str, dtype: str) -> Any:
    def start(stack: ExitStack) -> tuple[Running, list[bytes], bool]:
        server = stack.enter_context(packlight_server(case, "--engine", engine, "--dtype", dtype))
        return server, [requests.packlight(photo, case.max_tokens) for photo in photos], True

    return start


def packlight_server(case: Case, *options: str) -> AbstractContextManager[Running]:
    return serving("--model", case.model, *options)


def _litserve(case: Case, photos: list[bytes], folder: Path, workers: int) -> Any:
    def start(stack: ExitStack) -> tuple[Running, list[bytes], bool]:
        port = free_port()
        command = peers.peer("litserve", folder).litserve(
            Path(case.model), port=port, max_tokens=case.max_tokens, dtype=_dtype(), workers=workers,
            batch_size=case.batch,
        )  # fmt: skip
        server = running(command, port=port, ready_path="/health")
        return stack.enter_context(server), [requests.litserve(photo) for photo in photos], False

    return start


def _infinity(case: Case, photos: list[bytes], folder: Path) -> Any:
    def start(stack: ExitStack) -> tuple[Running, list[bytes], bool]:
        port = free_port()
        command = peers.peer("infinity", folder).infinity(Path(case.model), port=port, batch_size=case.batch)
        server = running(
            command, port=port, ready_path="/health",
            environment=peers.INFINITY_ENVIRONMENT,
        )  # fmt: skip
        return stack.enter_context(server), [requests.infinity(photo) for photo in photos], False

    return start


def _dtype() -> str:
    from model.kernels.hardware import has_native_bfloat16

    return "bfloat16" if has_native_bfloat16() else "float32"


def start_target(named: tuple[str, Any], stack: ExitStack, case: Case, rows: list[Row]) -> Target | None:
    name, start = named
    try:
        server, prepared, ours = start(stack)
        target = Target(name, server, prepared, ours)
        requests.vector(server.port, prepared[0])
    except (peers.PeerUnavailable, DidNotStart, requests.Refused) as error:
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
