"""NaViT's token dropping (arXiv 2307.06304): packs lose random tokens while the encoder learns.

Serving drops none: a lower budget loses less than dropping as many tokens does (figure 17b there).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.pack import PackedBatch


@dataclass(frozen=True, slots=True, eq=False)
class DroppedBatch(PackedBatch):
    """A pack that has lost tokens. kept: int32 `[T]`, each token's cell in its segment's grid (row-major)."""

    kept: NDArray[np.int32]


def kept_cells(batch: PackedBatch) -> NDArray[np.int32] | None:
    """Returns int32 `[T]`, each token's cell in its grid, or None if no token was dropped."""
    return batch.kept if isinstance(batch, DroppedBatch) else None


def drop_tokens(batch: PackedBatch, *, share: float, seed: int, least: int = 1) -> DroppedBatch:
    """Drops about `share` of each segment's tokens, at random by `seed`.

    At least `least` tokens of each segment stay, or all if it has no more. Those that stay keep their order and their
    cells. Raises `ValueError` if `share` is not in [0, 1) or `least` is under 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}; it must be at least 0 and less than 1")
    if least < 1:
        raise ValueError(f"least is {least}; a segment must keep at least one token")
    random = np.random.default_rng(seed)
    before = kept_cells(batch)
    kept_rows, cells = [], []
    for start, end in pairwise(batch.cu_seqlens.tolist()):
        tokens = end - start
        keep = max(min(tokens, least), tokens - round(tokens * share))
        chosen = start + np.sort(random.choice(tokens, size=keep, replace=False))
        kept_rows.append(chosen)
        cells.append(chosen - start if before is None else before[chosen])
    lengths = [len(chosen) for chosen in kept_rows]
    return DroppedBatch(
        rows=batch.rows[np.concatenate(kept_rows)],
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
        grids=batch.grids,
        max_seqlen=max(lengths),
        kept=np.concatenate(cells).astype(np.int32),
    )
