"""Position embeddings of a pack from learned tables: for grids of any shape, or for one fixed grid.

Tables are resized on the host in float32, as big_vision does (Transformers on CUDA resizes in the dtype of the weights,
which is coarser). Each grid's result moves to the device once and is cached.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from model.pack import PackedBatch

CACHED_BYTES = 256 * 1024**2


class GridPositions(ABC):
    """Positions for grids of any shape, each resized once, after rows that every segment begins with."""

    def __init__(self, *, device: torch.device, before: Tensor | None = None, max_cached_bytes: int) -> None:
        """before: `[C, D]`, for those rows. Beyond `max_cached_bytes` the least recently used grids are dropped."""
        self.device = device
        self._before = [] if before is None else [before.to(device, torch.float32)]
        self._max_cached_bytes = max_cached_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    @abstractmethod
    def resized(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[grid_h * grid_w, D]` on the host, row-major over the grid."""

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[S*C + T, D]` on the device: the positions of a pack's tokens."""
        tables = [self.for_grid(grid) for grid in batch.grids]
        return torch.cat([rows for table in tables for rows in (*self._before, table)])

    def for_grid(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[grid_h * grid_w, D]` on the device, row-major over the grid."""
        if grid in self._cache:
            self._cache.move_to_end(grid)
            return self._cache[grid]
        positions = self.resized(grid).contiguous().to(self.device)
        self._remember(grid, positions)
        return positions

    def _remember(self, grid: tuple[int, int], positions: Tensor) -> None:
        self._cache[grid] = positions
        self._cached_bytes += positions.nbytes
        while self._cached_bytes > self._max_cached_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes


class PositionTable(GridPositions):
    """A learned table, resized to each grid by interpolation.

    keeps_aspect: the table is resized to the square of the grid's longer side and cropped at the origin.
    """

    def __init__(
        self,
        table: Tensor,
        *,
        device: torch.device,
        mode: Literal["bilinear", "bicubic"] = "bilinear",
        align_corners: bool = False,
        antialias: bool = True,
        keeps_aspect: bool = False,
        before: Tensor | None = None,
        max_cached_bytes: int = CACHED_BYTES,
    ) -> None:
        """table: `[h, w, D]`. align_corners: the centres of its corners lie on those of the grid's corners; otherwise
        its edges lie on the grid's edges."""
        super().__init__(device=device, before=before, max_cached_bytes=max_cached_bytes)
        table = table.to("cpu", torch.float32)
        # [1, D, h, w], channels last in memory. `table.permute(2, 0, 1).unsqueeze(0)` has another first stride, and
        # PyTorch (as of 2.13) resizes it to wrong numbers for a grid one patch wide and more than one high.
        self._table = table.unsqueeze(0).permute(0, 3, 1, 2)
        self._mode = mode
        self._align_corners = align_corners
        self._antialias = antialias
        self._keeps_aspect = keeps_aspect

    def resized(self, grid: tuple[int, int]) -> Tensor:
        table = self._table
        if not self._keeps_aspect or grid == table.shape[2:]:
            return self._interpolated(table, grid).flatten(2).squeeze(0).T
        longer = max(grid)
        if not self._antialias and not self._align_corners:
            return self._cropped(grid, longer)
        # A square of 1024 patches a side takes gigabytes, so the shorter axis goes first and is cropped at once.
        for axis in sorted((0, 1), key=lambda axis: grid[axis]):
            size = (longer, table.shape[3]) if axis == 0 else (table.shape[2], longer)
            table = self._interpolated(table, size).narrow(2 + axis, 0, grid[axis])
            table = table.contiguous(memory_format=torch.channels_last)
        return table.flatten(2).squeeze(0).T

    def _cropped(self, grid: tuple[int, int], longer: int) -> Tensor:
        """What resizing to `longer` × `longer` and cropping gives, to the bit: a value depends on its place and on the
        scales alone."""
        resize = {"bilinear": torch.ops.aten.upsample_bilinear2d, "bicubic": torch.ops.aten.upsample_bicubic2d}
        sides = self._table.shape[2:]
        # PyTorch copies an axis that keeps its length, whatever the scale: such an axis gets one more cell.
        size = [cells + (cells == side) for cells, side in zip(grid, sides, strict=True)]
        table: Tensor = resize[self._mode](self._table, size, False, *(longer / side for side in sides))
        return table[:, :, : grid[0], : grid[1]].flatten(2).squeeze(0).T

    def _interpolated(self, table: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(
            table, size=size, mode=self._mode, align_corners=self._align_corners, antialias=self._antialias
        )


class NoTable(GridPositions):
    """No learned positions: zeros, after the rows that every segment begins with."""

    def __init__(self, before: Tensor, *, device: torch.device) -> None:
        """before: `[C, D]`, for those rows."""
        super().__init__(device=device, before=before, max_cached_bytes=CACHED_BYTES)
        self._zero = torch.zeros(1, before.shape[1], device=device)

    def resized(self, grid: tuple[int, int]) -> Tensor:
        return self._zero.expand(grid[0] * grid[1], -1)

    def for_grid(self, grid: tuple[int, int]) -> Tensor:
        """As in `GridPositions`, but takes no memory and is not cached."""
        return self.resized(grid)


class FactorisedTable(GridPositions):
    """NaViT's learned tables for rows and for columns, each resized linearly without antialiasing, then added.

    keeps_aspect: both are resized to the grid's longer side and cropped at the origin.
    """

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        *,
        device: torch.device,
        keeps_aspect: bool = False,
        before: Tensor | None = None,
        max_cached_bytes: int = CACHED_BYTES,
    ) -> None:
        """rows: `[h, D]`, columns: `[w, D]`."""
        super().__init__(device=device, before=before, max_cached_bytes=max_cached_bytes)
        self._tables = [table.to("cpu", torch.float32).T.unsqueeze(0) for table in (rows, columns)]  # [1, D, side]
        self._keeps_aspect = keeps_aspect

    def resized(self, grid: tuple[int, int]) -> Tensor:
        rows, columns = (
            F.interpolate(table, size=max(grid) if self._keeps_aspect else side, mode="linear", align_corners=False)
            .narrow(2, 0, side)
            .squeeze(0)
            .T
            for table, side in zip(self._tables, grid, strict=True)
        )
        return (rows.unsqueeze(1) + columns.unsqueeze(0)).flatten(0, 1)


class FixedTable(GridPositions):
    """A learned table for one grid, with rows for tokens before the image's own, such as a class token."""

    def __init__(self, table: Tensor, *, grid: tuple[int, int], device: torch.device) -> None:
        """table: `[C + N, D]`: C rows that every segment begins with, then N cells, row-major over the grid."""
        before = len(table) - grid[0] * grid[1]
        super().__init__(device=device, before=table[:before], max_cached_bytes=CACHED_BYTES)
        self._table = table[before:].to("cpu", torch.float32)
        self._grid = grid

    def resized(self, grid: tuple[int, int]) -> Tensor:
        """The table itself. Another grid is an `AssertionError`, since sizing rules it out."""
        assert grid == self._grid, f"a grid is {grid}; the model has {self._grid} alone"
        return self._table
