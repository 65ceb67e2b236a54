"""Pairs of tokens, one from each of two views of a picture, that show the same place.

Knows nothing of what pictures show or of how pairs are used.

Axes: N pairs, T tokens of a pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.pack import PackedBatch
from training.learning.dropping import kept_cells

OF_A_PICTURE = 8  # pairs at most
# A patch with a smaller range of values (of 255) shows plain paper or sky, and is taken only if no other is left.
_FLAT = 48
_UNIT = np.array([[0.0, 0.0], [1.0, 1.0]])


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """whole, part: int64 `[N]`, tokens of the two packs. picture: int64 `[N]`, the picture of each pair.

    place: float32 `[N, 2]`, `(x, y)` from 0 to 1 over the picture.
    """

    whole: NDArray[np.int64]
    part: NDArray[np.int64]
    picture: NDArray[np.int64]
    place: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class PackedViews:
    """Views in one pack. order: int64 `[B]`, the segment of each picture's view.

    places, shown: by picture, as in `views.View`.
    """

    pack: PackedBatch
    order: NDArray[np.int64]
    places: Sequence[NDArray[np.float64]]
    shown: Sequence[NDArray[np.float64]]


def pairs_of_views(whole: PackedViews, part: PackedViews, random: Generator) -> Pairs:
    """Returns a few pairs of each picture whose views overlap.

    Tokens of the part view that show something are taken before plain ones.
    """
    found = [_pairs(whole, part, picture, random) for picture in range(len(part.order))]
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _pairs(
    whole: PackedViews, part: PackedViews, picture: int, random: Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    (part_h, part_w), part_cells, part_start = _tokens(part, picture)
    (whole_h, whole_w), whole_cells, whole_start = _tokens(whole, picture)
    chosen = random.permutation(len(part_cells))
    flat = np.ptp(part.pack.rows[part_start + chosen], axis=1) < _FLAT
    chosen = chosen[np.argsort(flat, kind="stable")]
    y, x = np.divmod(part_cells[chosen], part_w)
    at = part.places[picture] @ np.stack([(x + 0.5) / part_w, (y + 0.5) / part_h, np.ones(len(chosen))])
    there = np.linalg.inv(whole.places[picture]) @ at
    cells = (there[1] * whole_h).astype(np.int64) * whole_w + (there[0] * whole_w).astype(np.int64)
    of_whole = np.searchsorted(whole_cells, cells).clip(max=len(whole_cells) - 1)
    within = [_within(at, part.shown[picture]), _within(at, whole.shown[picture]), _within(there, _UNIT)]
    seen = np.flatnonzero(np.all([*within, whole_cells[of_whole] == cells], axis=0))[:OF_A_PICTURE]
    of_picture = np.full(len(seen), picture)
    return whole_start + of_whole[seen], part_start + chosen[seen], of_picture, at[:2, seen].T.astype(np.float32)


def _within(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which points are inside of the corners, bool `[N]`.

    points: float64 `[3, N]`. corners: the least `(x, y)`, and the greatest, which is outside.
    """
    least, greatest = corners[:, :, None]
    inside: NDArray[np.bool_] = ((least <= points[:2]) & (points[:2] < greatest)).all(axis=0)
    return inside


def _tokens(seen: PackedViews, picture: int) -> tuple[tuple[int, int], NDArray[np.int64], int]:
    """Returns the grid of a picture's view, the cells of its tokens in order, and the index of its first token."""
    segment = int(seen.order[picture])
    start, end = seen.pack.cu_seqlens[segment : segment + 2].tolist()
    kept = kept_cells(seen.pack)
    cells = np.arange(end - start) if kept is None else kept[start:end].astype(np.int64)
    return seen.pack.grids[segment], cells, start
