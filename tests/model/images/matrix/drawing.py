"""What cells are drawn from, and what is to be seen of it: samples of any depth, keys and alpha on white, turns."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]
Pixels = NDArray[np.uint8]

HEIGHT, WIDTH = 13, 21
"""Odd, so that rows of narrow samples end within a byte, and halved colour ends within a pixel."""

# What is to be done with the stored rows `[h, w, ...]` of each EXIF orientation.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def samples(bits: int, channels: int, *, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Samples:
    """Noise of all values of `bits` bits, `[h, w, channels]`: hardly two pixels are alike."""
    return np.random.default_rng(seed).integers(0, 2**bits, (height, width, channels))


def smooth(channels: int, *, height: int = 24, width: int = 32) -> Pixels:
    """uint8 `[h, w, channels]` that lossy formats change little: each channel is a slope in a direction of its own."""
    down, across = np.mgrid[0:height, 0:width]
    slopes = [across / width, down / height, (across + down) / (height + width), 1 - across / width / 2]
    return np.stack([np.round(20 + 210 * slope) for slope in slopes[:channels]], axis=-1).astype(np.uint8)


def eight_bits(values: Samples, bits: int) -> Pixels:
    """Wider samples by their highest 8 bits; narrower ones stretched over 0 to 255."""
    scaled = values >> (bits - 8) if bits >= 8 else (values * 255 + (2**bits - 1) // 2) // (2**bits - 1)
    return scaled.astype(np.uint8)


def rgb(pixels: Pixels) -> Pixels:
    """`[h, w]`, `[h, w, 1]` or `[h, w, 3]` as `[h, w, 3]`."""
    return np.broadcast_to(pixels.reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3))


def on_white(colour: Pixels, alpha: NDArray[np.generic]) -> Pixels:
    """Colour `[h, w, 1 or 3]` under alpha `[h, w]`, both 8 bits, on white: each value rounded to the nearest."""
    cover = alpha.astype(int)[..., None]
    return rgb(((colour.astype(int) * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8))
