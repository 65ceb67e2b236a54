"""The padded layout is the packed one within what floats round, and every row of it is counted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loadtest.bench.forwards.dense import dense_attention
from loadtest.bench.forwards.padded import PaddedSegments, padded_attention
from loadtest.bench.forwards.wrapped import WrappedRunner
from model.checkpoint.load import Checkpoint, load_checkpoint
from model.errors import BackendUnavailable
from model.kernels.attention import Segments
from model.running.runner import Runner
from tests.examples import many
from tests.reference import SMALL, random_pack, save_fixed, save_tower

GRIDS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8)
# Of normalised vectors, where values are about 0.07: float32 rounds sums of another order, bfloat16 every layer.
COSINES = {"float32": 0.999999, "bfloat16": 0.999}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Random weights of some strength, biases too: nothing of them is near zero."""
    folder = tmp_path_factory.mktemp("small")
    save_tower(folder, SMALL)
    return load_checkpoint(str(folder))


Both = tuple[Runner, WrappedRunner]


def both(checkpoint: Checkpoint, dtype: str, *, length: int | None = None) -> Both:
    """Packed and padded."""
    packed, padded = (Runner(checkpoint, dtype=dtype) for _ in range(2))  # type: ignore[arg-type]
    return packed, WrappedRunner.padded(padded, length=length)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def runners(request: pytest.FixtureRequest, small: Checkpoint) -> Both:
    return both(small, request.param)


def least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


@many(40)
@given(grids=GRIDS, seed=st.integers(0, 99))
def test_padding_changes_no_vector_beyond_rounding(runners: Both, grids: list[tuple[int, int]], seed: int) -> None:
    packed, padded = (runner.run(random_pack(grids, seed=seed), tokens=True) for runner in runners)
    assert packed.tokens is not None
    assert padded.tokens is not None
    least = COSINES[runners[0].dtype_name]
    assert least_cosine(packed.pooled, padded.pooled) > least
    assert least_cosine(packed.tokens, padded.tokens) > least
    if runners[0].dtype_name == "float32":
        np.testing.assert_allclose(padded.pooled, packed.pooled, rtol=0, atol=1e-5 * max(1, abs(packed.pooled).max()))
        np.testing.assert_allclose(padded.tokens, packed.tokens, rtol=0, atol=1e-5 * max(1, abs(packed.tokens).max()))


@many(40)
@given(grids=GRIDS)
def test_every_row_of_the_rectangle_is_counted(runners: Both, grids: list[tuple[int, int]]) -> None:
    lengths = [h * w for h, w in grids]
    rectangle = len(lengths) * max(lengths)
    # And on a CPU the few rows that layers are filled up by.
    assert runners[1].run(random_pack(grids)).computed_tokens == rectangle + -rectangle % 16


def test_the_bundled_model_gives_the_same_vectors_from_grids_like_those_of_pictures() -> None:
    packed, padded = both(load_checkpoint("packlight-tiny"), "float32")
    batch = random_pack([(16, 16), (12, 21), (3, 80), (7, 7), (1, 1)])
    np.testing.assert_allclose(padded.run(batch).pooled, packed.run(batch).pooled, rtol=0, atol=1e-5)


def test_segments_may_be_padded_beyond_the_longest(small: Checkpoint) -> None:
    packed, padded = both(small, "float32", length=64)
    batch = random_pack([(5, 5), (8, 3)])
    output = padded.run(batch)
    assert output.computed_tokens == 2 * 64
    np.testing.assert_allclose(output.pooled, packed.run(batch).pooled, rtol=0, atol=1e-4)


def test_padded_attention_is_that_of_the_dense_mask_and_blind_to_what_padding_holds() -> None:
    """Segments of 4, 9 and 1 on a rectangle of 9."""
    lengths, longest = (4, 9, 1), 9
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    offsets = torch.arange(4, dtype=torch.int32) * longest
    rectangle = PaddedSegments(tuple(offsets.tolist()), offsets, longest, mask=mask)
    q, k, v = torch.randn(3, 32, 2, 16, generator=torch.Generator().manual_seed(0))
    k[:27][~mask.flatten()], v[:27][~mask.flatten()] = 1e4, -1e4
    out = padded_attention(q, k, v, rectangle, rectangle)
    packed_offsets = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    packed = Segments(tuple(packed_offsets.tolist()), packed_offsets, longest)
    tokens = mask.flatten().nonzero().squeeze(1)
    expected = dense_attention(q[tokens], k[tokens], v[tokens], packed, packed)
    torch.testing.assert_close(out[tokens], expected, atol=2e-6, rtol=0)
    assert not out[27:].any()


def test_a_model_with_a_class_token_is_not_padded(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("clip")
    save_fixed(folder, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    with pytest.raises(BackendUnavailable, match="padding needs a model whose sequence is the patches alone"):
        WrappedRunner.padded(Runner(load_checkpoint(str(folder)))).run(random_pack([(4, 4)]))
