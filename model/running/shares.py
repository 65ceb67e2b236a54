"""A pack cut into shares of about the same work, for threads that compute one each.

Segments attend to themselves alone, so a share is a pack like any other, and has the same bits. Everything here is
numpy on the host; what computes a share is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.pack import PackedBatch

# What the largest share may have of an even one. Two halves in a thread each were 1.1 to 1.9 times as fast as both
# threads on the whole (loadtest/RESULTS.md): a larger share than this would eat that up.
_MOST_UNEVEN = 1.1


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """batch: some segments of a pack as a pack. segments: int64, which of its segments they are, in order."""

    batch: PackedBatch
    segments: NDArray[np.int64]


def cut(batch: PackedBatch, count: int, *, width: int) -> list[Share]:
    """The pack as `count` shares, or as the one share that it is where no even ones can be made.

    width: of the encoder. A segment of n tokens takes 24·width² + 4·n·width operations a token and block: its linear
    layers, where the MLP is four times as wide, and attention.
    """
    lengths = np.diff(batch.cu_seqlens).astype(np.int64)
    work = lengths * (6 * width + lengths)
    if count < 2 or len(lengths) < count:
        return [Share(batch, np.arange(len(lengths)))]
    groups, loads = _grouped(work, count)
    if loads.max() * count > _MOST_UNEVEN * loads.sum():
        return [Share(batch, np.arange(len(lengths)))]
    return [Share(_part(batch, group), group) for group in groups]


def _grouped(work: NDArray[np.int64], count: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """The largest first, each to whom has least so far; and what each has in the end."""
    loads = np.zeros(count, dtype=np.int64)
    groups: list[list[int]] = [[] for _ in range(count)]
    for number in np.argsort(-work, kind="stable"):
        least = int(loads.argmin())
        groups[least].append(int(number))
        loads[least] += work[number]
    return [np.sort(np.array(group, dtype=np.int64)) for group in groups], loads


def _part(batch: PackedBatch, segments: NDArray[np.int64]) -> PackedBatch:
    lengths = np.diff(batch.cu_seqlens)[segments]
    rows = token_places(batch.cu_seqlens, segments)
    return PackedBatch(
        rows=batch.rows[rows],
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        grids=tuple(batch.grids[number] for number in segments),
        max_seqlen=int(lengths.max()),
        kept=None if batch.kept is None else batch.kept[rows],
    )


def token_places(offsets: NDArray[np.integer], segments: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the tokens of some segments lie in a pack, segment by segment. offsets: `[S+1]`."""
    return np.concatenate([np.arange(offsets[number], offsets[number + 1]) for number in segments])


def in_order(parts: Sequence[NDArray[np.float32]], places: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """The rows of all parts as one array, each in its place. parts: `[n, D]` each, with as many places."""
    rows = np.empty((sum(map(len, parts)), parts[0].shape[1]), dtype=np.float32)
    for part, place in zip(parts, places, strict=True):
        rows[place] = part
    return rows
