"""Position embeddings for grids of any shape, from one learned square table.

Tables are resized on the host and kept in float32 whatever the dtype of the model, as big_vision does (Transformers on
CUDA resizes in the dtype of the weights, which is coarser), moved to the device once, and kept by grid.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class PositionTable:
    """A learned table, resized to each grid by bilinear interpolation with antialiasing, half-pixel centres."""

    def __init__(self, table: Tensor, *, device: torch.device, max_cached_bytes: int = 256 * 1024**2) -> None:
        """table: `[side, side, D]`. The least recently used grids are forgotten beyond `max_cached_bytes`."""
        self._table = table.to("cpu", torch.float32).permute(2, 0, 1).unsqueeze(0)  # [1, D, side, side]
        self._device = device
        self._max_cached_bytes = max_cached_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def gather(
        self, grids: Sequence[tuple[int, int]], kept: NDArray[np.int32] | None, offsets: Sequence[int]
    ) -> Tensor:
        """float32 `[T, D]` on the device: the positions of a pack's tokens (of the `kept` ones)."""
        tables = [self.for_grid(grid) for grid in grids]
        if kept is not None:
            cells = torch.from_numpy(kept).to(self._device, torch.int64)
            tables = [t[cells[start:end]] for t, start, end in zip(tables, offsets[:-1], offsets[1:], strict=True)]
        return torch.cat(tables)

    def for_grid(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[grid_h * grid_w, D]` on the device, row-major over the grid."""
        if grid in self._cache:
            self._cache.move_to_end(grid)
            return self._cache[grid]
        resized = F.interpolate(self._table, size=grid, mode="bilinear", align_corners=False, antialias=True)
        positions = resized.flatten(2).squeeze(0).T.contiguous().to(self._device)
        self._remember(grid, positions)
        return positions

    def _remember(self, grid: tuple[int, int], positions: Tensor) -> None:
        self._cache[grid] = positions
        self._cached_bytes += positions.nbytes
        while self._cached_bytes > self._max_cached_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
