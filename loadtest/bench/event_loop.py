"""How long the server's event loop is blocked while images are decoded, packed and answered.

The real application runs under uvicorn in this process, with an encoder of the base width and one block. Client
processes send the most expensive requests: 12-megapixel photos, and 1,024 × 768 token vectors as the answer. A task on
the server's loop sleeps for a millisecond again and again. It records how late it wakes, and how much processor time
the loop's thread spent. Part of the lateness comes from the operating system, most of all on few cores: `idle` shows
that part with nothing to do, `busy elsewhere` with as many processes that only burn time. All clients run at the lowest
priority.

`--formats` walks all formats instead: see `loadtest.bench.decoding.formats`.
"""

import argparse
import asyncio
import multiprocessing
import os
import time
from multiprocessing.sharedctypes import Synchronized

import httpx
import numpy as np

from loadtest.bench.decoding import formats
from loadtest.bench.refusal import jpeg
from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint
from model.encoders.siglip.naflex import NaFlexConfig
from model.running.runner import Runner
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.http.app import create_app
from service.http.protocol.server import Server, config_of
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.decoder import Decoder
from service.settings.settings import Settings

_SECONDS = 8.0
_CLIENTS = 4
_BASE_WIDTH = NaFlexConfig(width=768, depth=1, heads=12, mlp_width=3072)
_CASES: dict[str, dict[str, str] | None] = {
    "idle": None,
    "busy elsewhere": None,
    "12 MP photos": {"max_tokens": "256"},
    "12 MP photos, 1,024 × 768 token vectors as base64": {
        "max_tokens": "1024",
        "output": "tokens",
        "encoding": "base64",
    },
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--formats", action="store_true", help="walk all formats instead, up to every limit")


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """Milliseconds by which the loop was late, and answers in that time, for each case."""
    return formats.measure() if options.formats else asyncio.run(_measure())


async def _measure() -> list[dict[str, object]]:
    server, engine, decoder = _build()
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/embed"
    rows = [await _case(name, url, query) for name, query in _CASES.items()]
    server.should_exit = True
    await serving
    decoder.close()
    engine.close(timeout_s=10)
    return rows


async def _case(name: str, url: str, query: dict[str, str] | None) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    answers = context.Value("i", 0)
    clients = [
        context.Process(target=_send if query else _burn, args=(url, query, answers))
        for _ in range(0 if name == "idle" else _CLIENTS)
    ]
    for client in clients:
        client.start()
    # Until all clients have finished importing and are sending. Other processes change the count.
    while clients and answers.value < 2 * _CLIENTS:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    late_ms, spent_ms = await _watch(_SECONDS)
    for client in clients:
        client.terminate()
        await asyncio.to_thread(client.join)
    p50, p99 = np.percentile(late_ms, [50, 99])
    return {
        "case": name,
        "answers": answers.value if query else 0,
        "late_p50_ms": round(float(p50), 2),
        "late_p99_ms": round(float(p99), 2),
        "late_max_ms": round(max(late_ms), 2),
        "loop_cpu_max_ms": round(max(spent_ms), 2),
    }


async def _watch(seconds: float) -> tuple[list[float], list[float]]:
    """How much too long each sleep was, and this thread's processor time in it, in milliseconds."""
    late_ms, spent_ms = [], []
    end_s = time.perf_counter() + seconds
    while (asleep_s := time.perf_counter()) < end_s:
        spent_s = time.thread_time()
        await asyncio.sleep(0.001)
        late_ms.append((time.perf_counter() - asleep_s - 0.001) * 1000)
        spent_ms.append((time.thread_time() - spent_s) * 1000)
    return late_ms, spent_ms


def _send(url: str, query: dict[str, str], answers: "Synchronized[int]") -> None:
    os.nice(19)
    photo = jpeg(3000, 4000)
    with httpx.Client(timeout=60) as client:
        while True:
            client.post(url, params=query, content=photo, headers={"Content-Type": "image/jpeg"}).raise_for_status()
            with answers.get_lock():
                answers.value += 1


def _burn(url: str, query: None, started: "Synchronized[int]") -> None:
    os.nice(19)
    with started.get_lock():
        started.value += 2
    while True:
        sum(range(10_000))


def _build() -> tuple[Server, Engine, Decoder]:
    checkpoint = Checkpoint(
        name="base width, one block, random",
        config=_BASE_WIDTH,
        tensors=tiny.seeded_tensors(_BASE_WIDTH),
        preprocessing=tiny.PREPROCESSING,
        digest="",
    )
    runner = Runner(checkpoint)
    model = ModelFacts(
        name=checkpoint.name,
        dim=runner.width,
        token_dim=runner.token_width,
        geometry=tiny.PREPROCESSING.geometry,
        default_max_tokens=256,
        parameters=runner.parameters,
        fingerprint="",
        fast_fingerprint="",
        device="cpu",
        dtype=runner.dtype_name,
        attention=runner.attention,
    )
    settings = Settings(port=0, decode_threads=2)
    metrics = Metrics()
    engine = Engine(HostDevice(runner), model, Limits.of(settings, model), metrics=metrics)
    decoder = Decoder.of(settings, model.geometry)
    return Server(config_of(create_app(settings, engine, decoder, metrics), settings, metrics)), engine, decoder
