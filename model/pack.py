"""Many images, or many texts, in one sequence: end to end, with offsets that keep them apart.

A pack holds T tokens in S segments. Numpy on the host only. Knows nothing of devices or of who asked for the items.
"""

from collections.abc import Sequence
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

    def part(self, segments: NDArray[np.int64]) -> "PackedBatch":
        """Some segments as a pack, in the order given."""
        lengths = np.diff(self.cu_seqlens)[segments]
        return PackedBatch(
            rows=self.rows[token_places(self.cu_seqlens, segments)],
            cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
            grids=tuple(self.grids[number] for number in segments),
            max_seqlen=int(lengths.max()),
        )


def pack(rows: Sequence[NDArray[np.uint8]], grids: Sequence[tuple[int, int]]) -> PackedBatch:
    """One pack of segments with these grids, in order.

    rows: uint8 arrays `[n, 3*P*P]` that together fill the grids, in order. One array may hold several segments.
    """
    lengths = [h * w for h, w in grids]
    held = sum(map(len, rows))
    assert held == sum(lengths), f"{held} rows do not fill the grids {list(grids)}"
    return PackedBatch(
        rows=np.concatenate(rows),
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


def token_places(offsets: NDArray[np.integer], segments: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """The token numbers of some segments of a pack, segment by segment. offsets: `[S+1]`."""
    return np.concatenate([np.arange(offsets[number], offsets[number + 1]) for number in segments])
