"""Position embeddings of a pack: for grids of any shape, from one learned square table, or for the one grid of a model.

Tables are resized on the host and kept in float32 whatever the dtype of the model, as big_vision does (Transformers on
CUDA resizes in the dtype of the weights, which is coarser), moved to the device once, and kept by grid.
"""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.pack import PackedBatch


class PositionTable:
    """A learned table, resized to each grid by bilinear interpolation with antialiasing, half-pixel centres."""

    def __init__(self, table: Tensor, *, device: torch.device, max_cached_bytes: int = 256 * 1024**2) -> None:
        """table: `[side, side, D]`. The least recently used grids are forgotten beyond `max_cached_bytes`."""
        self._table = table.to("cpu", torch.float32).permute(2, 0, 1).unsqueeze(0)  # [1, D, side, side]
        self.device = device
        self._max_cached_bytes = max_cached_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[T, D]` on the device: the positions of a pack's tokens (of the `kept` ones)."""
        tables = [self.for_grid(grid) for grid in batch.grids]
        if batch.kept is not None:
            cells = torch.from_numpy(batch.kept).to(self.device, torch.int64)
            spans = pairwise(batch.cu_seqlens.tolist())
            tables = [table[cells[start:end]] for table, (start, end) in zip(tables, spans, strict=True)]
        return torch.cat(tables)

    def for_grid(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[grid_h * grid_w, D]` on the device, row-major over the grid."""
        if grid in self._cache:
            self._cache.move_to_end(grid)
            return self._cache[grid]
        resized = F.interpolate(self._table, size=grid, mode="bilinear", align_corners=False, antialias=True)
        positions = resized.flatten(2).squeeze(0).T.contiguous().to(self.device)
        self._remember(grid, positions)
        return positions

    def _remember(self, grid: tuple[int, int], positions: Tensor) -> None:
        self._cache[grid] = positions
        self._cached_bytes += positions.nbytes
        while self._cached_bytes > self._max_cached_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes


class FixedTable:
    """A learned table for one grid, with rows for tokens that stand before the image's own, such as a class token."""

    def __init__(self, table: Tensor, *, grid: tuple[int, int], device: torch.device) -> None:
        """table: `[C + N, D]` for N cells, row-major over the grid, behind C rows that every segment begins with."""
        self._table = table.to(device, torch.float32)
        self._grid = grid
        self._before = len(table) - grid[0] * grid[1]
        self.device = device

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[S*C + T, D]` on the device: for each segment the C rows, and the positions of its tokens.

        What is asked for another grid is an `AssertionError`: sizing has seen to it.
        """
        grids = {*batch.grids}
        assert grids == {self._grid}, f"grids are {grids}; the model has {self._grid} alone"
        if batch.kept is None:
            return self._table.repeat(len(batch.grids), 1)
        before = np.arange(self._before, dtype=np.int32)
        rows: list[NDArray[np.int32]] = []
        for start, end in pairwise(batch.cu_seqlens.tolist()):
            rows += [before, self._before + batch.kept[start:end]]
        return self._table[torch.from_numpy(np.concatenate(rows)).to(self.device, torch.int64)]
