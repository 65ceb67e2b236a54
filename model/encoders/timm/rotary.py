"""The rotary positions of timm's vision transformers: the angles of a grid, axial or DINOv3's."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """kind: `axial` turns by a patch's place, `dinov3` by where it lies between -1 and 1. temperature: the longest
    period. reference: the grid to which every grid is stretched, or None. offset: of the first place. column_first: of
    the two halves of a head's angles. halves: pairs are values i and i + d/2 of a head, otherwise neighbours.
    """

    kind: Literal["axial", "dinov3"]
    temperature: float
    reference: tuple[int, int] | None
    offset: float
    column_first: bool
    halves: bool

    def angles(self, grid: tuple[int, int], head_width: int) -> Tensor:
        """float32 `[grid_h * grid_w, d/2]`, row-major over the grid. The operations are timm's, in its order."""
        count = head_width // 4
        places = [self._places(grid, axis) for axis in (0, 1)]
        rows, columns = torch.meshgrid(*places, indexing="ij")
        axes = torch.stack([columns, rows] if self.column_first else [rows, columns], dim=-1).flatten(0, 1)[:, :, None]
        if self.kind == "dinov3":
            periods = self.temperature ** (2.0 * torch.arange(count, dtype=torch.float32) / (head_width // 2))
            return (2 * math.pi * (2.0 * axes - 1.0) / periods).flatten(1)
        bands = 1.0 / (self.temperature ** (torch.arange(count, dtype=torch.float32) / count))
        return (axes * bands).flatten(1)

    def _places(self, grid: tuple[int, int], axis: int) -> Tensor:
        side = grid[axis]
        if self.kind == "dinov3":
            return (torch.arange(0.5, side, dtype=torch.float32) + self.offset) / float(side)
        places = torch.arange(side, dtype=torch.float32) + self.offset
        return places / side * self.reference[axis] if self.reference else places
