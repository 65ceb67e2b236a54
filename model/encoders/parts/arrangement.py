"""A pack as the blocks of an encoder see it: positions, segments, and rows that are not image tokens.

The host decides every integer here. Axes: T image tokens of a pack, S segments, R rows of the blocks' sequence (class
tokens included), D width, d width of a head.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.kernels.attention import Segments
from model.kernels.linear import pad_rows
from model.kernels.rotary import PrefixedPositions
from model.pack import PackedBatch


class Positions(Protocol):
    """Position embeddings of a pack, on a device."""

    @property
    def device(self) -> torch.device: ...

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[R, D]`: a row for every row of the sequence but filler."""


@dataclass(frozen=True, slots=True)
class RotatedPositions:
    """Positions of a tower that rotates its heads.

    rotary: rotates the heads in every block. table: added to the patches before the blocks, or None.
    """

    rotary: Positions
    table: Positions | None = None

    @property
    def device(self) -> torch.device:
        return self.rotary.device

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[T, d]`: the rotation of each token's heads."""
        return self.rotary.gather(batch)


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """A pack as the sequence that the blocks see. The host has decided every integer in it.

    segments: of the sequence. positions: float32 `[R, D]` on the device.
    """

    segments: Segments
    positions: Tensor

    @property
    def rows(self) -> int:
        return self.segments.offsets[-1]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixedArrangement(Arrangement):
    """A sequence in which each segment begins with rows that are not image tokens, such as a class token.

    images: the segments without those rows. token_rows: int64 `[T]` on the device, the rows of image tokens.
    """

    images: Segments
    token_rows: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RotatedArrangement(PrefixedArrangement):
    """rotation: float32 `[R, d]`, filler included, as for `Block`; None without rotary positions."""

    rotation: Tensor | None


def prefixed_arrangement(batch: PackedBatch, positions: Positions, prefix: int) -> PrefixedArrangement:
    """Arranges a pack with `prefix` rows before the tokens of each segment."""
    device, count = positions.device, len(batch.grids)
    cu_seqlens = batch.cu_seqlens + prefix * np.arange(count + 1, dtype=np.int32)
    # A token moves on by the prefix rows of all segments up to and including its own.
    shifts = np.repeat(prefix * np.arange(1, count + 1), np.diff(batch.cu_seqlens))
    return PrefixedArrangement(
        segments=Segments.at(cu_seqlens, batch.max_seqlen + prefix, device),
        positions=positions.gather(batch),
        images=Segments.at(batch.cu_seqlens, batch.max_seqlen, device),
        token_rows=torch.from_numpy(np.arange(batch.tokens) + shifts).to(device),
    )


def rotated_arrangement(
    batch: PackedBatch, positions: PrefixedPositions, prefix: int, row_multiple: int
) -> RotatedArrangement:
    """The same for a tower that may have rotary positions."""
    rows = prefixed_arrangement(batch, positions, prefix)
    rotation = pad_rows(positions.rotary.gather(batch), row_multiple) if positions.rotary else None
    return RotatedArrangement(rows.segments, rows.positions, rows.images, rows.token_rows, rotation)
