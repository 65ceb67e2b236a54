"""Position embeddings of a pack: for grids of any shape, from one learned square table or by rotation, or for the one
grid of a model.

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

    def __init__(
        self,
        table: Tensor,
        *,
        device: torch.device,
        align_corners: bool = False,
        max_cached_bytes: int = 256 * 1024**2,
    ) -> None:
        """table: `[side, side, D]`. align_corners: its corners lie on the grid's, and there is no antialiasing. The
        least recently used grids are forgotten beyond `max_cached_bytes`."""
        self._align_corners = align_corners
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
        corners = self._align_corners
        resized = F.interpolate(self._table, size=grid, mode="bilinear", align_corners=corners, antialias=not corners)
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


class RotaryTable:
    """By which angles the heads of each token are turned: half of them by its row, half by its column.

    Equal to Transformers' axial rotary embedding of the Qwen-VL towers: pair i of d/4 turns by position / 10000^(4i/d).
    """

    _THETA = 10_000.0

    def __init__(self, head_width: int, *, device: torch.device) -> None:
        """head_width: d, a multiple of 4."""
        self.device = device
        self._frequencies = self._THETA ** -(
            torch.arange(0, head_width // 2, 2, dtype=torch.float32) / (head_width // 2)
        )
        self._table = torch.empty(0)

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[T, d]` on the device: for each token d/2 cosines, then as many sines; of each half by its row, half
        by its column."""
        assert batch.kept is None, "no family that turns its heads has tokens dropped"
        table = self._up_to(max(map(max, batch.grids)))
        cells = np.concatenate([np.indices(grid).reshape(2, -1) for grid in batch.grids], axis=1)  # [2, T]
        rows, columns = table[torch.from_numpy(cells).to(self.device)]  # [T, 2, d/4] each
        return torch.stack([rows, columns], dim=2).flatten(1)

    def _up_to(self, positions: int) -> Tensor:
        """float32 `[at least that many, 2, d/4]` on the device: cosines and sines of each position."""
        if len(self._table) < positions:
            angles = torch.arange(max(1024, 2 * positions), dtype=torch.float32)[:, None] * self._frequencies
            # In float64, where what a vectorised cosine does to the last bit is rounded away.
            both = torch.stack([angles.double().cos(), angles.double().sin()], dim=1)
            self._table = both.float().to(self.device)
        return self._table
