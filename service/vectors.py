"""Vectors on their way out: float32 numpy, as the engine gave them."""

import numpy as np
from numpy.typing import NDArray


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row of float32 `[B, D]` divided by its Euclidean length, in float32; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny, dtype=np.float32)
    return scaled
