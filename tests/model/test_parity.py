"""The packed encoder gives the numbers of Transformers' own, on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.checkpoint import load_checkpoint
from model.runner import Runner
from tests.reference import BASE, SMALL, SO400M, random_pack, reference_outputs, save_tower

MIXED = [(1, 1), (14, 18), (1, 2), (32, 32), (5, 23), (1, 64), (3, 1), (53, 19)]


def assert_within_promise(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, float(np.abs(theirs).max()))


@pytest.mark.parametrize(
    ("shape", "grids"),
    [
        pytest.param(SMALL, [*MIXED, (1, 1024), (1024, 1), (7, 11), (100, 10)], id="small"),
        pytest.param(SMALL | {"num_patches": 49, "patch_size": 14}, MIXED, id="other-patch-and-table"),
        pytest.param(BASE, MIXED[:-1], id="base"),
        pytest.param(SO400M, MIXED, id="so400m-widths"),
    ],
)
def test_float32_equals_transformers_and_bfloat16_stays_close(
    tmp_path: Path, shape: dict[str, Any], grids: list[tuple[int, int]]
) -> None:
    tower = save_tower(tmp_path, shape)
    batch = random_pack(grids, patch_size=shape.get("patch_size", 16))
    pooled, tokens = reference_outputs(tower, batch)
    checkpoint = load_checkpoint(str(tmp_path))

    float32 = Runner(checkpoint, dtype="float32").run(batch, tokens=True)
    assert float32.tokens is not None
    assert_within_promise(float32.pooled, pooled)
    assert_within_promise(float32.tokens, tokens)

    bfloat16 = Runner(checkpoint, dtype="bfloat16").run(batch, tokens=True)
    assert bfloat16.tokens is not None
    assert cosine(bfloat16.pooled, float32.pooled).min() >= 0.9999
    assert cosine(bfloat16.tokens, float32.tokens).min() >= 0.9999


def test_equals_transformers_on_a_padded_and_masked_batch(tmp_path: Path) -> None:
    tower = save_tower(tmp_path, SMALL)
    batch = random_pack([(5, 23), (1, 1), (16, 16)])
    pooled, tokens = reference_outputs(tower, batch, padded_to=300)
    output = Runner(load_checkpoint(str(tmp_path)), dtype="float32").run(batch, tokens=True)
    assert output.tokens is not None
    assert_within_promise(output.pooled, pooled)
    assert_within_promise(output.tokens, tokens)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    similarity: NDArray[np.float32] = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return similarity
