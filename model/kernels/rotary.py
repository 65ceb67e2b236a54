"""Rotary positions of a pack: the angles by which each row's heads are rotated.

`Block` rotates values i and i + d/2 of a head by angle i. A family that rotates neighbours instead (2i and 2i + 1)
stores its queries and keys with the values of a head in the other order (`paired_halves`): scores stay the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.kernels.positions import CACHED_BYTES, GridPositions
from model.pack import PackedBatch


class RotaryGrids(GridPositions):
    """Rotations that a function of the grid gives, each grid's computed once. Rows before an image's own, such as a
    class token, are not rotated."""

    def __init__(
        self, angles: Callable[[tuple[int, int]], Tensor], *, before: int = 0, head_width: int, device: torch.device
    ) -> None:
        """angles: of a grid, float `[grid_h * grid_w, d/2]`, row-major over the grid. before: rows of each segment that
        are not rotated. head_width: d."""
        still = torch.cat([torch.ones(before, head_width // 2), torch.zeros(before, head_width // 2)], dim=1)
        super().__init__(device=device, before=still, max_cached_bytes=CACHED_BYTES)
        self._angles = angles

    def resized(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[grid_h * grid_w, d]`: d/2 cosines, then d/2 sines."""
        # In float64: rounding to float32 then hides what a vectorised cosine does to the last bit.
        angles = self._angles(grid).double()
        return torch.cat([angles.cos(), angles.sin()], dim=1).float()


@dataclass(frozen=True, slots=True)
class PrefixedPositions:
    """added: rows that every segment begins with, and behind them what is added to the patches. rotary: rotates the
    heads in every block, or None."""

    added: GridPositions
    rotary: RotaryGrids | None = None

    @property
    def device(self) -> torch.device:
        return self.added.device

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[R, D]`: what each row of the sequence is before its patch is added."""
        return self.added.gather(batch)


def paired_halves(weight: Tensor, heads: int) -> Tensor:
    """A weight or bias of queries or keys, `[H * d, ...]`, with the even values of each head first, then the odd."""
    head = weight.view(heads, -1, *weight.shape[1:])  # [H, d, ...]
    return torch.cat([head[:, 0::2], head[:, 1::2]], dim=1).flatten(0, 1)


class RotaryTable:
    """The angles by which each token's heads are rotated: one half by its row, the other by its column.

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
        """float32 `[T, d]` on the device: for each token d/2 cosines, then d/2 sines.

        One half of each is for the row, the other for the column.
        """
        table = self._up_to(max(map(max, batch.grids)))
        cells = np.concatenate([np.indices(grid).reshape(2, -1) for grid in batch.grids], axis=1)  # [2, T]
        rows, columns = table[torch.from_numpy(cells).to(self.device)]  # [T, 2, d/4] each
        return torch.stack([rows, columns], dim=2).flatten(1)

    def _up_to(self, positions: int) -> Tensor:
        """float32 `[positions or more, 2, d/4]` on the device: cosines and sines of each position."""
        if len(self._table) < positions:
            angles = torch.arange(max(1024, 2 * positions), dtype=torch.float32)[:, None] * self._frequencies
            # In float64: rounding to float32 then hides what a vectorised cosine does to the last bit.
            both = torch.stack([angles.double().cos(), angles.double().sin()], dim=1)
            self._table = both.float().to(self.device)
        return self._table
