"""The comparison: the same encoder on a rectangle, each segment padded to the longest of its pack.

What a server does that has no attention over segments of any length; here so that what packing saves can be measured
on anybody's own pictures. Padding goes through every layer, and counts as what it is.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.encoders.parts.tower import Arrangement, Encoder, EncoderOutput
from model.errors import BackendUnavailable
from model.kernels.attention import Segments
from model.pack import PackedBatch


@dataclass(frozen=True, slots=True, eq=False)
class PaddedArrangement(Arrangement):
    """places: int64 `[T]` on the device, which row of the rectangle each token of the pack is."""

    places: Tensor


class PaddedEncoder(Encoder):
    """An encoder whose sequence is tokens and nothing else, made with `padded_attention`, on S segments of L rows each.

    Padding is of zeros, behind normalising and as positions. It comes out of nothing: T tokens go in, T come out.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def arrange(self, batch: PackedBatch) -> PaddedArrangement:
        """Raises `BackendUnavailable` for an encoder whose sequence holds more than tokens, or in another order."""
        packed = self.encoder.arrange(batch)
        if type(packed) is not Arrangement:
            raise BackendUnavailable(
                "layout=padded is for models whose sequence is the patches alone; this has another"
            )
        device = packed.positions.device
        count, length = len(batch.grids), batch.max_seqlen
        lengths = np.diff(batch.cu_seqlens)
        mask = np.arange(length) < lengths[:, None]  # [S, L]
        places = torch.from_numpy(np.flatnonzero(mask)).to(device)
        cu_seqlens = np.arange(count + 1, dtype=np.int32) * np.int32(length)
        segments = Segments(
            offsets=tuple(cu_seqlens.tolist()),
            cu_seqlens=torch.from_numpy(cu_seqlens).to(device),
            max_seqlen=length,
            mask=None if mask.all() else torch.from_numpy(mask).to(device),
        )
        return PaddedArrangement(segments, _spread(packed.positions, places, count * length), places)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, PaddedArrangement)
        output: EncoderOutput = self.encoder(_spread(patches, arrangement.places, arrangement.rows), arrangement)
        return EncoderOutput(
            tokens=output.tokens.index_select(0, arrangement.places),
            pooled=output.pooled,
            filler_rows=output.filler_rows + arrangement.rows - len(patches),
        )


def _spread(x: Tensor, places: Tensor, rows: int) -> Tensor:
    """`x` `[T, ...]` with each row in its place among `rows`, and zeros in all others."""
    return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, places, x)
