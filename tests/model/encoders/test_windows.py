"""The order in which a tower takes the cells of a grid. The oracles are Transformers' own orders."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from model.encoders.parts.windows import merge_order, window_order
from tests.examples import many

GRIDS = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda halves: (2 * halves[0], 2 * halves[1]))


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 9))
def test_every_cell_is_in_one_window_and_no_window_is_empty(grid: tuple[int, int], side: int) -> None:
    order, lengths = window_order(grid, side)
    assert np.array_equal(np.sort(order), np.arange(grid[0] * grid[1]))
    assert lengths.min() >= 1
    for cells in np.split(order, np.cumsum(lengths)[:-1]):
        corners = {(int(cell) // grid[1] // side, int(cell) % grid[1] // side) for cell in cells}
        assert len(corners) == 1


@many(300)
@given(GRIDS)
def test_patches_are_taken_as_the_reference_merges_them(grid: tuple[int, int]) -> None:
    order, lengths, tokens = merge_order(grid, 2, None)
    cells = get_vision_position_ids(torch.tensor([[1, *grid]]), 2)
    assert np.array_equal(np.stack([order // grid[1], order % grid[1]], axis=1), cells)
    assert lengths.tolist() == [len(order)]
    assert np.array_equal(tokens, np.arange(len(order) // 4))


@many(300)
@given(GRIDS, st.sampled_from([28, 56, 112, 140]))
def test_windows_are_those_of_the_reference(grid: tuple[int, int], window_size: int) -> None:
    order, lengths, tokens = merge_order(grid, 2, window_size // 28)
    index, cu_seqlens = get_vision_window_index(torch.tensor([[1, *grid]]), 2, window_size, 14)
    merged = merge_order(grid, 2, None)[0].reshape(-1, 4)
    assert np.array_equal(order, merged[index.numpy()].ravel())
    assert [0, *np.cumsum(lengths)] == cu_seqlens.tolist()
    assert np.array_equal(tokens, torch.argsort(index))
