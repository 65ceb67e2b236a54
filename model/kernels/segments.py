"""Which tokens of a pack attend to one another: segments, and how their rows are taken at a time.

Integers, and the masks made of them. Knows no backend.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# How many scores a backend holds at a time: about as many as a core's own caches do. Measured from 63 to 1,024 tokens.
SCORES_AT_ONCE = 2**20
# Measured in float32: the bits depend on the number of threads with 1 to 3 queries, and not with 4 or more.
CPU_FEWEST_QUERIES = 16
# How many queries of a segment with a window are taken at once. Fewer see fewer keys in vain, and take more calls.
_QUERIES_OF_A_WINDOW = 512


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Where segments begin and end in a sequence, on the host and on the device.

    offsets: S+1 ints from 0 to the number of tokens. cu_seqlens: the same, int32 `[S+1]` on the device.
    max_seqlen: the length of the longest segment, or an upper bound. causal: a token attends only to those up to
    itself. window: a token attends only to those at most so many tokens before or behind it; None for all. No segment
    is causal and has a window.
    """

    offsets: tuple[int, ...]
    cu_seqlens: Tensor
    max_seqlen: int
    causal: bool = False
    window: int | None = None

    @classmethod
    def at(
        cls,
        offsets: NDArray[np.int32],
        max_seqlen: int,
        device: torch.device,
        *,
        causal: bool = False,
        window: int | None = None,
    ) -> "Segments":
        """offsets: int32 `[S+1]` on the host, from 0."""
        return cls(tuple(offsets.tolist()), torch.from_numpy(offsets).to(device), max_seqlen, causal, window)

    @classmethod
    def singles(cls, count: int, device: torch.device) -> "Segments":
        """`count` segments of one token each."""
        cu_seqlens = torch.arange(count + 1, dtype=torch.int32, device=device)
        return cls(tuple(range(count + 1)), cu_seqlens, 1)

    @property
    def count(self) -> int:
        return len(self.offsets) - 1

    def has_blocks(self, length: int) -> bool:
        """Whether the window hides any token of a segment of this length from another."""
        return self.window is not None and length > self.window + 1

    def blocks(self, length: int) -> Iterator[tuple[slice, slice, Tensor | None]]:
        """Queries of a segment of this length, the keys that any of them attends to, and a mask.

        mask: bool `[queries, keys]`, true where a query attends to a key; None where it attends to all.
        """
        if self.window is None or not self.has_blocks(length):
            yield slice(0, length), slice(0, length), None
            return
        for rows in slices(0, length, even(length, _QUERIES_OF_A_WINDOW)):
            keys = slice(max(0, rows.start - self.window), min(length, rows.stop + self.window))
            distance = torch.arange(rows.start, rows.stop)[:, None] - torch.arange(keys.start, keys.stop)
            yield rows, keys, (distance.abs() <= self.window).to(self.cu_seqlens.device)


def runs(queries: Segments, keys: Segments, heads: int) -> Iterator[tuple[int, slice, slice]]:
    """Neighbours whose lengths are equal: how many, and their rows among the queries and the keys.

    As many at once as `SCORES_AT_ONCE` allows, and at least one.
    """
    pairs = zip(pairwise(queries.offsets), pairwise(keys.offsets), strict=True)
    for (wide, long), run in groupby(pairs, key=lambda pair: (pair[0][1] - pair[0][0], pair[1][1] - pair[1][0])):
        equal = list(run)
        at_once = max(1, SCORES_AT_ONCE // (heads * max(wide, CPU_FEWEST_QUERIES) * long))
        for some in slices(0, len(equal), at_once):
            (first_query, first_key), (last_query, last_key) = equal[some][0], equal[some][-1]
            yield some.stop - some.start, slice(first_query[0], last_query[1]), slice(first_key[0], last_key[1])


def even(count: int, at_most: int) -> int:
    """The largest part when `count` is split evenly into the fewest parts of at most `at_most`."""
    return math.ceil(count / math.ceil(count / at_most))


def slices(start: int, end: int, at_once: int) -> Iterator[slice]:
    for first in range(start, end, at_once):
        yield slice(first, min(first + at_once, end))
