"""Shapes that packs are filled up to, so that a device sees few shapes. Pure integers.

A recorded forward (a CUDA graph) runs one shape, and on a GPU the bits of a product may depend on its number of rows.
So a bucket has a fixed number of tokens and of segments. A pack gets a tail of padding, cut into segments: every row
belongs to a segment, no segment is empty, and short segments cost little attention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Most tokens of a tail's segment. Attention over a tail costs at most the square of this a segment.
MAX_TAIL_TOKENS = 256
# A bucket has one segment for this many tokens: enough for packs of thumbnails of 64 tokens. A tail needs at least one
# token for each unused segment, so at most a 48th of the bucket.
_TOKENS_A_SEGMENT = 48
# A tile of a GPU's matrix products.
_ROW_MULTIPLE = 128


@dataclass(frozen=True, slots=True)
class Bucket:
    """tokens, segments: of every forward, tail included. longest: most tokens of any segment."""

    tokens: int
    segments: int
    longest: int

    def holds(self, lengths: Sequence[int]) -> bool:
        """True if these segments fit and the tail can be cut into the segments that are left."""
        tail, spare = self.tokens - sum(lengths), self.segments - len(lengths)
        return max(lengths) <= self.longest and 0 <= spare <= tail <= spare * min(MAX_TAIL_TOKENS, self.longest)

    def offsets(self, lengths: Sequence[int]) -> NDArray[np.int32]:
        """int32 `[segments + 1]`, strictly increasing from 0 to `tokens`: the pack's offsets, then the tail's."""
        assert self.holds(lengths), f"{len(lengths)} segments of {sum(lengths)} tokens in {self}"
        tail, spare = self.tokens - sum(lengths), self.segments - len(lengths)
        # Equal to within one token, which makes the sum of squares least.
        parts = [tail // spare + (place < tail % spare) for place in range(spare)]
        return np.cumsum([0, *lengths, *parts], dtype=np.int32)


def ladder(max_batch_tokens: int, *, longest: int, per_doubling: int = 4) -> tuple[Bucket, ...]:
    """Buckets from a small one to one that holds any pack of `max_batch_tokens` whose segments are not tiny.

    per_doubling: more buckets waste fewer rows, but each takes a recording and its memory. longest: as in `Bucket`.
    """
    # A full pack of one segment leaves a tail with a token for each other segment.
    top = math.ceil(max_batch_tokens * _TOKENS_A_SEGMENT / (_TOKENS_A_SEGMENT - 1))
    steps = range(max(0, math.ceil(per_doubling * math.log2(top / MAX_TAIL_TOKENS))) + 1)
    sizes = {math.ceil(top * 2 ** (-step / per_doubling) / _ROW_MULTIPLE) * _ROW_MULTIPLE for step in steps}
    return tuple(Bucket(size, size // _TOKENS_A_SEGMENT, longest) for size in sorted(sizes))


def smallest(buckets: Sequence[Bucket], lengths: Sequence[int]) -> Bucket | None:
    """The first bucket, from small to large, that holds segments of these lengths, or None."""
    return next((bucket for bucket in buckets if bucket.holds(lengths)), None)
