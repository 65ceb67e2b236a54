"""Interactive images on a timetable among bulk that always waits, in front of an emulated accelerator, in process.

Of each interactive image it is known which packs were under way when it came, and when they and its own ended.
"""

import asyncio
import time
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from loadtest.bench.accelerator.device import H200_SO400M, EmulatedDevice, PackSeconds, sampled_vectors
from loadtest.traffic.arrivals import due_times
from model.sizing.geometry import Geometry
from service.engine.client import ImageJob
from service.engine.engine import Engine
from service.engine.under_way import EngineWatch
from service.limits import Limits, ModelFacts
from service.metrics import Metrics

PACK_TOKENS, IMAGE_TOKENS = 16_384, 256
PACK_IMAGES = PACK_TOKENS // IMAGE_TOKENS
_WIDTH, _PATCH_BYTES = 1152, 768
_WARM_S = 1.0
_SEED = 1


@dataclass(frozen=True, slots=True)
class Mix:
    """classes: bulk says so; otherwise all are interactive. interactive_share: of the device's capacity, in images a
    second. bulk_in_flight: images at any time. factor: how many times slower than an H200 the device is."""

    classes: bool
    seconds: float
    interactive_share: float = 0.1
    bulk_in_flight: int = 4 * PACK_IMAGES
    factor: float = 4.0
    bulk_share: float = 0.25


@dataclass(slots=True)
class Seen:
    """What became of interactive images, in milliseconds: latencies, how long the packs under way took that each met,
    and its own; whether it was in the next pack that was chosen. bulk_images: those that ran in `seconds`. busy: the
    device's share of the time."""

    latencies_ms: list[float] = field(default_factory=list)
    ahead_ms: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    in_next: list[bool] = field(default_factory=list)
    bulk_images: int = 0
    seconds: float = 0.0
    busy: float = 0.0


def pack_seconds(factor: float) -> PackSeconds:
    return H200_SO400M.scaled(factor)


def full_pack_s(factor: float) -> float:
    return pack_seconds(factor).of_lengths([IMAGE_TOKENS] * PACK_IMAGES)


class _Watch(EngineWatch):
    """When each pack ended, by `time.monotonic`."""

    def __init__(self) -> None:
        self.ended_s: dict[int, float] = {}

    def ends(self, number: int, *, succeeded: bool) -> None:
        self.ended_s[number] = time.monotonic()


async def run(mix: Mix) -> Seen:
    facts = ModelFacts(
        name="emulated", dim=_WIDTH, token_dim=_WIDTH, geometry=Geometry.for_naflex(16, 256), default_max_tokens=256,
        parameters=1, fingerprint="", fast_fingerprint="", device="cuda:0", dtype="bfloat16", attention="varlen",
    )  # fmt: skip
    limits = Limits(256, 1024, PACK_TOKENS, 64 * PACK_TOKENS, bulk_share=mix.bulk_share)
    device = EmulatedDevice(pack_seconds(mix.factor), vectors=partial(sampled_vectors, width=_WIDTH))
    watch = _Watch()
    engine = Engine(device, facts, limits, metrics=Metrics(), watch=watch)
    try:
        return await _Run(mix, engine, device, watch).measured()
    finally:
        engine.close(timeout_s=10)


class _Run:
    def __init__(self, mix: Mix, engine: Engine, device: EmulatedDevice, watch: _Watch) -> None:
        self._mix, self._engine, self._device, self._watch = mix, engine, device, watch
        rows = np.random.default_rng(_SEED).integers(0, 256, (IMAGE_TOKENS, _PATCH_BYTES), dtype=np.uint8)
        self._job = ImageJob(rows, ((16, 16),), IMAGE_TOKENS, None, False)
        self._bulk = replace(self._job, bulk=mix.classes)
        self._seen = Seen()
        self._measuring, self._over = False, False

    async def measured(self) -> Seen:
        rate = self._mix.interactive_share * PACK_IMAGES / full_pack_s(self._mix.factor)
        # The tail of the timetable, while the last packs run, meets bulk as the rest does.
        due_s = due_times("poisson", rate=rate, duration_s=_WARM_S + self._mix.seconds, seed=_SEED)
        async with asyncio.TaskGroup() as callers:
            for _ in range(self._mix.bulk_in_flight):
                callers.create_task(self._indexes())
            callers.create_task(self._measures())
            began_s = time.monotonic()
            async with asyncio.TaskGroup() as searches:
                for at_s in due_s:
                    await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
                    searches.create_task(self._searches(began_s + at_s, counts=at_s >= _WARM_S))
            self._over = True
        return self._seen

    async def _measures(self) -> None:
        await asyncio.sleep(_WARM_S)
        self._device.timeline.forget()
        began_s = time.monotonic()
        self._measuring = True
        await asyncio.sleep(self._mix.seconds)
        self._measuring = False
        self._seen.seconds, self._seen.busy = time.monotonic() - began_s, self._device.busy_share

    async def _indexes(self) -> None:
        while not self._over:
            await self._engine.submit(self._bulk)
            self._seen.bulk_images += self._measuring

    async def _searches(self, due_s: float, *, counts: bool) -> None:
        met = [pack.number for pack in list(self._engine._executor.under_way._packs)]
        result = await self._engine.submit(self._job)
        ended_s = time.monotonic()
        if not counts:
            return
        ahead_s = max((self._watch.ended_s.get(number, ended_s) for number in met), default=due_s) - due_s
        seen, number = self._seen, int(result.pack_id.rpartition("-")[2])
        seen.latencies_ms.append(1e3 * (ended_s - due_s))
        seen.ahead_ms.append(1e3 * ahead_s)
        seen.own_ms.append(1e3 * result.forward_s)
        seen.in_next.append(number <= max(met, default=number) + 1)
