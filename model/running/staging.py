"""Host memory that is used again and again for the rows of packs on their way to a device.

Pinning memory takes longer than filling it, and copies from memory that is not pinned wait for the device.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.running.streams import Begun, pinned

# Rows of one batch begin at a multiple of this, as the device likes them.
_ALIGNED_BYTES = 256


class Staging:
    """The rows of one pack, and after it those of another."""

    def __init__(self, size_bytes: int = 0) -> None:
        """size_bytes: of the largest pack so far; a larger one makes it grow."""
        self._memory: Tensor = pinned((size_bytes,), torch.uint8)
        self._used_bytes = 0
        self._forwards: list[Begun] = []

    def reuse(self) -> None:
        """Gives all memory to the next pack, once the last one's rows have been copied."""
        for forward in self._forwards:
            forward.wait_until_copied()
        self._forwards.clear()
        self._used_bytes = 0

    def rows(self, count: int, width: int) -> NDArray[np.uint8]:
        """uint8 `[count, width]`, to be filled, behind what was given for this pack before."""
        start, end = self._used_bytes, self._used_bytes + count * width
        if end > len(self._memory):
            # What was given from the old memory keeps it alive. A power of two: packs differ in size.
            self._memory = pinned((2 ** math.ceil(math.log2(end)),), torch.uint8)
        self._used_bytes = -(-end // _ALIGNED_BYTES) * _ALIGNED_BYTES
        return self._memory[start:end].numpy().reshape(count, width)

    def read_by(self, forward: Begun) -> None:
        """A forward that copies rows from here."""
        self._forwards.append(forward)
