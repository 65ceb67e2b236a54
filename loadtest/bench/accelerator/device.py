"""An accelerator that is not there: it takes time and next to no processor, and its answers can be checked.

`EmulatedDevice` stands where an engine's `Device` does and has two packs under way. `EmulatedRunner` stands where a
`model.running.runner.Runner` does and has one. What they take is what a GPU would take; the host's own work around them
is real. A checkout without `Device` can load this file too.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.pack import PackedBatch, PackedTexts
from model.running.output import RunnerOutput

if TYPE_CHECKING:  # an earlier checkout, which the benchmark compares with, has none
    from model.pack import PackedDocuments
    from service.engine.client import Job
    from service.engine.forward import JobPackOutput

WIDTH = 32
"""Numbers of a vector that tell one segment from another: as many as a SHA-256 has bytes."""

PCIE_BYTES_S = 50e9
"""What pinned memory gives over PCIe 5 in 16 lanes, either way."""

_SAMPLED_BYTES, _SAMPLED_ROWS = 8, 8
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class PackSeconds:
    """What a pack takes: `base_s`, and so much for each token and for each pair of tokens of a segment."""

    base_s: float
    token_s: float
    pair_s: float

    def of(self, batch: PackedBatch) -> float:
        return self.of_lengths([height * width for height, width in batch.grids])

    def of_lengths(self, tokens: Sequence[int]) -> float:
        """tokens: of each segment."""
        pairs = sum([count * count for count in tokens])
        return self.base_s + self.token_s * sum(tokens) + self.pair_s * pairs

    def scaled(self, factor: float) -> "PackSeconds":
        """The seconds of a device that takes `factor` times as long."""
        return PackSeconds(self.base_s * factor, self.token_s * factor, self.pair_s * factor)


# An H200 in bfloat16, for 16,384 tokens in 64 segments: 4 ms with SigLIP 2's base (170 MFLOP a token in 12 layers of
# 768) and 19 ms with so400m (820 MFLOP, 27 layers of 1152), which is 700 TFLOP/s in both cases. Attention has the share
# that its operations have, 5% and 4%; launching the kernels of a pack takes 0.2 and 0.3 ms.
H200_BASE = PackSeconds(0.2e-3, 3.6e-3 / 16_384, 0.2e-3 / (64 * 256**2))
H200_SO400M = PackSeconds(0.3e-3, 18.0e-3 / 16_384, 0.7e-3 / (64 * 256**2))


@dataclass(frozen=True, slots=True)
class Turn:
    """When a pack is computed, and when its vectors are on the host. By the clock."""

    begins_s: float
    ends_s: float
    back_s: float


class Timeline:
    """Three parts that work side by side, each on one pack after another: a copy in, the computation, a copy back.

    busy_s: how long it has computed. packs: how many. first_s, last_s: when the first began and the last one ended.
    early_s: of each pack, how long before the computation was free it was handed over; below zero if it was free.
    """

    def __init__(self) -> None:
        self._in_free_s = self._free_s = self._out_free_s = 0.0
        self.forget()

    def forget(self) -> None:
        """Counts from the next pack on."""
        self.busy_s, self.packs = 0.0, 0
        self.early_s: list[float] = []
        self.first_s: float | None = None
        self.last_s = 0.0

    def add(self, now_s: float, computes_s: float, *, in_bytes: int, out_bytes: int) -> Turn:
        """A pack that the host hands over now."""
        self.early_s.append(self._free_s - now_s)
        self._in_free_s = max(now_s, self._in_free_s) + in_bytes / PCIE_BYTES_S
        begins_s = max(self._in_free_s, self._free_s)
        self._free_s = ends_s = begins_s + computes_s
        self._out_free_s = max(ends_s, self._out_free_s) + out_bytes / PCIE_BYTES_S
        self.busy_s += computes_s
        self.packs += 1
        self.first_s = begins_s if self.first_s is None else self.first_s
        self.last_s = ends_s
        return Turn(begins_s, ends_s, self._out_free_s)

    @property
    def busy_share(self) -> float:
        """The share of the time from its first pack to its last one, from 0 to 1."""
        return self.busy_s / (self.last_s - self.first_s) if self.first_s is not None else 0.0


class EmulatedRunner:
    """One caller at a time, who waits for each pack. A segment's vector is made of all bytes of its patches, so it is
    right or wrong whatever pack it was in: `vector_of` says what it must be."""

    texts = None

    def __init__(
        self,
        seconds: PackSeconds,
        *,
        vectors: "Callable[[PackedBatch], NDArray[np.float32]] | None" = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """vectors: other ones than by `vector_of`, as `sampled_vectors` are."""
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self._vectors = vectors or whole_vectors
        self.timeline = Timeline()

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        assert not tokens, "it has no vectors of tokens"
        began_s = self._clock()
        # The answers take some milliseconds of a processor, within the time that the pack takes anyway.
        pooled = self._vectors(batch)
        sizes = {"in_bytes": batch.rows.nbytes, "out_bytes": pooled.nbytes}
        turn = self.timeline.add(began_s, self._seconds.of(batch), **sizes)
        self._sleep(max(0.0, turn.back_s - self._clock()))
        return RunnerOutput(pooled, None, computed_tokens=batch.tokens)

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        raise NotImplementedError("it has no tower of texts")

    def run_documents(self, documents: "PackedDocuments") -> RunnerOutput:
        raise NotImplementedError("it has no tower of documents")

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Has nothing to do once. Takes the time of such a pack, from which a server learns what packs cost."""
        offsets = np.cumsum([0, *lengths], dtype=np.int32)
        grids = tuple((length, 1) for length in lengths)
        self._sleep(self._seconds.of(PackedBatch(np.empty((0, 0), np.uint8), offsets, grids, max(lengths))))

    @property
    def busy_share(self) -> float:
        return self.timeline.busy_share


class EmulatedDevice:
    """A `Device` with so many packs under way. It takes images alone."""

    def __init__(
        self,
        seconds: PackSeconds,
        *,
        depth: int = 2,
        vectors: "Callable[[PackedBatch], NDArray[np.float32]] | None" = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """vectors: other ones than by `vector_of`, as `sampled_vectors` are."""
        self.depth = depth
        self.timeline = Timeline()
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self._vectors = vectors or whole_vectors
        # What would be pinned memory, which begins at a page: each is used again once its pack is done.
        self._buffers: list[NDArray[np.uint8]] = []

    def submit(self, jobs: "Sequence[Job]") -> "_UnderWay":
        from model.pack import pack
        from service.engine.client import ImageJob

        images = [job for job in jobs if isinstance(job, ImageJob)]
        assert len(images) == len(jobs), "it takes images alone"
        assert not any(job.want_tokens for job in images), "it has no vectors of tokens"
        grids = [grid for job in images for grid in job.grids]
        batch = pack([job.rows for job in images], grids, memory=self._buffer)
        computes_s = self._seconds.of(batch)
        # As many numbers come back as the vectors have, which are not made yet.
        turn = self.timeline.add(self._clock(), computes_s, in_bytes=batch.rows.nbytes, out_bytes=len(grids) * 4096)
        return _UnderWay(self, jobs, batch, turn, computes_s)

    def _buffer(self, tokens: int, width: int) -> NDArray[np.uint8]:
        size = tokens * width
        buffer = self._buffers.pop() if self._buffers else None
        if buffer is None or buffer.size < size + _PAGE_BYTES:
            buffer = np.zeros(size + _PAGE_BYTES, np.uint8)
        start = -buffer.ctypes.data % _PAGE_BYTES
        return buffer[start : start + size].reshape(tokens, width)

    def finish(self, batch: PackedBatch, turn: Turn) -> NDArray[np.float32]:
        """The vectors, when they are on the host."""
        pooled = self._vectors(batch)
        buffer = batch.rows.base
        assert buffer is not None, "a pack that was gathered has its rows in a buffer"
        self._buffers.append(buffer)
        self._sleep(max(0.0, turn.back_s - self._clock()))
        return pooled

    @property
    def busy_share(self) -> float:
        return self.timeline.busy_share


class _UnderWay:
    """A pack on an emulated device."""

    def __init__(
        self, device: EmulatedDevice, jobs: "Sequence[Job]", batch: PackedBatch, turn: Turn, computes_s: float
    ) -> None:
        self._device, self._jobs, self._batch, self._turn, self._computes_s = device, jobs, batch, turn, computes_s

    def wait(self) -> "JobPackOutput":
        from service.engine.forward import JobPackOutput

        pooled = self._device.finish(self._batch, self._turn)
        output = RunnerOutput(pooled, None, computed_tokens=self._batch.tokens)
        return JobPackOutput(self._jobs, output, None, busy_s=self._computes_s)


def vector_of(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 `[32]`, never zeros, of patch rows uint8 `[n, 3*P*P]`: other rows give another vector."""
    digest = hashlib.sha256(np.ascontiguousarray(rows).data).digest()
    return (np.frombuffer(digest, np.uint8) - np.float32(127.5)).astype(np.float32)


def whole_vectors(batch: PackedBatch) -> NDArray[np.float32]:
    """float32 `[S, 32]`: `vector_of` of each segment."""
    return np.stack([vector_of(rows) for rows in np.split(batch.rows, batch.cu_seqlens[1:-1])])


def sampled_vectors(batch: PackedBatch, *, width: int = WIDTH) -> NDArray[np.float32]:
    """float32 `[S, width]`, never zeros: of the first bytes of every eighth row of a segment, and how many there are.

    It shows rows that are missing, of another image or in other places, for a hundredth of what a hash of 12 MB takes.
    """
    lengths = np.diff(batch.cu_seqlens)
    counts = -(-lengths // _SAMPLED_ROWS)  # [S]
    starts = np.cumsum([0, *counts])[:-1]
    within = np.arange(counts.sum()) - np.repeat(starts, counts)
    rows = np.repeat(batch.cu_seqlens[:-1], counts) + _SAMPLED_ROWS * within
    first = np.ascontiguousarray(batch.rows[rows, :_SAMPLED_BYTES]).view(np.uint64)[:, 0]
    sums = np.add.reduceat(first * (2 * within + 1).astype(np.uint64), starts)
    digits = np.stack([sums, lengths.astype(np.uint64)], axis=1).view(np.uint8)  # [S, 16]
    vectors = np.full((len(starts), width), 0.5, np.float32)
    vectors[:, : digits.shape[1]] = digits - np.float32(127.5)
    return vectors
