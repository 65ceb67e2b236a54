"""An encoder that fills packs up to the shapes of some buckets. Where that gains nothing, it is not put in between."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.encoders.parts.tower import Encoder, EncoderOutput, Layout
from model.errors import BackendUnavailable
from model.kernels.attention import Segments
from model.kernels.linear import pad_rows
from model.pack import PackedBatch
from model.running.buckets import Bucket, smallest


@dataclass(frozen=True, slots=True, eq=False)
class BucketedLayout(Layout):
    """tokens, count: of the pack, in front of the tail."""

    tokens: int
    count: int


class BucketedEncoder(Encoder):
    """An encoder whose sequence is tokens and nothing else; a pack that no bucket holds runs as it is.

    The tail is of zeros. It goes through every layer and counts as filler.
    """

    def __init__(self, encoder: Encoder, buckets: Sequence[Bucket]) -> None:
        super().__init__()
        self.encoder = encoder
        self._buckets = tuple(buckets)

    def lay_out(self, batch: PackedBatch) -> Layout:
        """Raises `BackendUnavailable` for an encoder whose sequence holds more than tokens."""
        packed = self.encoder.lay_out(batch)
        if type(packed) is not Layout:
            raise BackendUnavailable("buckets are for models whose sequence is the patches alone; this has another")
        lengths = np.diff(batch.cu_seqlens).tolist()
        bucket = smallest(self._buckets, lengths)
        if bucket is None:
            return packed
        offsets = bucket.offsets(lengths)
        cu_seqlens = torch.from_numpy(offsets).to(packed.positions.device)
        return BucketedLayout(
            segments=Segments(tuple(offsets.tolist()), cu_seqlens, bucket.longest),
            positions=pad_rows(packed.positions, bucket.tokens),
            tokens=batch.tokens,
            count=len(lengths),
        )

    def forward(self, patches: Tensor, layout: Layout) -> EncoderOutput:
        if not isinstance(layout, BucketedLayout):
            return self.encoder(patches, layout)  # type: ignore[no-any-return]
        output: EncoderOutput = self.encoder(pad_rows(patches, layout.rows), layout)
        return EncoderOutput(
            tokens=output.tokens[: layout.tokens],
            pooled=output.pooled[: layout.count],
            filler_rows=output.filler_rows + layout.rows - layout.tokens,
        )
