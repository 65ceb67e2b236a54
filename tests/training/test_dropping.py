"""Token dropping: kept tokens keep their order and their cells, and each segment keeps at least so many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.pack import PackedBatch
from tests.model.test_pack import GRIDS, numbered_pack
from training.learning.dropping import drop_tokens


@given(GRIDS, st.floats(0, 0.99), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_dropping_keeps_order_cells_and_at_least_so_many_tokens_of_each_segment(
    grids: list[tuple[int, int]], share: float, seed: int, least: int
) -> None:
    batch = numbered_pack(grids)
    dropped = drop_tokens(batch, share=share, seed=seed, least=least)
    lengths, whole = np.diff(dropped.cu_seqlens), np.diff(batch.cu_seqlens)
    assert (lengths == np.maximum(np.minimum(whole, least), whole - np.round(whole * share))).all()
    assert dropped.max_seqlen == lengths.max()
    assert dropped.tokens == dropped.cu_seqlens[-1] == len(dropped.kept)
    assert (dropped.rows[:, 1] == dropped.kept).all()
    for i, (start, end) in enumerate(zip(dropped.cu_seqlens, dropped.cu_seqlens[1:], strict=False)):
        assert (dropped.rows[start:end, 0] == i).all()
        assert (np.diff(dropped.kept[start:end]) > 0).all()


def test_dropping_half_leaves_a_quarter_of_the_attention_and_the_same_tokens_every_time() -> None:
    batch = numbered_pack([(16, 16), (12, 20), (10, 10)])
    dropped = drop_tokens(batch, share=0.5, seed=7)
    assert dropped.cu_seqlens.tolist() == [0, 128, 248, 298]
    assert squares(dropped) == 128**2 + 120**2 + 50**2
    assert 0.24 < squares(dropped) / squares(batch) < 0.26
    assert np.array_equal(dropped.rows, drop_tokens(batch, share=0.5, seed=7).rows)
    assert not np.array_equal(dropped.rows, drop_tokens(batch, share=0.5, seed=8).rows)


def test_dropping_twice_keeps_the_first_cells() -> None:
    twice = drop_tokens(drop_tokens(numbered_pack([(8, 8)]), share=0.5, seed=0), share=0.5, seed=1)
    assert twice.tokens == 16
    assert (twice.rows[:, 1] == twice.kept).all()


def test_a_share_of_all_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share is 1\.0"):
        drop_tokens(numbered_pack([(2, 2)]), share=1.0, seed=0)
    with pytest.raises(ValueError, match="least is 0"):
        drop_tokens(numbered_pack([(2, 2)]), share=0.5, seed=0, least=0)


def squares(batch: PackedBatch) -> int:
    return int((np.diff(batch.cu_seqlens).astype(np.int64) ** 2).sum())
