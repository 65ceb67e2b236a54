"""Cuts a pack into shares of about equal work, one for each thread, and joins what they return.

Segments attend only to themselves, so a share is a pack like any other and gives the same bits. Numpy on the host only.
Does not know what computes a share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.pack import PackedBatch, PackedDocuments, PackedTexts, token_places
from model.running.output import RunnerOutput

# The largest share's work over an even one's, at most. Two halves on a thread each were 1.1 to 1.9 times as fast as two
# threads on the whole pack (loadtest/HISTORY.md); less even shares would lose that.
_MOST_UNEVEN = 1.1

Pack = TypeVar("Pack", PackedBatch, PackedTexts, PackedDocuments)


@dataclass(frozen=True, slots=True, eq=False)
class Share(Generic[Pack]):
    """batch: some segments of a pack, as a pack. segments: int64, their numbers in that pack, ascending."""

    batch: Pack
    segments: NDArray[np.int64]


def cut(batch: Pack, count: int, *, width: int) -> list[Share[Pack]]:
    """`count` shares of the pack, or the whole pack as one share if no even ones can be made.

    width: of the encoder. A segment of n tokens takes 24·width² + 4·n·width operations per token and block: linear
    layers, with an MLP four times as wide, and attention.
    """
    lengths = batch.lengths
    work = lengths * (6 * width + lengths)
    if count < 2 or len(lengths) < count:
        return [Share(batch, np.arange(len(lengths)))]
    groups, loads = _grouped(work, count)
    if loads.max() * count > _MOST_UNEVEN * loads.sum():
        return [Share(batch, np.arange(len(lengths)))]
    return [Share(batch.part(group), group) for group in groups]


def _grouped(work: NDArray[np.int64], count: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Greedily: the largest segment first, each to the group with the least work. Also returns each group's work."""
    loads = np.zeros(count, dtype=np.int64)
    groups: list[list[int]] = [[] for _ in range(count)]
    for number in np.argsort(-work, kind="stable"):
        least = int(loads.argmin())
        groups[least].append(int(number))
        loads[least] += work[number]
    return [np.sort(np.array(group, dtype=np.int64)) for group in groups], loads


def join(outputs: Sequence[RunnerOutput], shares: Sequence[Share[Pack]], batch: Pack) -> RunnerOutput:
    """The output of the whole pack, in its own order, from those of its shares."""
    if len(shares) == 1:
        return outputs[0]
    merged = outputs[0].merged_tokens
    tokens = [output.tokens for output in outputs if output.tokens is not None]
    places = [token_places(batch.cu_seqlens // merged, share.segments) for share in shares]
    return RunnerOutput(
        pooled=in_order([output.pooled for output in outputs], [share.segments for share in shares]),
        tokens=in_order(tokens, places) if tokens else None,
        computed_tokens=sum(output.computed_tokens for output in outputs),
        merged_tokens=merged,
    )


def in_order(parts: Sequence[NDArray[np.float32]], places: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """All rows in one array, each at its place. parts: `[n, D]` each, with n places."""
    rows = np.empty((sum(map(len, parts)), parts[0].shape[1]), dtype=np.float32)
    for part, place in zip(parts, places, strict=True):
        rows[place] = part
    return rows
