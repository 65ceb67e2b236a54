"""An engine in front of an emulated accelerator, given patch rows in process. Measured in a process of its own, with
the modules of this checkout or of an earlier one."""

import asyncio
import gc
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

_CHECKOUT = Path(__file__).parents[3]
PACK_TOKENS = 16_384
_PATCH_BYTES = 768
_GRIDS = ((16, 16), (12, 21), (14, 18), (18, 14))


@dataclass(frozen=True, slots=True)
class Order:
    """shape: `base` or `so400m`. depth: packs under way. images: in flight at any time."""

    shape: str
    depth: int
    images: int
    seconds: float
    warm_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """busy: share of the time for which the device computed. early_ms: how long before the device was free a pack came,
    or longer, in nine cases of ten; its copy takes 0.25 ms of that. cpu_us: processor time an image, the callers'
    included. wrong: answers that were not the image's."""

    busy: float
    early_ms: float
    images_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    images_a_pack: float
    wrong: int


def measured(order: Order, checkout: Path | None = None) -> Seen:
    """Raises `CalledProcessError`."""
    command = [sys.executable, __file__, json.dumps(asdict(order))]
    environment = os.environ | {"PYTHONPATH": str((checkout or _CHECKOUT).resolve())}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd="/")
    return Seen(**json.loads(answer.stdout.splitlines()[-1]))


def _engine(order: Order, device_module: Any) -> tuple[Any, Any]:
    """An engine, and the timeline of its device."""
    from model.sizing.geometry import Geometry
    from service.engine.engine import Engine
    from service.limits import Limits, ModelFacts
    from service.metrics import Metrics

    width = {"base": 768, "so400m": 1152}[order.shape]
    facts = ModelFacts(
        name="emulated", dim=width, token_dim=width, geometry=Geometry.for_naflex(16, 256), default_max_tokens=256,
        parameters=1, fingerprint="", fast_fingerprint="", device="cuda:0", dtype="bfloat16", attention="varlen",
    )  # fmt: skip
    limits = Limits(256, 1024, PACK_TOKENS, 64 * PACK_TOKENS)
    seconds = {"base": device_module.H200_BASE, "so400m": device_module.H200_SO400M}[order.shape]
    vectors = partial(device_module.sampled_vectors, width=width)
    if importlib.util.find_spec("service.engine.device") is None:
        device = device_module.EmulatedRunner(seconds, vectors=vectors)
    else:
        device = device_module.EmulatedDevice(seconds, depth=order.depth, vectors=vectors)
    return Engine(device, facts, limits, metrics=Metrics()), device.timeline


async def _run(order: Order, device_module: Any) -> Seen:
    from model.pack import pack
    from service.engine.client import ImageJob

    random = np.random.default_rng(0)
    jobs, wanted = [], []
    for number in range(64):
        grid = _GRIDS[number % len(_GRIDS)]
        rows = random.integers(0, 256, (grid[0] * grid[1], _PATCH_BYTES), dtype=np.uint8)
        jobs.append(ImageJob(rows, (grid,), 256, None, False))
        wanted.append(device_module.sampled_vectors(pack([rows], [grid]))[0])
    engine, timeline = _engine(order, device_module)
    latencies_s: list[float] = []
    end_s = time.perf_counter() + order.warm_s + order.seconds
    wrong = 0

    async def caller(number: int) -> None:
        nonlocal wrong
        while (now_s := time.perf_counter()) < end_s:
            number = (number + 7) % len(jobs)
            result = await engine.submit(jobs[number])
            latencies_s.append(time.perf_counter() - now_s)
            if len(latencies_s) % 64 == 0:
                wrong += not np.array_equal(result.pooled[0, :16], wanted[number][:16])

    _settle()
    callers = [asyncio.create_task(caller(number)) for number in range(order.images)]
    await asyncio.sleep(order.warm_s)
    timeline.forget()
    latencies_s.clear()
    began_s, began_cpu_s = time.perf_counter(), _cpu_s()
    await asyncio.sleep(order.seconds)
    took_s, cpu_s = time.perf_counter() - began_s, _cpu_s() - began_cpu_s
    images, packs, busy = len(latencies_s), timeline.packs, timeline.busy_share
    early_ms = float(np.percentile(timeline.early_s, 10)) * 1e3
    measured_s = np.array(latencies_s)
    await asyncio.gather(*callers)
    engine.close(timeout_s=10)
    p50, p99 = np.percentile(measured_s, [50, 99]) * 1e3
    return Seen(busy, early_ms, images / took_s, float(p50), float(p99), cpu_s / images * 1e6, images / packs, wrong)


def _settle() -> None:
    """As a server does when its start is over. A collection of all that was imported takes the time of six packs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str]) -> None:
    # The folder of this file comes first, and holds modules with common names.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent.resolve()]
    import uvloop

    spec = importlib.util.spec_from_file_location("emulated_device", Path(__file__).with_name("device.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    seen = uvloop.run(_run(Order(**json.loads(arguments[0])), module))
    print(json.dumps(asdict(seen)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
