"""Shapes that packs are filled up to, so that a device sees few of them: pure integers.

A recorded forward (a CUDA graph) runs one shape, and on a GPU the bits of a product may depend on its number of rows.
Hence a bucket has a fixed number of tokens and of segments. What a pack lacks is a tail of padding, cut into segments:
no row belongs to none, no segment is empty, and short ones cost little attention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of one segment of a tail. It costs a forward its tokens anyway, and attention the square of this at most.
MAX_TAIL_TOKENS = 256
# A bucket has a segment for so many of its tokens: enough for packs of thumbnails, of 64 tokens each. A tail has at
# least a token for each that a pack leaves over, which is at most a 48th of the bucket.
_TOKENS_A_SEGMENT = 48
# Whole tiles of a GPU's matrix products.
_ROW_MULTIPLE = 128


@dataclass(frozen=True, slots=True)
class Bucket:
    """tokens, segments: of every forward, its tail included. longest: most tokens of a segment, of the tail's too."""

    tokens: int
    segments: int
    longest: int

    def holds(self, lengths: Sequence[int]) -> bool:
        """Whether the tail behind segments of these lengths can be cut into as many as are left over."""
        tail, spare = self.tokens - sum(lengths), self.segments - len(lengths)
        return max(lengths) <= self.longest and 0 <= spare <= tail <= spare * min(MAX_TAIL_TOKENS, self.longest)

    def offsets(self, lengths: Sequence[int]) -> NDArray[np.int32]:
        """int32 `[segments + 1]`, strictly increasing from 0 to `tokens`: those of the pack, then those of the tail."""
        assert self.holds(lengths), f"{len(lengths)} segments of {sum(lengths)} tokens in {self}"
        tail, spare = self.tokens - sum(lengths), self.segments - len(lengths)
        # Alike, but for one token: the sum of squares is the least that there is.
        parts = [tail // spare + (place < tail % spare) for place in range(spare)]
        return np.cumsum([0, *lengths, *parts], dtype=np.int32)


def ladder(max_batch_tokens: int, *, longest: int, per_doubling: int = 4) -> tuple[Bucket, ...]:
    """Buckets from small to one that holds any pack of `max_batch_tokens` whose segments are not tiny.

    per_doubling: more of them waste less, and take a recording and its memory each. longest: of any segment.
    """
    # Behind a full pack of one segment the tail still has a token for each of the others.
    top = math.ceil(max_batch_tokens * _TOKENS_A_SEGMENT / (_TOKENS_A_SEGMENT - 1))
    steps = range(max(0, math.ceil(per_doubling * math.log2(top / MAX_TAIL_TOKENS))) + 1)
    sizes = {math.ceil(top * 2 ** (-step / per_doubling) / _ROW_MULTIPLE) * _ROW_MULTIPLE for step in steps}
    return tuple(Bucket(size, size // _TOKENS_A_SEGMENT, longest) for size in sorted(sizes))


def smallest(buckets: Sequence[Bucket], lengths: Sequence[int]) -> Bucket | None:
    """The first bucket, of some from small to large, that holds segments of these lengths; None: none does."""
    return next((bucket for bucket in buckets if bucket.holds(lengths)), None)
