from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.pack import PackedBatch, PackedTexts, pack, pack_texts

GRIDS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8)


def numbered_pack(grids: list[tuple[int, int]]) -> PackedBatch:
    """Each row names its place: the first byte is the segment, the second the cell of its grid."""
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
def test_every_segment_lies_between_its_offsets(grids: list[tuple[int, int]]) -> None:
    batch = numbered_pack(grids)
    for i, (start, end) in enumerate(zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)):
        assert (batch.rows[start:end, 0] == i).all()
        assert (batch.rows[start:end, 1] == np.arange(end - start)).all()


def test_rows_that_do_not_fill_their_grid_are_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="do not fill"):
        pack([np.zeros((5, 3), np.uint8)], [(2, 3)])


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), min_size=1, max_size=9), st.randoms())
def test_texts_come_back_out_of_a_pack_and_of_any_part_of_it(texts: list[list[int]], random: Random) -> None:
    batch = pack_texts([np.array(ids, dtype=np.int32) for ids in texts])
    assert batch.ids.dtype == batch.cu_seqlens.dtype == np.int32
    assert (batch.tokens, batch.max_seqlen) == (sum(map(len, texts)), max(map(len, texts)))
    assert ids_of(batch) == texts
    some = random.sample(range(len(texts)), random.randint(1, len(texts)))
    assert ids_of(batch.part(np.array(some))) == [texts[number] for number in some]


def ids_of(batch: PackedTexts) -> list[list[int]]:
    return [ids.tolist() for ids in batch.texts()]


def test_a_text_without_a_token_is_not_packed() -> None:
    with pytest.raises(AssertionError, match="at least one token"):
        pack_texts([np.array([1], dtype=np.int32), np.array([], dtype=np.int32)])
