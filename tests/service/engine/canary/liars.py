"""A model that tells the truth until it is told to lie, and a canary for it."""

from typing import Literal

import numpy as np

from model.pack import PackedBatch, pack
from model.running.output import RunnerOutput
from service.engine.canary.rule import NamedJob, Recorded, Vectors
from service.engine.canary.turns import Canary
from service.engine.client import ImageJob
from service.metrics import Metrics
from tests.service.running import NoTexts

Lie = Literal["truth", "constant", "shuffled", "stale", "noisy", "not a number"]
LIES: tuple[Lie, ...] = ("constant", "shuffled", "stale", "noisy", "not a number")
ALLOWED = 0.02


def told(lie: Lie, right: Vectors, before: Vectors | None, *, noise: float = 1.1 * ALLOWED) -> Vectors:
    """What a device says in place of float32 `[S, E]`. before: of its pack before. noise: its length over that of a
    vector."""
    if lie == "constant":
        return np.ones_like(right)
    if lie == "shuffled":
        return np.roll(right, 1, axis=0)
    if lie == "stale":
        return np.resize(right if before is None else before, right.shape)
    if lie == "not a number":
        return np.full_like(right, np.nan)
    if lie == "noisy":
        drawn = np.random.default_rng(2).normal(size=right.shape)
        lengths = np.linalg.norm(right, axis=1) / np.linalg.norm(drawn, axis=1)
        noisy: Vectors = (right + noise * drawn * lengths[:, None]).astype(np.float32)
        return noisy
    return right


class Liar(NoTexts):
    """Of width 8: a segment's vector is its mean row, projected. What it lies about is every pack from then on."""

    def __init__(self) -> None:
        self.lie: Lie = "truth"
        self._before: Vectors | None = None
        self._projection = np.random.default_rng(1).normal(size=(3, 8))

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        sums = np.add.reduceat(batch.rows.astype(np.float64), batch.cu_seqlens[:-1])
        means = sums / np.diff(batch.cu_seqlens)[:, None]
        right = (means @ self._projection).astype(np.float32)
        output = told(self.lie, right, self._before)
        self._before = right
        return RunnerOutput(output, None, computed_tokens=len(batch.rows))


def canary_jobs() -> list[NamedJob]:
    """Pictures of one colour each, for patches of one pixel."""
    colours = {"red": (250, 3, 9), "green": (7, 240, 20), "blue": (30, 20, 235), "gray": (90, 120, 110)}
    return [
        NamedJob(
            name, ImageJob(np.full((tokens, 3), colour, np.uint8), ((tokens, 1),), tokens, None, False, canary=True)
        )
        for tokens, (name, colour) in enumerate(colours.items(), start=1)
    ]


def recorded() -> Recorded:
    truth = Liar()
    vectors = {}
    for each in canary_jobs():
        assert isinstance(each.job, ImageJob)
        vectors[each.name] = truth.run(pack([each.job.rows], each.job.grids)).pooled
    return Recorded(vectors, ALLOWED)


class Records:
    """Records that are there, or not yet."""

    def __init__(self, found: Recorded | None) -> None:
        self.found, self.reads, self.closed = found, 0, False

    @property
    def pending(self) -> bool:
        return self.found is None

    def read(self) -> Recorded | None:
        self.reads += 1
        return self.found

    def close(self) -> None:
        self.closed = True


def canary_of(records: Records, *, interval_s: float, metrics: Metrics) -> Canary:
    return Canary(canary_jobs(), records, recorded=records.found, interval_s=interval_s, metrics=metrics)
