"""How far the vectors of two servers agree on the same pictures, in the terms of an index. Pure.

An index holds old vectors, and after the upgrade a search brings a new one.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Two neighbours that are nearer to one another than float32 tells are either's equal.
_EQUALLY_NEAR = 1e-6

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """pictures: how many. cosines: the least, first percentile and median of those between a picture's two vectors.
    recall: of the `k` nearest pictures in the index to a picture's old vector, the mean share that its new vector
    finds. same_nearest: of pictures whose new vector is nearest to their own old one, the share. shift_mean,
    shift_most: by how much the score of two pictures moves when one of them has its new vector."""

    pictures: int
    cosines: tuple[float, float, float]
    k: int
    recall: float
    same_nearest: float
    shift_mean: float
    shift_most: float

    @classmethod
    def of(cls, old: Vectors, new: Vectors, *, k: int) -> Self:
        """old, new: float32 `[N, D]` of length 1, N at least 2. k: at most N - 1 are compared."""
        k = min(k, len(old) - 1)
        before, after = (side.astype(np.float64) @ old.astype(np.float64).T for side in (old, new))
        cosines = after.diagonal()
        own = after.argmax(axis=1) == np.arange(len(old))
        # A copy under another name is as near as the picture itself.
        own |= after.max(axis=1) - cosines <= _EQUALLY_NEAR
        others = ~np.eye(len(old), dtype=bool)
        shifts = np.abs(after - before)[others]
        least, first, median = np.quantile(cosines, (0.0, 0.01, 0.5))
        return cls(
            pictures=len(old),
            cosines=(float(least), float(first), float(median)),
            k=k,
            recall=_recall(before, after, k),
            same_nearest=float(own.mean()),
            shift_mean=float(shifts.mean()),
            shift_most=float(shifts.max()),
        )


def _recall(before: NDArray[np.float64], after: NDArray[np.float64], k: int) -> float:
    """before, after: `[N, N]`, how near each picture of the index is to each that is looked for, which leaves out
    itself. A picture counts as found if it is as near as the last of the `k` nearest was."""
    before, after = before.copy(), after.copy()
    np.fill_diagonal(before, -np.inf)
    np.fill_diagonal(after, -np.inf)
    last = np.sort(before, axis=1)[:, -k] - _EQUALLY_NEAR
    found = np.argpartition(-after, k - 1, axis=1)[:, :k]
    return float((np.take_along_axis(before, found, axis=1) >= last[:, None]).mean())
