"""Packs of gray images that an idle device runs, so that the cost of packs is known before traffic has shown it.

They run after the start: a server that is ready takes requests, and a first fit can wait for a moment without any.
"""

from collections import deque

import numpy as np

from model.sizing.geometry import Geometry
from service.engine.client import ImageJob
from service.engine.cost.fit import CostModel
from service.limits import Limits

# A request that comes while one runs waits for about so long at most.
_LONGEST_S = 0.1


class CostSamples:
    """As many packs as a first fit needs, of few and many, short and long segments, the cheap ones first."""

    def __init__(self, geometry: Geometry, limits: Limits) -> None:
        """Only packs within the limits."""
        most, usual = limits.max_image_tokens, limits.default_max_tokens
        small = max(1, usual // 4)
        kinds = [
            (1, 1),
            (1, 16),
            (small, 4),
            (small, 16),
            *((usual, count) for count in (1, 2, 4)),
            (most, 1),
        ]
        packs = [geometry.strips([tokens] * count) for tokens, count in kinds]
        self._grids = deque(sorted((grids for grids in packs if _fits(grids, limits)), key=_tokens))
        self._row_width = 3 * geometry.patch_size**2

    def wanted(self, cost: CostModel) -> bool:
        """Whether there is another pack to run: `cost` has no fit yet, and knows that this one is short."""
        if not self._grids or cost.fit is not None or cost.tokens_per_s is None:
            return False
        return _tokens(self._grids[0]) / cost.tokens_per_s <= _LONGEST_S

    def take(self) -> list[ImageJob]:
        """The images of the next pack."""
        return [self._image(grid) for grid in self._grids.popleft()]

    def _image(self, grid: tuple[int, int]) -> ImageJob:
        tokens = grid[0] * grid[1]
        rows = np.full((tokens, self._row_width), 128, np.uint8)
        return ImageJob(rows, (grid,), tokens, deadline_s=None, want_tokens=False)


def _tokens(grids: list[tuple[int, int]]) -> int:
    return sum(height * width for height, width in grids)


def _fits(grids: list[tuple[int, int]], limits: Limits) -> bool:
    return _tokens(grids) <= limits.max_batch_tokens and len(grids) <= (limits.max_batch_items or len(grids))
