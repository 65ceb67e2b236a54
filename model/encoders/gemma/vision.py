"""The vision tower: patches in, one soft token for each 3 × 3 patches out, as wide as the text encoder.

Equal to Transformers' `Gemma4VisionModel` and what `EmbeddingGemma2Model` does to its output. Knows no text and no
file. Axes: T patches of a pack, R rows of the sequence (filler included), N = T / pooled**2 soft tokens, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.encoders.gemma.layers import GemmaBlock, LayerShape
from model.encoders.parts.windows import window_order
from model.kernels.attention import Attention, Segments
from model.kernels.linear import Linear, LinearKernel, pad_rows
from model.kernels.positions import CACHED_BYTES, GridPositions
from model.kernels.rotary import RotaryGrids
from model.pack import PackedBatch

THETA = 100.0


class SumOfTables(GridPositions):
    """Learned rows for columns and for rows, not resized, and added."""

    def __init__(self, tables: Tensor, *, device: torch.device) -> None:
        """tables: `[2, positions, D]`, for columns first."""
        super().__init__(device=device, max_cached_bytes=CACHED_BYTES)
        self._tables = tables.to("cpu", torch.float32)

    def resized(self, grid: tuple[int, int]) -> Tensor:
        columns, rows = self._tables[0, : grid[1]], self._tables[1, : grid[0]]
        return (columns.unsqueeze(0) + rows.unsqueeze(1)).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class GemmaPositions:
    """added: to the patches. rotary: rotates the heads in every block, one half by columns and the other by rows."""

    added: SumOfTables
    rotary: RotaryGrids

    @classmethod
    def of(cls, tables: Tensor, *, head_width: int, device: torch.device) -> "GemmaPositions":
        quarter = torch.arange(0, head_width // 2, 2, dtype=torch.float32) / (head_width // 2)
        frequencies = 1.0 / (THETA**quarter)

        def angles(grid: tuple[int, int]) -> Tensor:
            rows, columns = torch.from_numpy(np.indices(grid, dtype=np.float32).reshape(2, -1, 1))
            return torch.cat([columns * frequencies, rows * frequencies], dim=1)

        return cls(SumOfTables(tables, device=device), RotaryGrids(angles, head_width=head_width, device=device))

    @property
    def device(self) -> torch.device:
        return self.added.device

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[T, D]`: what is added to each patch."""
        return self.added.gather(batch)


def quartered_halves(weight: Tensor, heads: int) -> Tensor:
    """A weight of queries or keys, `[H * d, ...]`, with the second and third quarters of each head swapped.

    Transformers rotates the halves of a head apart, each by its own axis; blocks rotate values i and i + d/2.
    """
    quarters = weight.view(heads, 4, -1, *weight.shape[1:])
    return quarters[:, [0, 2, 1, 3]].reshape(weight.shape)


@dataclass(frozen=True, slots=True, eq=False)
class VisionArrangement:
    """order: int64 `[R]` on the device, the row of the pack that each row of the sequence is; the patches of a soft
    token are consecutive. added: float32 `[R, D]`, rotation: float32 `[R, d]`, in the order of the sequence."""

    segments: Segments
    order: Tensor
    added: Tensor
    rotation: Tensor

    @property
    def rows(self) -> int:
        return self.segments.offsets[-1]


class GemmaVision(nn.Module):
    """From packed patches to soft tokens."""

    def __init__(
        self, shape: LayerShape, depth: int, *, patch_width: int, pooled: int, text_width: int, standardised: bool,
        attention: Attention, kernel: LinearKernel,
    ) -> None:  # fmt: skip
        """pooled: patches a side of a soft token."""
        super().__init__()
        self.patch = Linear(patch_width, shape.width, kernel=kernel, bias=False)
        self.blocks = nn.ModuleList(GemmaBlock(shape, attention, kernel) for _ in range(depth))
        for name in ("std_bias", "std_scale"):
            own = nn.Parameter(torch.empty(shape.width), requires_grad=False) if standardised else None
            self.register_parameter(name, own)
        self.project = Linear(shape.width, text_width, kernel=kernel, bias=False)
        self._shape, self._pooled, self._row_multiple = shape, pooled, kernel.row_multiple

    def arrange(self, batch: PackedBatch, positions: GemmaPositions) -> VisionArrangement:
        device = positions.device
        filler = np.arange(batch.tokens, batch.tokens + -batch.tokens % self._row_multiple)
        starts = batch.cu_seqlens[:-1].astype(np.int64)
        orders = [window_order(grid, self._pooled)[0] + start for grid, start in zip(batch.grids, starts, strict=True)]
        order = torch.from_numpy(np.concatenate([*orders, filler])).to(device)
        return VisionArrangement(
            segments=Segments.at(batch.cu_seqlens, batch.max_seqlen, device),
            order=order,
            added=pad_rows(positions.gather(batch), self._row_multiple).index_select(0, order),
            rotation=pad_rows(positions.rotary.gather(batch), self._row_multiple).index_select(0, order),
        )

    def forward(self, patches: Tensor, arrangement: VisionArrangement) -> Tensor:
        """patches: `[T, 3*P*P]` normalised, in the dtype of the weights. Returns `[N, text width]` of that dtype."""
        x = pad_rows(patches, self._row_multiple).index_select(0, arrangement.order)
        x = self.patch(x).float() + arrangement.added
        for block in self.blocks:
            block(x, arrangement.segments, arrangement.rotation)
        soft = x[: arrangement.rows].view(-1, self._pooled**2, x.shape[1]).mean(1) * x.shape[1] ** 0.5
        if self.std_bias is not None and self.std_scale is not None:
            soft = (soft - self.std_bias.float()) * self.std_scale.float()
        soft = F.rms_norm(soft, soft.shape[-1:], None, self._shape.eps).to(patches.dtype)
        return self.project(pad_rows(soft, self._row_multiple))[: len(soft)]  # type: ignore[no-any-return]
