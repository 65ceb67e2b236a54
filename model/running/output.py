"""What a forward of a pack returns. Numpy on the host."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class RunnerOutput:
    """pooled: float32 `[S, E]`, one row per segment, not normalised. tokens: float32 `[N, D]`; None unless asked for.

    computed_tokens: rows that went through the encoder's layers, filler included. Class tokens are neither image tokens
    nor padding, and are not counted. merged_tokens: how many tokens of the pack became each of `tokens`.
    """

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    computed_tokens: int
    merged_tokens: int = 1
