"""Many images in one sequence: patch rows laid end to end, with the offsets that keep them apart.

A pack holds T tokens in S segments. Everything here is numpy on the host; what a device does with a pack, and who asked
for its images, is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """The segments of one forward.

    rows: uint8 `[T, 3*P*P]`, patch rows of all segments, row-major over each grid, `(ph, pw, channel)` inside a patch.
    cu_seqlens: int32 `[S+1]`, starts at 0, ends at T, strictly increasing.
    grids: `(grid_h, grid_w)` of each of the S segments, in patches.
    max_seqlen: tokens of the longest segment.
    kept: int32 `[T]`, which cell of its segment's grid (row-major) each token is; None where no token was dropped.
    """

    rows: NDArray[np.uint8]
    cu_seqlens: NDArray[np.int32]
    grids: tuple[tuple[int, int], ...]
    max_seqlen: int
    kept: NDArray[np.int32] | None = None

    @property
    def tokens(self) -> int:
        return len(self.rows)


def pack(rows: Sequence[NDArray[np.uint8]], grids: Sequence[tuple[int, int]]) -> PackedBatch:
    """One pack of the segments that `grids` names, in order.

    rows: uint8 arrays `[n, 3*P*P]` that laid end to end fill the grids; one may hold several segments, as images do.
    """
    lengths = [h * w for h, w in grids]
    held = sum(map(len, rows))
    assert held == sum(lengths), f"{held} rows do not fill the grids {list(grids)}"
    return PackedBatch(
        rows=np.concatenate(rows),
        cu_seqlens=_offsets(lengths),
        grids=tuple(grids),
        max_seqlen=max(lengths),
    )


def drop_tokens(batch: PackedBatch, *, share: float, seed: int, least: int = 1) -> PackedBatch:
    """NaViT's token dropping (arXiv 2307.06304): each segment loses about `share` of its tokens, at random by `seed`.

    Of each segment at least `least` tokens stay, or all where it has no more; those that stay keep their order and
    their positions in the grid. For training and for study: at inference, a lower budget loses less than dropping the
    same number of tokens does (figure 17b there).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}; it is the part of the tokens to drop, from 0 up to but not including 1")
    if least < 1:
        raise ValueError(f"least is {least}; no segment may lose all its tokens")
    random = np.random.default_rng(seed)
    kept_rows, cells = [], []
    for start, end in pairwise(batch.cu_seqlens.tolist()):
        tokens = end - start
        keep = max(min(tokens, least), tokens - round(tokens * share))
        chosen = start + np.sort(random.choice(tokens, size=keep, replace=False))
        kept_rows.append(chosen)
        cells.append(chosen - start if batch.kept is None else batch.kept[chosen])
    lengths = [len(chosen) for chosen in kept_rows]
    return PackedBatch(
        rows=batch.rows[np.concatenate(kept_rows)],
        cu_seqlens=_offsets(lengths),
        grids=batch.grids,
        max_seqlen=max(lengths),
        kept=np.concatenate(cells).astype(np.int32),
    )


def _offsets(lengths: Sequence[int]) -> NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int32)
