"""The product's encoder on packs that are filled up to the shapes of some buckets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loadtest.bench.forwards.buckets import Bucket, smallest
from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import Encoder, EncoderOutput
from model.errors import BackendUnavailable
from model.kernels.attention import Segments
from model.kernels.linear import pad_rows
from model.pack import PackedBatch


@dataclass(frozen=True, slots=True, eq=False)
class BucketedArrangement(Arrangement):
    """tokens, count: tokens and segments of the pack, which lie in front of the tail."""

    tokens: int
    count: int


class BucketedEncoder(Encoder):
    """Wraps an encoder whose sequence is the patches alone. A pack that no bucket holds runs as it is.

    The tail is zeros. It goes through every layer and counts as filler.
    """

    def __init__(self, encoder: Encoder, buckets: Sequence[Bucket]) -> None:
        """buckets: from small to large."""
        super().__init__()
        self.encoder = encoder
        self._buckets = tuple(buckets)

    def arrange(self, batch: PackedBatch) -> Arrangement:
        """Raises `BackendUnavailable` if the encoder's sequence holds more than the patches."""
        packed = self.encoder.arrange(batch)
        if type(packed) is not Arrangement:
            raise BackendUnavailable("buckets need a model whose sequence is the patches alone; this has another")
        lengths = np.diff(batch.cu_seqlens).tolist()
        bucket = smallest(self._buckets, lengths)
        if bucket is None:
            return packed
        offsets = bucket.offsets(lengths)
        return BucketedArrangement(
            segments=Segments.at(offsets, bucket.longest, packed.positions.device),
            positions=pad_rows(packed.positions, bucket.tokens),
            tokens=batch.tokens,
            count=len(lengths),
        )

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        if not isinstance(arrangement, BucketedArrangement):
            return self.encoder(patches, arrangement)  # type: ignore[no-any-return]
        output: EncoderOutput = self.encoder(pad_rows(patches, arrangement.rows), arrangement)
        return EncoderOutput(
            tokens=output.tokens[: arrangement.tokens],
            pooled=output.pooled[: arrangement.count],
            filler_rows=output.filler_rows + arrangement.rows - arrangement.tokens,
        )
