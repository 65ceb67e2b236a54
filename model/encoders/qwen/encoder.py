"""The encoder of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: merges `merge` × `merge` patches into a token of a language model.

The blocks see patches in the order in which they are merged, so that the patches of a merged token are consecutive rows
and a window of attention is a segment. Merged tokens come out in the order of the grid. Knows nothing of images,
devices or checkpoint files.

Axes: T patches of a pack, R rows of the sequence (filler included), N = T / merge**2 merged tokens, S images, D width,
E width of a merged token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.parts.arrangement import Arrangement, RotatedPositions
from model.encoders.parts.blocks import Block
from model.encoders.parts.tensors import ACTIVATIONS
from model.encoders.parts.tower import EncoderOutput, Setup, Tower, segment_means
from model.encoders.parts.windows import merge_order
from model.encoders.qwen.family import QwenConfig
from model.errors import CheckpointError
from model.kernels.attention import Segments
from model.kernels.linear import Linear, LinearKernel, pad_rows
from model.pack import PackedBatch


@dataclass(frozen=True, slots=True, eq=False)
class QwenArrangement(Arrangement):
    """positions: float32 `[R, d]`, the rotation of each row's heads.

    order: int64 `[R]`, the row of the pack that each row of the sequence is; filler rows stay in place. windows: the
    same sequence in smaller segments. merged_order: int64 `[N]`, the merged token of the sequence for each one that
    comes out. added: float32 `[T, D]` in the order of the pack, what a family adds to its patches, or None.
    """

    order: Tensor
    windows: Segments
    merged_order: Tensor
    added: Tensor | None


class QwenEncoder(Tower):
    """From packed patches to merged tokens, and their mean for each image."""

    def __init__(self, config: QwenConfig, setup: Setup) -> None:
        """Raises `CheckpointError` for `features_after`."""
        super().__init__(config, setup, patch_bias=config.has_patch_bias)
        if setup.features_after is not None:
            raise CheckpointError("feature_layer is set; the token vectors of this family are merged behind its layers")
        assert isinstance(setup.positions, RotatedPositions)
        attention, kernel, activation = setup.attention, setup.kernel, ACTIVATIONS[config.hidden_act]
        self.blocks = nn.ModuleList(
            Block(config, attention, kernel, activation, norm=config.norm, mlp=config.mlp) for _ in range(config.depth)
        )
        self.merger = Merger(config, config.width, kernel)
        self.deepstack = nn.ModuleList(Merger(config, config.block_width, kernel) for _ in config.deepstack_layers)
        self._config = config
        self._positions: RotatedPositions = setup.positions

    def arrange(self, batch: PackedBatch) -> QwenArrangement:
        device, config, table = self._positions.device, self._config, self._positions.table
        filler = np.arange(batch.tokens, batch.tokens + -batch.tokens % self._row_multiple)
        parts = [merge_order(grid, config.merge, config.window) for grid in batch.grids]
        orders, lengths, merged_orders = zip(*parts, strict=True)
        starts = batch.cu_seqlens[:-1].astype(np.int64)
        order = torch.from_numpy(np.concatenate([*_shifted(orders, starts), filler])).to(device)
        merged_order = np.concatenate(_shifted(merged_orders, starts // config.merge**2))
        segments = Segments.at(batch.cu_seqlens, batch.max_seqlen, device)
        return QwenArrangement(
            segments=segments,
            positions=pad_rows(self._positions.gather(batch), self._row_multiple).index_select(0, order),
            order=order,
            windows=segments if config.window is None else _windows(np.concatenate(lengths), device),
            merged_order=torch.from_numpy(merged_order).to(device),
            added=table.gather(batch) if table else None,
        )

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, QwenArrangement)
        x = self.patch(pad_rows(patches, self._row_multiple)).float()
        if arrangement.added is not None:
            x[: arrangement.rows] += arrangement.added
        x = x.index_select(0, arrangement.order)
        deepstack: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            segments = arrangement.segments if i in self._config.full_layers else arrangement.windows
            block(x, segments, arrangement.positions)
            if i in self._config.deepstack_layers:
                deepstack.append(self.deepstack[len(deepstack)](x[: arrangement.rows]))
        merged = torch.cat([self.merger(x[: arrangement.rows]), *deepstack], dim=1)
        tokens = merged.index_select(0, arrangement.merged_order)
        return EncoderOutput(
            tokens=tokens, pooled=self._pool(tokens, arrangement), filler_rows=len(x) - arrangement.rows
        )

    def _pool(self, tokens: Tensor, arrangement: Arrangement) -> Tensor:
        """tokens: `[N, ...]`. Returns float32 `[S, E]`, a mean for each image."""
        offsets = [offset // self._config.merge**2 for offset in arrangement.segments.offsets]
        return segment_means(tokens[:, : self._config.out_width], offsets)


class Merger(nn.Module):
    """An MLP over the patches of a merged token in one row. They are normalised one by one, or as that row."""

    def __init__(self, config: QwenConfig, norm_width: int, kernel: LinearKernel) -> None:
        super().__init__()
        self.norm = config.norm(norm_width, eps=config.eps)
        self.first = Linear(config.block_width, config.block_width, kernel=kernel, activation="gelu")
        self.second = Linear(config.block_width, config.out_width, kernel=kernel)
        self._norm_width, self._row_multiple = norm_width, kernel.row_multiple

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 `[T, D]`, in the order of merging. Returns `[N, E]`."""
        blocks = self.norm(x.reshape(-1, self._norm_width)).view(-1, self.first.weight.shape[1])
        return self.second(self.first(pad_rows(blocks, self._row_multiple)))[: len(blocks)]  # type: ignore[no-any-return]


def _shifted(orders: Sequence[NDArray[np.int64]], starts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [order + start for order, start in zip(orders, starts, strict=True)]


def _windows(lengths: NDArray[np.int64], device: torch.device) -> Segments:
    return Segments.at(np.cumsum([0, *lengths], dtype=np.int32), int(lengths.max()), device)
