"""Vectors on their way out: float32 numpy, as the engine gave them."""

import numpy as np
from numpy.typing import NDArray


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row of float32 `[B, D]` divided by its Euclidean length, in float32; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny, dtype=np.float32)
    return scaled


def image_embedding(pooled: NDArray[np.float32], *, normalize: bool) -> NDArray[np.float32]:
    """float32 `[D]`: the one vector of an image whose segments have the vectors `pooled`, `[S, D]`.

    Of one segment its own. Of several, which each say as much as the next however long they are, the mean of their
    normalised vectors. `normalize` scales the result to length 1.
    """
    vector = pooled if len(pooled) == 1 else normalized(pooled).mean(axis=0, keepdims=True)
    result: NDArray[np.float32] = (normalized(vector) if normalize else vector)[0]
    return result
