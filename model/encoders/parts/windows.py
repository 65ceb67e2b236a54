"""The order in which a tower with windows takes the cells of a grid: integers, on the host.

Qwen-VL's towers merge a window of patches into a token, and Qwen2.5-VL's attend inside windows of merged tokens. Knows
nothing of tensors.
"""

import numpy as np
from numpy.typing import NDArray


def window_order(grid: tuple[int, int], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells of a grid, window after window of `side` × `side` cells, and the number of cells of each window.

    order: `[h*w]`, cells numbered row by row. Windows, and the cells inside each, follow row by row. Windows at the
    right and bottom may be smaller; none is empty.
    """
    rows, columns = np.indices(grid).reshape(2, -1)
    windows = rows // side * -(-grid[1] // side) + columns // side
    return np.argsort(windows, kind="stable"), np.bincount(windows)


def merge_order(
    grid: tuple[int, int], merge: int, window: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The order in which a tower takes the patches of an image, if it merges `merge` × `merge` of them into a token.

    Returns order `[h*w]`: patches numbered row by row, those of one token consecutive; the length in patches of each
    attention window of `window` × `window` tokens (of the whole image without windows); tokens `[h*w / merge**2]`: the
    place in that order of each token, row by row.
    """
    patches = window_order(grid, merge)[0].reshape(-1, merge**2)
    merged = grid[0] // merge, grid[1] // merge
    order, lengths = window_order(merged, window or max(merged))
    return patches[order].ravel(), lengths * merge**2, np.argsort(order)
