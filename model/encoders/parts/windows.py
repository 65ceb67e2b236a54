"""In which order a tower that works window by window takes the cells of a grid: integers, on the host.

What Qwen-VL's towers merge into one token is a window of patches, and what Qwen2.5-VL's attend to is a window of merged
tokens. Knows nothing of tensors.
"""

import numpy as np
from numpy.typing import NDArray


def window_order(grid: tuple[int, int], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells of a grid, window after window of `side` × `side` cells, and how many each window has.

    order: `[h*w]`, numbers of cells in rows. Windows go in rows, and so do the cells inside one; those at the right and
    at the bottom may be smaller, and none is empty.
    """
    rows, columns = np.indices(grid).reshape(2, -1)
    windows = rows // side * -(-grid[1] // side) + columns // side
    return np.argsort(windows, kind="stable"), np.bincount(windows)


def merge_order(
    grid: tuple[int, int], merge: int, window: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How a tower takes the patches of one image which it merges `merge` × `merge` into one token.

    Returns order `[h*w]`, the numbers in rows of the patches, those of one token side by side; lengths of the windows
    of attention, `window` × `window` tokens, in patches (without a window, of the whole); tokens `[h*w / merge**2]`,
    where in that order the tokens stand that come out in rows.
    """
    patches = window_order(grid, merge)[0].reshape(-1, merge**2)
    merged = grid[0] // merge, grid[1] // merge
    order, lengths = window_order(merged, window or max(merged))
    return patches[order].ravel(), lengths * merge**2, np.argsort(order)
