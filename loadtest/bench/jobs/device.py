"""An accelerator that is not there: it takes time and next to no processor, and its answers can be checked.

Stands where a `model.running.runner.Runner` does, so an engine, a job or a test is built with it as with a real one.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.pack import PackedBatch, PackedTexts
from model.running.output import RunnerOutput

if TYPE_CHECKING:  # an earlier checkout, which the benchmark compares with, has none
    from model.pack import PackedDocuments

WIDTH = 32
"""Numbers of a vector: as many as a SHA-256 has bytes."""


@dataclass(frozen=True, slots=True)
class PackSeconds:
    """What a pack takes: `base_s`, and so much for each token and for each pair of tokens of a segment."""

    base_s: float
    token_s: float
    pair_s: float

    def of(self, batch: PackedBatch) -> float:
        lengths = np.diff(batch.cu_seqlens).astype(np.float64)
        return float(self.base_s + self.token_s * lengths.sum() + self.pair_s * (lengths**2).sum())

    def scaled(self, factor: float) -> "PackSeconds":
        """The seconds of a device that takes `factor` times as long."""
        return PackSeconds(self.base_s * factor, self.token_s * factor, self.pair_s * factor)


# An H200 in bfloat16, for 16,384 tokens in 64 segments: 4 ms with SigLIP 2's base (170 MFLOP a token in 12 layers of
# 768) and 19 ms with so400m (820 MFLOP, 27 layers of 1152), which is 700 TFLOP/s in both cases. Attention has the share
# that its operations have, 5% and 4%; launching the kernels of a pack takes 0.2 and 0.3 ms.
H200_BASE = PackSeconds(0.2e-3, 3.6e-3 / 16_384, 0.2e-3 / (64 * 256**2))
H200_SO400M = PackSeconds(0.3e-3, 18.0e-3 / 16_384, 0.7e-3 / (64 * 256**2))


class EmulatedDevice:
    """One caller at a time. A segment's vector is made of its patches alone, so it is right or wrong whatever pack it
    was in: `vector_of` says what it must be.

    busy_s: how long the device has computed. packs: how many. first_s, last_s: when the first pack began and the last
    one ended, by the clock.
    """

    def __init__(
        self,
        seconds: PackSeconds,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self.busy_s = 0.0
        self.packs = 0
        self.first_s: float | None = None
        self.last_s = 0.0

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        assert not tokens, "it has no vectors of tokens"
        began_s, takes_s = self._clock(), self._seconds.of(batch)
        self.first_s = began_s if self.first_s is None else self.first_s
        # The answers take a few milliseconds of a processor, within the time that the pack takes anyway.
        pooled = np.stack([vector_of(rows) for rows in np.split(batch.rows, batch.cu_seqlens[1:-1])])
        self._sleep(max(0.0, began_s + takes_s - self._clock()))
        self.busy_s += takes_s
        self.packs += 1
        self.last_s = self._clock()
        return RunnerOutput(pooled, None, computed_tokens=batch.tokens)

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        raise NotImplementedError("it has no tower of texts")

    def run_documents(self, documents: "PackedDocuments") -> RunnerOutput:
        raise NotImplementedError("it has no tower of documents")

    @property
    def busy_share(self) -> float:
        """The share of the time from its first pack to its last one, from 0 to 1."""
        return self.busy_s / (self.last_s - self.first_s) if self.first_s is not None else 0.0


def vector_of(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 `[32]`, never zeros, of patch rows uint8 `[n, 3*P*P]`: other rows give another vector."""
    digest = hashlib.sha256(np.ascontiguousarray(rows).data).digest()
    return (np.frombuffer(digest, np.uint8) - np.float32(127.5)).astype(np.float32)
