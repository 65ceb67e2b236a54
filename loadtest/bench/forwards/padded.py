"""The product's encoder on a rectangle: every segment padded to one length.

This is what a server does that has no attention over segments of any length. Padding goes through every layer, and is
counted as computed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import Encoder, EncoderOutput
from model.errors import BackendUnavailable
from model.kernels.attention import Segments
from model.pack import PackedBatch


@dataclass(frozen=True, slots=True, eq=False)
class PaddedSegments(Segments):
    """Segments of one length. mask: bool `[S, max_seqlen]` on the device, true where there is a token; None if none of
    them is padded."""

    mask: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PaddedArrangement(Arrangement):
    """places: int64 `[T]` on the device, which row of the rectangle each token of the pack is."""

    places: Tensor


class PaddedEncoder(Encoder):
    """Wraps an encoder whose sequence is the patches alone and that attends by `padded_attention`.

    A pack of T tokens in S segments becomes S * L rows and comes out as T tokens again. Padding is zeros, in the
    normalised patches and in the positions.
    """

    def __init__(self, encoder: Encoder, *, length: int | None = None) -> None:
        """length: L, at least the longest segment of every pack; None for the longest of each pack."""
        super().__init__()
        self.encoder = encoder
        self._length = length

    def arrange(self, batch: PackedBatch) -> PaddedArrangement:
        """Raises `BackendUnavailable` if the encoder's sequence is not the patches alone, in order."""
        packed = self.encoder.arrange(batch)
        if type(packed) is not Arrangement:
            raise BackendUnavailable("padding needs a model whose sequence is the patches alone; this has another")
        device = packed.positions.device
        count, length = len(batch.grids), self._length or batch.max_seqlen
        mask = np.arange(length) < np.diff(batch.cu_seqlens)[:, None]  # [S, L]
        places = torch.from_numpy(np.flatnonzero(mask)).to(device)
        cu_seqlens = np.arange(count + 1, dtype=np.int32) * np.int32(length)
        segments = PaddedSegments(
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


def padded_attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """One call over a batch of segments of one length, with the signature of `model.kernels.attention.Attention`.

    Padding attends like any token, and nothing attends to padding.
    """
    rows = queries.offsets[-1]
    q_, k_, v_ = (
        x[: part.offsets[-1]].view(part.count, -1, *x.shape[1:]).transpose(1, 2)  # [S, H, n, d]
        for x, part in ((q, queries), (k, keys), (v, keys))
    )
    mask = keys.mask[:, None, None, :] if isinstance(keys, PaddedSegments) and keys.mask is not None else None
    out = F.scaled_dot_product_attention(q_, k_, v_, attn_mask=mask).transpose(1, 2).flatten(0, 1)
    return out if rows == len(q) else torch.cat([out, out.new_zeros(len(q) - rows, *out.shape[1:])])


def _spread(x: Tensor, places: Tensor, rows: int) -> Tensor:
    """`x` `[T, ...]` with each row in its place among `rows`, and zeros elsewhere."""
    return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, places, x)
