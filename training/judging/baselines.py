"""Baselines that an encoder must beat: ways to compare pictures without training.

Each returns vectors whose product is the similarity, and ignores the budget. Knows nothing of encoders.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.judging.vectors import unit_rows

_THUMBNAIL_SIDE = 16
_HASH_SIDE, _HASH_FREQUENCIES = 32, 8


def thumbnail_vectors(pictures: Sequence[Image.Image], max_tokens: int) -> NDArray[np.float32]:
    """Returns float32 `[B, 768]` of length 1: the pixels of a 16 × 16 RGB thumbnail minus their mean."""
    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    small = [picture.convert("RGB").resize(size, Image.Resampling.BILINEAR) for picture in pictures]
    vectors = np.stack([np.asarray(image, np.float32).ravel() for image in small])
    return unit_rows(vectors - vectors.mean(axis=1, keepdims=True))


def hash_vectors(pictures: Sequence[Image.Image], max_tokens: int) -> NDArray[np.float32]:
    """Returns float32 `[B, 64]` of length 1: a perceptual hash with bits ±1/8, so that a product counts equal bits.

    Each bit says whether one of the 8 × 8 lowest frequencies of the gray picture, at 32 × 32, is above their median.
    """
    size = (_HASH_SIDE, _HASH_SIDE)
    gray = [picture.convert("L").resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    pixels = np.stack([np.asarray(image, np.float64) for image in gray])
    cosines = _cosines()
    frequencies = (cosines @ pixels @ cosines.T).reshape(len(pictures), -1)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.where(bits, np.float32(1 / 8), np.float32(-1 / 8))


def _cosines() -> NDArray[np.float64]:
    """Returns the rows `[8, 32]` of the cosine transform (DCT-II) of 32 samples, lowest frequencies first."""
    frequency, sample = np.arange(_HASH_FREQUENCIES)[:, None], np.arange(_HASH_SIDE)[None, :]
    rows: NDArray[np.float64] = np.cos(math.pi * frequency * (2 * sample + 1) / (2 * _HASH_SIDE))
    return rows
