"""Cutting packs into shares loses nothing, makes even shares, and gives the answers of the whole pack."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint.load import Checkpoint, load_checkpoint
from model.encoders.parts.tower import Encoder
from model.pack import token_places
from model.running.runner import Runner
from model.running.shares import cut, in_order
from model.running.workers import Workers
from tests.reference import random_pack

grids = st.tuples(st.integers(1, 12), st.integers(1, 12))


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return load_checkpoint("packlight-tiny")


@given(st.lists(grids, min_size=1, max_size=24), st.integers(1, 5), st.sampled_from([64, 192, 768]))
def test_shares_make_up_the_pack_and_are_nearly_even(pack_grids: list[tuple[int, int]], count: int, width: int) -> None:
    batch = random_pack(pack_grids)
    shares = cut(batch, count, width=width)
    assert len(shares) in (1, count)
    assert sorted(np.concatenate([share.segments for share in shares])) == list(range(len(pack_grids)))
    places = [token_places(batch.cu_seqlens, share.segments) for share in shares]
    rows = in_order([share.batch.rows.astype(np.float32) for share in shares], places)
    assert np.array_equal(rows, batch.rows)
    for share in shares:
        lengths = np.diff(share.batch.cu_seqlens)
        assert [h * w for h, w in share.batch.grids] == lengths.tolist()
        assert share.batch.max_seqlen == lengths.max()
    if len(shares) > 1:
        work = [sum(n * (6 * width + n) for n in np.diff(share.batch.cu_seqlens).tolist()) for share in shares]
        assert max(work) <= 1.1 * sum(work) / count


@pytest.mark.parametrize("unlike", [[(30, 30)], [(30, 30), (2, 2)], [(9, 9)] * 3])
def test_a_pack_that_cannot_be_cut_evenly_stays_whole(unlike: list[tuple[int, int]]) -> None:
    batch = random_pack(unlike)
    assert cut(batch, 2, width=192)[0].batch is batch


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cut_pack_gives_each_image_the_bits_it_has_alone(tiny: Checkpoint, dtype: str) -> None:
    runner = Runner(tiny, dtype=dtype)  # type: ignore[arg-type]
    pack_grids = [(9, 7), (4, 4), (12, 12), (1, 3), (8, 8), (7, 9), (12, 11), (5, 5)]
    batch = random_pack(pack_grids)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert len(cut(batch, count, width=192)) == count
            found = runner.run(batch, tokens=True)
            assert found.tokens is not None
            for number, grid in enumerate(pack_grids):
                start, end = batch.cu_seqlens[number : number + 2]
                alone = runner.run(type(batch)(batch.rows[start:end], np.array([0, end - start], np.int32),
                                               (grid,), int(end - start)), tokens=True)  # fmt: skip
                assert alone.tokens is not None
                assert np.array_equal(found.pooled[number], alone.pooled[0])
                assert np.array_equal(found.tokens[start:end], alone.tokens)
    finally:
        torch.set_num_threads(threads)


def test_the_filler_of_every_share_is_counted(tiny: Checkpoint) -> None:
    runner = Runner(tiny)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert runner.run(random_pack([(3, 3)] * 2)).computed_tokens == 2 * 16
    finally:
        torch.set_num_threads(threads)


def test_a_failing_share_fails_the_pack(tiny: Checkpoint) -> None:
    runner = Runner(tiny)
    encoder: Encoder = runner.encoder
    forward, threads = encoder.forward, torch.get_num_threads()

    def poisoned(patches: torch.Tensor, arrangement: object) -> object:
        if float(patches.max()) > 0.9:
            raise RuntimeError("poison")
        return forward(patches, arrangement)  # type: ignore[arg-type]

    encoder.forward = poisoned  # type: ignore[method-assign, assignment]
    dark, bright = random_pack([(4, 4)] * 2), random_pack([(4, 4)] * 2)
    dark.rows[...] = 10
    bright.rows[:16] = 10
    try:
        torch.set_num_threads(2)
        runner.run(dark)
        with pytest.raises(RuntimeError, match="poison"):
            runner.run(bright)
        runner.run(dark)
    finally:
        torch.set_num_threads(threads)


def test_workers_use_one_thread_each_and_leave_other_threads_theirs() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        workers = Workers(2)
        assert torch.get_num_threads() == 3
        assert Workers(1).each(lambda _: torch.get_num_threads(), [0]) == [1]
        assert workers.each(lambda _: torch.get_num_threads(), [0, 1]) == [1, 1]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_workers_use_one_thread_each_even_without_asserts() -> None:
    program = """if True:
        import torch
        from model.running.workers import Workers
        torch.set_num_threads(3)
        print(Workers(2).each(lambda _: torch.get_num_threads(), [0, 1]))
    """
    ran = subprocess.run([sys.executable, "-O", "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "[1, 1]\n"


def test_workers_answer_in_order_and_raise_after_all_have_ended() -> None:
    ended = []

    def task(number: int) -> int:
        if number == 0:
            raise ValueError("the first")
        ended.append(number)
        return number

    workers = Workers(2)
    with pytest.raises(ValueError, match="the first"):
        workers.each(task, [0, 1, 2])
    assert sorted(ended) == [1, 2]
    assert workers.each(task, [3, 1]) == [3, 1]
