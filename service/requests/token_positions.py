"""The positions that a language model gives an image's output tokens, counted from the first.

Plain numbers on the host. Knows nothing of the text around an image: its caller adds where the image begins.
"""

import numpy as np
from numpy.typing import NDArray

# The spacings that InternVL3 was trained with, 1, 1/2, 1/4, … 1/256, under every spelling of each.
V2PE_DELTAS = {"1": 1.0} | {text: 1 / 2**k for k in range(9) for text in (f"1/{2**k}", str(1 / 2**k))}


def mrope_positions(grid: tuple[int, int], merge: int) -> NDArray[np.int32]:
    """int32 `[N, 3]`: time, row and column of each token of a grid whose patches are merged `merge` × `merge`.

    As Qwen's M-RoPE counts them (Transformers, `get_vision_position_ids`): rows first, and the time of a picture is 0.
    What follows the image continues at the larger of its merged sides.
    """
    rows, columns = np.indices((grid[0] // merge, grid[1] // merge), dtype=np.int32).reshape(2, -1)
    return np.stack([np.zeros_like(rows), rows, columns], axis=1)


def sequence_positions(tokens: int) -> NDArray[np.int32]:
    """int32 `[N]`: one after another."""
    return np.arange(tokens, dtype=np.int32)


def row_positions(grid: tuple[int, int]) -> NDArray[np.int32]:
    """int32 `[N]`: one after another, row by row, with one text token behind each row.

    As Pixtral's processor writes an image: `[IMG]` for each patch, `[IMG_BREAK]` after a row and `[IMG_END]` after the
    last. What follows the image continues at `grid_h * (grid_w + 1)`.
    """
    rows, columns = np.indices(grid, dtype=np.int32).reshape(2, -1)
    return rows * np.int32(grid[1] + 1) + columns


def v2pe_positions(tokens: int, delta: float) -> NDArray[np.float32]:
    """float32 `[N]`: 0, δ, 2δ, …, exact if δ is a power of two.

    As V2PE spaces them (arXiv 2412.09616; InternVL3, 2504.10479): a text token advances by 1, a visual one by δ, so the
    first visual token is δ after the token before it.
    """
    return np.arange(tokens, dtype=np.float32) * np.float32(delta)
