"""The packed encoder gives the numbers of Transformers' own model on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.checkpoint.load import load_checkpoint
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.running.runner import Runner
from tests.reference import (
    BASE,
    BASE_WIDTHS,
    SMALL,
    SO400M,
    fixed_outputs,
    random_pack,
    reference_outputs,
    save_fixed,
    save_tower,
)

MIXED = [(1, 1), (14, 18), (1, 2), (32, 32), (5, 23), (1, 64), (3, 1), (53, 19)]


def assert_within_promise(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, float(np.abs(theirs).max()))


def assert_equals(
    folder: Path,
    batch: PackedBatch,
    pooled: NDArray[np.float32],
    tokens: NDArray[np.float32],
    *,
    least_cosines: tuple[float, float] = (0.9999, 0.9999),
) -> RunnerOutput:
    """In float32 the checkpoint gives these vectors, in bfloat16 vectors of nearly the same direction.

    least_cosines: of pooled vectors and of tokens. Returns what it gives in float32.
    """
    checkpoint = load_checkpoint(str(folder))

    float32 = Runner(checkpoint, dtype="float32").run(batch, tokens=True)
    assert float32.tokens is not None
    assert float32.tokens.shape == tokens.shape
    assert_within_promise(float32.pooled, pooled)
    assert_within_promise(float32.tokens, tokens)

    bfloat16 = Runner(checkpoint, dtype="bfloat16").run(batch, tokens=True)
    assert bfloat16.tokens is not None
    assert cosine(bfloat16.pooled, float32.pooled).min() >= least_cosines[0]
    assert cosine(bfloat16.tokens, float32.tokens).min() >= least_cosines[1]
    return float32


@pytest.mark.parametrize(
    ("shape", "grids"),
    [
        pytest.param(SMALL, [*MIXED, (1, 1024), (1024, 1), (7, 11), (100, 10)], id="small"),
        pytest.param(SMALL | {"num_patches": 49, "patch_size": 14}, MIXED, id="other-patch-and-table"),
        pytest.param(BASE, MIXED[:-1], id="base", marks=pytest.mark.slow),
        pytest.param(SO400M, MIXED, id="so400m-widths", marks=pytest.mark.slow),
    ],
)
def test_float32_equals_transformers_and_bfloat16_stays_close(
    tmp_path: Path, shape: dict[str, Any], grids: list[tuple[int, int]]
) -> None:
    tower = save_tower(tmp_path, shape)
    batch = random_pack(grids, patch_size=shape.get("patch_size", 16))
    pooled, tokens = reference_outputs(tower, batch)
    assert_equals(tmp_path, batch, pooled, tokens)


@pytest.mark.parametrize(
    ("model_type", "shape"),
    [
        pytest.param("siglip", SMALL | {"image_size": 64, "patch_size": 16}, id="siglip"),
        pytest.param(
            "siglip_vision_model",
            BASE_WIDTHS | {"image_size": 224, "patch_size": 16},
            id="siglip-base",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "siglip_vision_model",
            SO400M | {"image_size": 384, "patch_size": 14},
            id="siglip-so400m-384",
            marks=pytest.mark.slow,
        ),
        pytest.param("clip", SMALL | {"image_size": 64, "patch_size": 8}, id="clip"),
        pytest.param(
            "clip_vision_model",
            BASE_WIDTHS | {"image_size": 224, "patch_size": 32},
            id="clip-base-no-projection",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "clip_vision_model+",
            BASE_WIDTHS | {"image_size": 224, "patch_size": 16},
            id="clip-base-projection",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "clip_vision_model", SMALL | {"image_size": 30, "patch_size": 14, "hidden_act": "gelu"}, id="gelu"
        ),
    ],
)
def test_a_model_of_one_grid_equals_transformers(tmp_path: Path, model_type: str, shape: dict[str, Any]) -> None:
    model = save_fixed(tmp_path, model_type, shape)
    side = shape["image_size"] // shape["patch_size"]
    batch = random_pack([(side, side)] * 3, patch_size=shape["patch_size"])
    pooled, tokens = fixed_outputs(model, batch, image_side=shape["image_size"])
    assert_equals(tmp_path, batch, pooled, tokens)


@pytest.mark.parametrize("feature_layer", [-2, -1, 0, 1])
def test_tokens_of_a_layer_are_the_hidden_states_of_transformers(tmp_path: Path, feature_layer: int) -> None:
    shape = SMALL | {"image_size": 64, "patch_size": 16}
    batch = random_pack([(4, 4)] * 2)
    towers = {"naflex": save_tower(tmp_path / "naflex", SMALL)}
    towers |= {name: save_fixed(tmp_path / name, name, shape) for name in ("siglip", "clip_vision_model")}
    for name, tower in towers.items():
        if name == "naflex":
            pooled, tokens = reference_outputs(tower, batch, feature_layer=feature_layer)
        else:
            pooled, tokens = fixed_outputs(tower, batch, image_side=64, feature_layer=feature_layer)
        runner = Runner(load_checkpoint(str(tmp_path / name)), dtype="float32", feature_layer=feature_layer)
        output = runner.run(batch, tokens=True)
        assert output.tokens is not None
        assert_within_promise(output.tokens, tokens)
        assert_within_promise(output.pooled, pooled)


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
