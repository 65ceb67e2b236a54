"""Buckets: every row of a filled pack belongs to a segment, the shape is the bucket's, and no vector changes by it."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loadtest.bench.forwards.buckets import MAX_TAIL_TOKENS, Bucket, ladder, smallest
from loadtest.bench.forwards.wrapped import WrappedRunner
from model.checkpoint.load import Checkpoint, load_checkpoint
from model.errors import BackendUnavailable
from model.running.runner import Runner
from tests.reference import SMALL, random_pack, save_fixed, save_tower

LENGTHS = st.lists(st.integers(1, 1024), min_size=1, max_size=40)


@given(LENGTHS, st.sampled_from([1, 2, 4, 8]))
def test_a_filled_pack_covers_every_row_of_its_bucket_in_as_many_segments_as_ever(
    lengths: list[int], per_doubling: int
) -> None:
    bucket = smallest(ladder(16_384, longest=1024, per_doubling=per_doubling), lengths)
    assume(bucket is not None)
    assert bucket is not None
    offsets = bucket.offsets(lengths)
    assert offsets.dtype == np.int32
    assert len(offsets) == bucket.segments + 1
    parts = np.diff(offsets)
    assert (offsets[0], offsets[-1]) == (0, bucket.tokens)
    assert parts[: len(lengths)].tolist() == lengths
    assert (parts > 0).all()
    assert parts[len(lengths) :].max(initial=0) <= MAX_TAIL_TOKENS
    assert parts.max() <= bucket.longest


@given(LENGTHS, st.integers(2048, 20_000), st.integers(1, 8))
def test_any_pack_of_images_that_are_not_tiny_has_a_bucket(lengths: list[int], most: int, per_doubling: int) -> None:
    assume(sum(lengths) <= most)
    assume(sum(lengths) >= 64 * len(lengths))
    assert smallest(ladder(most, longest=1024, per_doubling=per_doubling), lengths) is not None


@given(st.integers(256, 40_000), st.integers(1, 8))
def test_a_ladder_climbs_in_steps_of_one_ratio_to_a_bit_over_the_largest_pack(most: int, per_doubling: int) -> None:
    buckets = ladder(most, longest=1024, per_doubling=per_doubling)
    sizes = [bucket.tokens for bucket in buckets]
    assert sizes == sorted(set(sizes))
    assert all(size % 128 == 0 for size in sizes)
    assert most < sizes[-1] <= math.ceil(most * 48 / 47) + 127
    assert sizes[0] <= 512
    ratio = 2 ** (1 / per_doubling)
    assert all(after <= before * ratio + 128 for before, after in zip(sizes, sizes[1:], strict=False))


def test_a_bucket_does_not_hold_what_its_tail_cannot_be_cut_for() -> None:
    bucket = Bucket(tokens=1024, segments=4, longest=600)
    assert bucket.holds([600, 420])
    assert not bucket.holds([601, 419]), "too long"
    assert not bucket.holds([600, 424]), "two segments of a tail that is not there"
    assert not bucket.holds([100, 100, 100]), "724 tokens in one segment"
    assert not bucket.holds([100] * 5), "too many"
    assert bucket.holds([256] * 4)
    assert bucket.offsets([600, 420]).tolist() == [0, 600, 1020, 1022, 1024]
    assert bucket.offsets([256] * 4).tolist() == [0, 256, 512, 768, 1024]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("small")
    save_tower(folder, SMALL)
    return load_checkpoint(str(folder))


BUCKETS = ladder(1024, longest=256)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def runners(small: Checkpoint, request: pytest.FixtureRequest) -> tuple[Runner, WrappedRunner]:
    """Without buckets, and with them."""
    plain, filled = (Runner(small, dtype=request.param) for _ in range(2))
    return plain, WrappedRunner.bucketed(filled, BUCKETS)


@settings(max_examples=15, deadline=None)
@given(grids=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 16)), min_size=1, max_size=6))
def test_on_a_cpu_a_bucket_changes_no_bit_and_counts_its_tail(
    runners: tuple[Runner, WrappedRunner], grids: list[tuple[int, int]]
) -> None:
    plain, bucketed = runners
    lengths = [h * w for h, w in grids]
    batch = random_pack(grids)
    there, here = (runner.run(batch, tokens=True) for runner in (plain, bucketed))
    assert there.tokens is not None
    assert here.tokens is not None
    assert np.array_equal(here.pooled, there.pooled)
    assert np.array_equal(here.tokens, there.tokens)
    bucket = smallest(BUCKETS, lengths)
    assert here.computed_tokens == (bucket.tokens if bucket else batch.tokens + -batch.tokens % 16)


def test_a_pack_that_no_bucket_holds_runs_as_it_is(small: Checkpoint) -> None:
    runner = WrappedRunner.bucketed(Runner(small, dtype="float32"), ladder(256, longest=64))
    assert runner.run(random_pack([(9, 9)])).computed_tokens == 96


def test_a_model_with_a_class_token_has_no_buckets(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("clip")
    save_fixed(folder, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    runner = Runner(load_checkpoint(str(folder)))
    with pytest.raises(BackendUnavailable, match="buckets need a model whose sequence is the patches alone"):
        WrappedRunner.bucketed(runner, ladder(256, longest=256)).run(random_pack([(4, 4)]))
