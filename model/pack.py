"""Many images, or many texts, in one sequence: end to end, with offsets that keep them apart.

A pack holds T tokens in S segments. Numpy on the host only. Knows nothing of devices or of who asked for the items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """The segments of one forward.

    rows: uint8 `[T, 3*P*P]`, patch rows of all segments, row-major over each grid, `(ph, pw, channel)` inside a patch.
    cu_seqlens: int32 `[S+1]`, starts at 0, ends at T, strictly increasing.
    grids: `(grid_h, grid_w)` of each of the S segments, in patches.
    max_seqlen: tokens of the longest segment.
    """

    rows: NDArray[np.uint8]
    cu_seqlens: NDArray[np.int32]
    grids: tuple[tuple[int, int], ...]
    max_seqlen: int

    @property
    def tokens(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each segment, `[S]`."""
        return np.diff(self.cu_seqlens).astype(np.int64)

    def part(self, segments: NDArray[np.int64]) -> "PackedBatch":
        """Some segments as a pack, in the order given."""
        lengths = np.diff(self.cu_seqlens)[segments]
        return PackedBatch(
            rows=self.rows[token_places(self.cu_seqlens, segments)],
            cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
            grids=tuple(self.grids[number] for number in segments),
            max_seqlen=int(lengths.max()),
        )


Memory = Callable[[int, int], NDArray[np.uint8]]
"""Memory for so many rows of such a width: uint8 `[T, 3*P*P]`, uninitialised."""


def fresh(count: int, width: int) -> NDArray[np.uint8]:
    return np.empty((count, width), np.uint8)


def pack(rows: Sequence[NDArray[np.uint8]], grids: Sequence[tuple[int, int]], *, memory: Memory = fresh) -> PackedBatch:
    """One pack of segments with these grids, in order.

    rows: uint8 arrays `[n, 3*P*P]` that together fill the grids, in order. One array may hold several segments. memory:
    where they are copied to.
    """
    lengths = [h * w for h, w in grids]
    held = sum(map(len, rows))
    assert held == sum(lengths), f"{held} rows do not fill the grids {list(grids)}"
    return PackedBatch(
        rows=np.concatenate(rows, out=memory(held, rows[0].shape[1])),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
        grids=tuple(grids),
        max_seqlen=max(lengths),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PackedTexts:
    """The texts of one forward, one segment each.

    ids: int32 `[T]`, token ids of all texts. cu_seqlens, max_seqlen: as in `PackedBatch`.
    """

    ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    max_seqlen: int

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, `[S]`."""
        return np.diff(self.cu_seqlens).astype(np.int64)

    def texts(self) -> list[NDArray[np.int32]]:
        """The ids of each text."""
        return np.split(self.ids, self.cu_seqlens[1:-1])

    def part(self, segments: NDArray[np.int64]) -> "PackedTexts":
        """Some texts as a pack, in the order given."""
        texts = self.texts()
        return pack_texts([texts[number] for number in segments])


def pack_texts(texts: Sequence[NDArray[np.int32]]) -> PackedTexts:
    """One pack of texts, in order. Each is int32 `[n]`, n at least 1."""
    lengths = [len(ids) for ids in texts]
    assert all(lengths), "a text has at least one token"
    return PackedTexts(
        ids=np.concatenate(texts),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
        max_seqlen=max(lengths),
    )


SOFT_TOKEN = -1
"""Stands in a document's ids where a soft token of its pictures goes."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedDocuments:
    """The documents of one forward, one segment each: texts with pictures in them, either alone, or both.

    ids: int32 `[R]`, of all documents, with a `SOFT_TOKEN` for each soft token of a picture. cu_seqlens, max_seqlen: as
    in `PackedBatch`, of ids. pictures: those of all documents in order, None if there are none. cu_pictures: int32
    `[S+1]`, where the pictures of each document begin.
    """

    ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    max_seqlen: int
    pictures: PackedBatch | None
    cu_pictures: NDArray[np.int32]

    @property
    def tokens(self) -> int:
        """Patches, and ids that are no soft tokens."""
        return (self.pictures.tokens if self.pictures else 0) + int((self.ids != SOFT_TOKEN).sum())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Patches and ids of each document, `[S]`: what its work is judged by."""
        lengths = np.diff(self.cu_seqlens).astype(np.int64)
        if self.pictures is not None:
            lengths += np.diff(self.pictures.cu_seqlens[self.cu_pictures])
        return lengths

    def part(self, segments: NDArray[np.int64]) -> "PackedDocuments":
        """Some documents as a pack, in the order given."""
        counts = np.diff(self.cu_pictures)[segments]
        held = token_places(self.cu_pictures, segments)
        lengths = np.diff(self.cu_seqlens)[segments]
        return PackedDocuments(
            ids=self.ids[token_places(self.cu_seqlens, segments)],
            cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
            max_seqlen=int(lengths.max()),
            pictures=self.pictures.part(held) if self.pictures is not None and len(held) else None,
            cu_pictures=np.cumsum([0, *counts], dtype=np.int32),
        )


def pack_documents(
    documents: Sequence[NDArray[np.int32]],
    rows: Sequence[NDArray[np.uint8]],
    grids: Sequence[Sequence[tuple[int, int]]],
    *,
    memory: Memory = fresh,
) -> PackedDocuments:
    """One pack of documents, in order.

    documents: the ids of each, int32 `[n]`, n at least 1. rows: uint8 arrays `[n, 3*P*P]` of all pictures, in order.
    grids: those of each document's pictures. memory: where rows are copied to.
    """
    lengths = [len(ids) for ids in documents]
    assert all(lengths), "a document has at least one id"
    every = [grid for own in grids for grid in own]
    return PackedDocuments(
        ids=np.concatenate(documents),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
        max_seqlen=max(lengths),
        pictures=pack(rows, every, memory=memory) if every else None,
        cu_pictures=np.cumsum([0, *map(len, grids)], dtype=np.int32),
    )


def token_places(offsets: NDArray[np.integer], segments: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """The token numbers of some segments of a pack, segment by segment. offsets: `[S+1]`."""
    return np.concatenate([np.arange(offsets[number], offsets[number + 1]) for number in segments])
