"""One pack on the device: images through the vision tower, then texts through the text tower.

The towers share no weights, so a pack that holds both takes two forwards. Documents take both towers too: all their
pictures, then all rows of their texts. Knows no queue, no fault and no metric.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from model.pack import Memory, PackedBatch, PackedDocuments, PackedTexts, fresh, pack, pack_documents, pack_texts
from service.engine.client import DocumentJob, ImageJob, Job, TextJob

if TYPE_CHECKING:
    from model.running.output import RunnerOutput

_LEAST_SQUARE, _MOST_SQUARE = np.finfo(np.float32).tiny, np.finfo(np.float32).max


class PackRunner(Protocol):
    """What is asked of a `model.running.runner.Runner`. All methods raise `DeviceOutOfMemory`, `DeviceLost`, or any
    other exception."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> "RunnerOutput": ...

    def run_texts(self, batch: PackedTexts) -> "RunnerOutput": ...

    def run_documents(self, documents: PackedDocuments) -> "RunnerOutput": ...


@dataclass(slots=True, eq=False)
class JobVectors:
    """What the device made of one job. pooled: float32 `[S, E]`. tokens: float32 `[N, D]`, or None."""

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None

    @property
    def have_directions(self) -> bool:
        return all(map(have_directions, self._arrays))

    @property
    def fault(self) -> str:
        """What is wrong with vectors that have no directions."""
        for array in self._arrays:
            if not np.isfinite(array).all():
                return "not all of its numbers are finite in the dtype served; try float32"
            if not np.isfinite(_squared_lengths(array)).all():
                return "its numbers are too large to be scaled"
        return "it has a row of zeros"

    @property
    def _arrays(self) -> list[NDArray[np.float32]]:
        return [self.pooled] if self.tokens is None else [self.pooled, self.tokens]


def have_directions(vectors: NDArray[np.float32]) -> bool:
    """Whether every row of float32 `[B, D]` can be scaled to length 1: its numbers are finite, its length is not 0, and
    float32 holds the square of it.

    No other vector may leave: what a store makes of zeros and NaN is anyone's guess.
    """
    squares = _squared_lengths(vectors)
    # NaN is neither.
    return bool(((squares >= _LEAST_SQUARE) & (squares <= _MOST_SQUARE)).all())


def _squared_lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.einsum("bd,bd->b", vectors, vectors)
    return squares


class JobPack:
    """The jobs of one pack, arranged on the host. images, texts, documents: None if the pack has none. want_tokens:
    token vectors of images are asked for."""

    def __init__(self, jobs: Sequence[Job], *, memory: Memory = fresh) -> None:
        """memory: where rows are copied to."""
        self.jobs = jobs
        images = [job for job in jobs if isinstance(job, ImageJob)]
        texts = [job for job in jobs if isinstance(job, TextJob)]
        documents = [job for job in jobs if isinstance(job, DocumentJob)]
        grids = [grid for job in images for grid in job.grids]
        self.images = pack([job.rows for job in images], grids, memory=memory) if images else None
        self.want_tokens = any(job.want_tokens for job in images)
        self.texts = pack_texts([job.ids for job in texts]) if texts else None
        self.documents = _packed(documents, memory) if documents else None


def _packed(jobs: Sequence[DocumentJob], memory: Memory) -> PackedDocuments:
    rows = [job.rows for job in jobs if job.grids]
    return pack_documents([job.ids for job in jobs], rows, [job.grids for job in jobs], memory=memory)


class JobPackOutput:
    """What the device made of a pack.

    computed_tokens: filler included. busy_s: how long the device worked on this pack alone.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        images: "RunnerOutput | None",
        texts: "RunnerOutput | None",
        documents: "RunnerOutput | None" = None,
        *,
        busy_s: float,
    ) -> None:
        self._jobs, self._images, self._texts, self._documents = jobs, images, texts, documents
        self.busy_s = busy_s
        computed = sum(output.computed_tokens for output in (images, texts, documents) if output is not None)
        self.computed_tokens = computed - sum(job.uncounted for job in jobs if isinstance(job, DocumentJob))

    @property
    def pooled_have_directions(self) -> bool:
        """Looks at all jobs in one go: a pack of many small ones would take longer one by one than on the device."""
        outputs = (self._images, self._texts, self._documents)
        return all(output is None or have_directions(output.pooled) for output in outputs)

    def vectors(self) -> list[JobVectors]:
        """Those of each job, in order. Raises `ValueError` if the device gave another number of them."""
        of: dict[type[Job], Iterator[JobVectors]] = {
            ImageJob: self._of_images(),
            TextJob: self._one_each(TextJob, self._texts),
            DocumentJob: self._one_each(DocumentJob, self._documents),
        }
        return [next(of[type(job)]) for job in self._jobs]

    def _of_images(self) -> Iterator[JobVectors]:
        segment = token = 0
        for job in self._jobs:
            if not isinstance(job, ImageJob):
                continue
            assert self._images is not None
            next_segment, next_token = segment + len(job.grids), token + job.tokens
            tokens = None
            if job.want_tokens and self._images.tokens is not None:
                # A view would keep the whole pack's output in memory until the last answer is written.
                merged = self._images.merged_tokens
                tokens = self._images.tokens[token // merged : next_token // merged].copy()
            yield JobVectors(_rows(self._images, segment, next_segment), tokens)
            segment, token = next_segment, next_token

    def _one_each(self, kind: type[Job], output: "RunnerOutput | None") -> Iterator[JobVectors]:
        for segment, _ in enumerate(job for job in self._jobs if isinstance(job, kind)):
            assert output is not None
            yield JobVectors(_rows(output, segment, segment + 1), None)


def _rows(output: "RunnerOutput", start: int, end: int) -> NDArray[np.float32]:
    if len(output.pooled) < end:
        raise ValueError(f"the device gave {len(output.pooled)} vectors, which are too few for its pack")
    return output.pooled[start:end]


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """One pack that succeeded, and where its time went.

    began_s: when it was chosen. pack_s: arranging and submitting it. ahead_s: waiting until the device had ended the
    pack before. forward_s: from then, or from its submission, to its end. taken_s: by how much it kept others from the
    device: from its choice, or from the end of the pack before, to its own end.
    """

    output: JobPackOutput
    began_s: float
    pack_s: float
    ahead_s: float
    forward_s: float
    taken_s: float

    @property
    def ended_s(self) -> float:
        return self.began_s + self.pack_s + self.ahead_s + self.forward_s
