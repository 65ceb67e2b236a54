"""Pixtral's tower: Transformers' numbers packed and one by one, the same bits in any pack, and its processor's rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import PixtralVisionConfig, PixtralVisionModel
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from model.checkpoint.load import load_checkpoint
from model.encoders import pixtral
from model.errors import CheckpointError
from model.images.patches import patch_rows
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from model.sizing.shrink import Shrink
from tests.examples import many
from tests.language_towers import PIXTRAL, PIXTRAL_PUBLISHED, pixtral_outputs, random_pixtral, whole_model
from tests.model.encoders.invariance import DTYPES, assert_same_bits_in_any_pack
from tests.model.encoders.test_parity import assert_equals, assert_within_promise
from tests.reference import random_pack

MIXED = [(1, 1), (14, 18), (1, 2), (5, 23), (1, 64), (3, 1), (17, 19)]


@pytest.mark.parametrize(
    ("shape", "grids"),
    [
        pytest.param(PIXTRAL, MIXED, id="small"),
        pytest.param(PIXTRAL | {"hidden_act": "gelu", "patch_size": 14}, MIXED[:4], id="gelu-and-another-patch"),
        pytest.param(
            PIXTRAL | {"rope_parameters": {"rope_theta": 500.0, "rope_type": "axial"}}, MIXED[:4], id="another-theta"
        ),
        pytest.param(PIXTRAL_PUBLISHED | {"patch_size": 14}, [(2, 110), (7, 5)], id="14", marks=pytest.mark.slow),
    ],
)
def test_float32_equals_transformers_and_bfloat16_stays_close(
    tmp_path: Path, shape: dict[str, Any], grids: list[tuple[int, int]]
) -> None:
    assert_pixtral_equals(tmp_path, shape, grids)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_an_image_has_the_same_bits_alone_and_in_any_pack(tmp_path: Path, dtype: DtypeName) -> None:
    random_pixtral(PIXTRAL).save_pretrained(tmp_path)
    images = [random_pack([grid], seed=i) for i, grid in enumerate(MIXED)]
    assert_same_bits_in_any_pack(Runner(load_checkpoint(str(tmp_path)), dtype=dtype), images, packs=16)


@pytest.mark.slow
def test_published_widths_equal_transformers_with_the_same_bits_in_any_pack(tmp_path: Path) -> None:
    assert_pixtral_equals(tmp_path, PIXTRAL_PUBLISHED, [*MIXED[:4], (24, 40)])
    images = [random_pack([grid], seed=i) for i, grid in enumerate(MIXED)]
    for dtype in DTYPES:
        assert_same_bits_in_any_pack(Runner(load_checkpoint(str(tmp_path)), dtype=dtype), images, packs=8)


def assert_pixtral_equals(folder: Path, shape: dict[str, Any], grids: list[tuple[int, int]]) -> None:
    """By its mask over all images of a call, and one image a call."""
    tower = random_pixtral(shape)
    tower.save_pretrained(folder)
    batch = random_pack(grids, patch_size=shape.get("patch_size", 16))
    pooled, tokens = pixtral_outputs(tower, batch)
    ours = assert_equals(folder, batch, pooled, tokens, least_cosines=(0.9999, 0.9995))
    alone = [pixtral_outputs(tower, batch.part(np.array([index]))) for index in range(len(grids))]
    assert ours.tokens is not None
    assert_within_promise(ours.pooled, np.concatenate([each[0] for each in alone]))
    assert_within_promise(ours.tokens, np.concatenate([each[1] for each in alone]))


@pytest.mark.parametrize("feature_layer", [-2, 0])
def test_tokens_of_a_layer_are_the_hidden_states_of_transformers(tmp_path: Path, feature_layer: int) -> None:
    tower = random_pixtral(PIXTRAL)
    tower.save_pretrained(tmp_path)
    batch = random_pack(MIXED[:4])
    pooled, tokens = pixtral_outputs(tower, batch, feature_layer=feature_layer)
    ours = Runner(load_checkpoint(str(tmp_path)), dtype="float32", feature_layer=feature_layer).run(batch, tokens=True)
    assert ours.tokens is not None
    assert_within_promise(ours.tokens, tokens)
    assert_within_promise(ours.pooled, pooled)


@pytest.mark.parametrize(("model_type", "multiple", "counted"), [("llava", 1, "rows"), ("mistral3", 2, None)])
def test_the_tower_of_a_whole_model_is_read(
    tmp_path: Path, model_type: str, multiple: int, counted: str | None
) -> None:
    """Mistral 3's projector merges 2 × 2 patches, so that its pictures have even sides."""
    model = whole_model(model_type)
    model.save_pretrained(tmp_path / "whole")
    model.model.vision_tower.save_pretrained(tmp_path / "tower")
    for folder in ("whole", "tower"):
        PixtralImageProcessorPil(size={"longest_edge": 500}).save_pretrained(tmp_path / folder)
    whole, tower = (load_checkpoint(str(tmp_path / name)) for name in ("whole", "tower"))
    assert whole.digest == tower.digest
    assert whole.preprocessing.geometry == Geometry.for_shrinking(16, Shrink(500, multiple=multiple))
    assert tower.preprocessing.geometry == Geometry.for_shrinking(16, Shrink(500))
    assert whole.config.language_positions == counted
    assert tower.config.language_positions == "rows"


def test_the_fingerprint_depends_on_how_the_processor_bounds_and_rounds_sides(tmp_path: Path) -> None:
    random_pixtral(PIXTRAL).save_pretrained(tmp_path)
    found = []
    for side, patch in ((500, 16), (500, 32), (400, 16)):
        processor = PixtralImageProcessorPil(size={"longest_edge": side}, patch_size={"height": patch, "width": patch})
        processor.save_pretrained(tmp_path)
        found.append(Runner(load_checkpoint(str(tmp_path)), dtype="float32").fingerprint())
    assert len(set(found)) == len(found)


@many(100)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([16, 28]))
def test_patch_rows_are_those_of_the_processor(height: int, width: int, seed: int, patch: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    raw: dict[str, Any] = {"do_rescale": False, "do_normalize": False, "size": {"longest_edge": 150}}
    tower_patch = 14 if patch == 28 else 16
    geometry = Geometry.for_shrinking(tower_patch, Shrink(150, multiple=patch // tower_patch))
    plan = plan_image((height, width), geometry=geometry, budget=Budget.of_tokens(4096, 16), strategy="native")
    if min(height, width) * 150 < max(height, width):
        assert min(plan.resized) == patch  # the processor raises
        return
    inputs = PixtralImageProcessorPil(patch_size={"height": patch, "width": patch}, **raw)(
        Image.fromarray(pixels), return_tensors="np"
    )
    assert tuple(inputs["image_sizes"][0]) == plan.resized
    (grid_h, grid_w), rows = plan.segments[0].grid, patch_rows(Image.fromarray(pixels), plan, geometry)
    theirs = np.asarray(inputs["pixel_values"])[0].reshape(3, grid_h, tower_patch, grid_w, tower_patch)
    assert np.array_equal(rows, theirs.transpose(1, 3, 2, 4, 0).reshape(len(rows), -1))


def test_what_a_config_leaves_out_is_as_in_transformers() -> None:
    theirs = PixtralVisionConfig().to_dict()
    assert {key: theirs[key] for key in pixtral.DEFAULTS} == pixtral.DEFAULTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 1}, "num_channels is 1; only 3"),
        ({"head_dim": 64}, "head_dim is 64; only 72"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; in this family it is silu"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of"),
        (
            {"num_attention_heads": 8, "head_dim": 18},
            "num_attention_heads is 8; the width, 144, is not a multiple of 4",
        ),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'; only 'axial'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "type is 'linear'; only 'axial'"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta is 0; it is a positive number"),
        ({"intermediate_size": 100}, r"feed_forward\.\S+ has shape \(144, 200\)"),
        ({"num_hidden_layers": 3}, r"transformer\.layers\.2\.\S+"),
        ({"num_hidden_layers": 1}, r"transformer\.layers\.1\.\S+"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    random_pixtral(PIXTRAL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "older",
    [
        {"rope_theta": 500.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": {"type": "default"}, "rope_theta": 500.0},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 500.0}},
    ],
)
def test_older_files_say_in_other_words_how_heads_are_rotated(tmp_path: Path, older: dict[str, Any]) -> None:
    random_pixtral(PIXTRAL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["rope_parameters"]
    path.write_text(json.dumps(content | older))
    assert PixtralVisionModel.from_pretrained(tmp_path).config.rope_parameters["rope_theta"] == 500.0
    config = load_checkpoint(str(tmp_path)).config
    assert isinstance(config, pixtral.PixtralConfig)
    assert config.theta == 500.0


def preprocessed(tmp_path: Path, **content: Any) -> Any:
    random_pixtral(PIXTRAL).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    return load_checkpoint(str(tmp_path)).preprocessing


def test_the_side_comes_from_any_spelling_of_the_processor(tmp_path: Path) -> None:
    for size in ({"longest_edge": 500}, 500, {"height": 500, "width": 500}):
        found = preprocessed(tmp_path, image_processor_type="PixtralImageProcessorFast", size=size, patch_size=16)
        assert found.geometry == Geometry.for_shrinking(16, Shrink(500))
        assert found.default_max_tokens == 32**2
    doubled = preprocessed(tmp_path, patch_size={"height": 32, "width": 32})
    assert doubled.geometry == Geometry.for_shrinking(16, Shrink(1024, multiple=2))


@pytest.mark.parametrize(
    "content",
    [
        {"patch_size": 24}, {"size": {"shortest_edge": 224}}, {"size": {"height": 5, "width": 6}}, {"resample": 2},
        {"do_resize": False}, {"do_center_crop": True}, {"image_processor_type": "CLIPImageProcessor"},
    ],
)  # fmt: skip
def test_pictures_that_would_be_prepared_in_another_manner_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(content))} is"):
        preprocessed(tmp_path, **content)
