import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench.forwards.dense import block_diagonal_mask
from model.kernels.attention import Segments
from model.pack import PackedBatch, drop_tokens, pack

GRIDS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8)


def numbered_pack(grids: list[tuple[int, int]]) -> PackedBatch:
    """Rows that say whose they are: the first byte is the segment, the second the cell of its grid."""
    rows = [np.array([[i, cell] for cell in range(h * w)], dtype=np.uint8) for i, (h, w) in enumerate(grids)]
    return pack(rows, grids)


@given(GRIDS)
def test_offsets_start_at_zero_end_at_the_tokens_and_strictly_increase(grids: list[tuple[int, int]]) -> None:
    batch = numbered_pack(grids)
    assert batch.cu_seqlens.dtype == np.int32
    assert batch.cu_seqlens[0] == 0
    assert batch.cu_seqlens[-1] == batch.tokens == sum(h * w for h, w in grids)
    assert (np.diff(batch.cu_seqlens) == [h * w for h, w in grids]).all()
    assert batch.max_seqlen == max(h * w for h, w in grids)


@given(GRIDS)
def test_every_segment_is_found_again_between_its_offsets(grids: list[tuple[int, int]]) -> None:
    batch = numbered_pack(grids)
    for i, (start, end) in enumerate(zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)):
        assert (batch.rows[start:end, 0] == i).all()
        assert (batch.rows[start:end, 1] == np.arange(end - start)).all()


def test_rows_that_do_not_fill_their_grid_are_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="do not fill"):
        pack([np.zeros((5, 3), np.uint8)], [(2, 3)])


@given(GRIDS, st.floats(0, 0.99), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_dropping_keeps_order_positions_and_at_least_so_many_tokens_of_each(
    grids, share: float, seed: int, least: int
) -> None:
    batch = numbered_pack(grids)
    dropped = drop_tokens(batch, share=share, seed=seed, least=least)
    assert dropped.kept is not None
    lengths, whole = np.diff(dropped.cu_seqlens), np.diff(batch.cu_seqlens)
    assert (lengths == np.maximum(np.minimum(whole, least), whole - np.round(whole * share))).all()
    assert dropped.max_seqlen == lengths.max()
    assert dropped.tokens == dropped.cu_seqlens[-1] == len(dropped.kept)
    assert (dropped.rows[:, 1] == dropped.kept).all()
    for i, (start, end) in enumerate(zip(dropped.cu_seqlens, dropped.cu_seqlens[1:], strict=False)):
        assert (dropped.rows[start:end, 0] == i).all()
        assert (np.diff(dropped.kept[start:end]) > 0).all()


def test_dropping_half_leaves_a_quarter_of_the_mask_and_the_same_tokens_every_time() -> None:
    batch = numbered_pack([(16, 16), (12, 20), (10, 10)])
    dropped = drop_tokens(batch, share=0.5, seed=7)
    assert dropped.cu_seqlens.tolist() == [0, 128, 248, 298]
    ones, ones_left = (_mask_ones(b) for b in (batch, dropped))
    assert ones_left == 128**2 + 120**2 + 50**2
    assert 0.24 < ones_left / ones < 0.26
    assert np.array_equal(dropped.rows, drop_tokens(batch, share=0.5, seed=7).rows)
    assert not np.array_equal(dropped.rows, drop_tokens(batch, share=0.5, seed=8).rows)


def test_dropping_twice_keeps_the_first_positions() -> None:
    twice = drop_tokens(drop_tokens(numbered_pack([(8, 8)]), share=0.5, seed=0), share=0.5, seed=1)
    assert twice.tokens == 16
    assert twice.kept is not None
    assert (twice.rows[:, 1] == twice.kept).all()


def test_a_share_of_all_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share is 1\.0"):
        drop_tokens(numbered_pack([(2, 2)]), share=1.0, seed=0)
    with pytest.raises(ValueError, match="least is 0"):
        drop_tokens(numbered_pack([(2, 2)]), share=0.5, seed=0, least=0)


def _mask_ones(batch: PackedBatch) -> int:
    parts = Segments(tuple(batch.cu_seqlens.tolist()), torch.from_numpy(batch.cu_seqlens), batch.max_seqlen)
    return int(block_diagonal_mask(parts, parts).sum())
