"""MoonViT: Transformers' numbers packed and one by one, the same bits in any pack, and pictures on black."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from torch.nn import functional as F
from transformers.models.kimi_k25.configuration_kimi_k25 import Kimi_K25VisionConfig

from model.checkpoint.load import load_checkpoint
from model.encoders import kimi
from model.errors import CheckpointError
from model.images.patches import patch_rows, picture_of
from model.pack import pack
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from model.sizing.shrink import Shrink
from tests.examples import many
from tests.language_towers import (
    KIMI,
    KIMI_PUBLISHED,
    kimi_outputs,
    navit_resize,
    random_kimi,
    save_kimi_processor,
    whole_model,
)
from tests.model.encoders.invariance import DTYPES, assert_same_bits_in_any_pack
from tests.model.encoders.test_parity import assert_equals, assert_within_promise, cosine
from tests.reference import random_pack

MIXED = [(2, 2), (14, 18), (2, 8), (6, 24), (2, 64), (4, 2), (26, 20)]


@pytest.mark.parametrize(
    ("shape", "grids"),
    [
        pytest.param(KIMI, [*MIXED, (6, 6)], id="small"),
        pytest.param(KIMI | {"hidden_act": "gelu", "patch_size": 16}, MIXED[:4], id="gelu-and-another-patch"),
        pytest.param(KIMI | {"merge_kernel_size": [1, 1]}, [(3, 5), (1, 1)], id="no-merging"),
    ],
)
def test_float32_equals_transformers_and_bfloat16_stays_close(
    tmp_path: Path, shape: dict[str, Any], grids: list[tuple[int, int]]
) -> None:
    assert_kimi_equals(tmp_path, shape, grids)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_an_image_has_the_same_bits_alone_and_in_any_pack(tmp_path: Path, dtype: DtypeName) -> None:
    random_kimi(KIMI).save_pretrained(tmp_path)
    images = [random_pack([grid], seed=i, patch_size=14) for i, grid in enumerate(MIXED)]
    assert_same_bits_in_any_pack(Runner(load_checkpoint(str(tmp_path)), dtype=dtype), images, packs=16)


@pytest.mark.slow
def test_published_widths_equal_transformers_with_the_same_bits_in_any_pack(tmp_path: Path) -> None:
    assert_kimi_equals(tmp_path, KIMI_PUBLISHED, [*MIXED[:-1], (28, 28)])
    images = [random_pack([grid], seed=i, patch_size=14) for i, grid in enumerate(MIXED)]
    for dtype in DTYPES:
        assert_same_bits_in_any_pack(Runner(load_checkpoint(str(tmp_path)), dtype=dtype), images, packs=8)


def assert_kimi_equals(folder: Path, shape: dict[str, Any], grids: list[tuple[int, int]]) -> None:
    """All images in a call, and one image a call."""
    tower = random_kimi(shape)
    tower.save_pretrained(folder)
    patch, merge = shape.get("patch_size", 14), shape.get("merge_kernel_size", [2, 2])[0]
    save_kimi_processor(folder, patch_size=patch, merge_size=merge)
    batch = random_pack(grids, patch_size=patch)
    pooled, tokens = kimi_outputs(tower, batch)
    ours = assert_equals(folder, batch, pooled, tokens, least_cosines=(0.9999, 0.9995))
    alone = [kimi_outputs(tower, batch.part(np.array([index]))) for index in range(len(grids))]
    assert ours.tokens is not None
    assert_within_promise(ours.pooled, np.concatenate([each[0] for each in alone]))
    assert_within_promise(ours.tokens, np.concatenate([each[1] for each in alone]))


def test_every_spelling_of_the_keys_gives_the_same_numbers(tmp_path: Path) -> None:
    """A tower alone; the whole model as Transformers saves it; and as it is published."""
    model = whole_model("kimi_k25")
    model.save_pretrained(tmp_path / "whole")
    model.model.vision_tower.save_pretrained(tmp_path / "tower")
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    assert "vision_tower.encoder.blocks.0.wqkv.weight" in tensors
    published = {name.replace("encoder.patch_embed", "patch_embed"): tensors[name] for name in tensors}
    (tmp_path / "published").mkdir()
    save_file(published, tmp_path / "published" / "model.safetensors")
    (tmp_path / "published" / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    batch = random_pack(MIXED[:4], patch_size=14)
    _, tokens = kimi_outputs(model.model.vision_tower, batch)
    for folder in ("tower", "whole", "published"):
        checkpoint = load_checkpoint(str(tmp_path / folder))
        ours = Runner(checkpoint, dtype="float32").run(batch, tokens=True).tokens
        assert ours is not None
        assert_within_promise(ours, tokens)
        assert not [name for name in checkpoint.tensors if "projector" in name or "language" in name]


@many(60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_picture_lies_on_black_at_the_left_and_top(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    shrink = Shrink(20 * 14, 100, multiple=2, pads=True)
    geometry = Geometry.for_shrinking(14, shrink, factor=2)
    plan = plan_image((height, width), geometry=geometry, budget=Budget.of_tokens(4096, 14), strategy="native")
    picture, padded = navit_resize()(height, width, 14, 2, 100, 20)
    assert plan.resized == padded
    canvas = np.zeros((*padded, 3), np.uint8)
    resized = Image.fromarray(pixels).resize(picture[::-1], Image.Resampling.BICUBIC)
    canvas[: picture[0], : picture[1]] = np.asarray(resized)
    grid_h, grid_w = plan.segments[0].grid
    rows = patch_rows(Image.fromarray(pixels), plan, geometry)
    patches = canvas.reshape(grid_h, 14, grid_w, 14, 3).swapaxes(1, 2)
    assert np.array_equal(rows, patches.reshape(len(rows), -1))
    assert np.array_equal(np.asarray(picture_of(rows, plan, geometry)), canvas)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_vectors_of_a_photograph_are_nearly_those_of_the_torch_resize(tmp_path: Path, name: str) -> None:
    """Its own processor resizes by torchvision: PyTorch's 8-bit bicubic."""
    pixels = getattr(data, name)()
    tower = random_kimi(KIMI_PUBLISHED)
    tower.save_pretrained(tmp_path)
    save_kimi_processor(tmp_path, max_patches=400)
    checkpoint = load_checkpoint(str(tmp_path))
    geometry, size = checkpoint.preprocessing.geometry, pixels.shape[:2]
    plan = plan_image(size, geometry=geometry, budget=Budget.of_tokens(1000, 14), strategy="native")
    (height, width), (padded_h, padded_w) = navit_resize()(*size, 14, 2, 400, 512)
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    values = F.interpolate(values, size=(height, width), mode="bicubic", antialias=True)
    canvas = F.pad(values, (0, padded_w - width, 0, padded_h - height))[0].permute(1, 2, 0)
    patches = canvas.numpy().reshape(padded_h // 14, 14, padded_w // 14, 14, 3).swapaxes(1, 2)
    ours, theirs = patch_rows(Image.fromarray(pixels), plan, geometry), patches.reshape(plan.tokens, -1)
    differences = np.abs(ours.astype(int) - theirs.astype(int))
    assert differences.max() <= 1
    assert 0 < (differences > 0).mean() < 0.01
    grids = [plan.segments[0].grid]
    pooled, tokens = kimi_outputs(tower, pack([np.ascontiguousarray(theirs)], grids))
    output = Runner(checkpoint, dtype="float32").run(pack([ours], grids), tokens=True)
    assert output.tokens is not None
    assert cosine(output.pooled, pooled).min() >= 0.999999
    assert cosine(output.tokens, tokens).min() >= 0.99999


def test_a_square_is_stretched_and_has_no_black() -> None:
    geometry = Geometry.for_shrinking(14, Shrink(280, 100, multiple=2, pads=True), factor=2)
    plan = plan_image((30, 90), geometry=geometry, budget=Budget.of_tokens(17, 14), strategy="square")
    assert plan.segments[0].grid == (4, 4)
    assert patch_rows(Image.new("RGB", (90, 30), "white"), plan, geometry).min() == 255


def test_what_a_config_leaves_out_is_as_in_transformers() -> None:
    theirs = Kimi_K25VisionConfig().to_dict()
    assert json.loads(json.dumps({key: theirs[key] for key in kimi.DEFAULTS})) == kimi.DEFAULTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge_kernel_size": [2, 1]}, r"merge_kernel_size is \[2, 1\]; it is the same number"),
        ({"merge_kernel_size": [0, 0]}, r"merge_kernel_size is \[0, 0\]; it is the same number"),
        ({"pos_emb_width": 7}, "pos_emb_width is 7; the table of positions is a square"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of"),
        ({"num_attention_heads": 8}, "num_attention_heads is 8; the width, 144, is not a multiple of 4"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'; only 'axial'"),
        ({"head_dim": 64}, "head_dim is 64; only 72"),
        ({"pos_emb_height": 7, "pos_emb_width": 7}, r"pos_emb\.position_embeddings has shape \(6, 6,"),
        ({"num_hidden_layers": 1}, r"layers\.1\.\S+"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    random_kimi(KIMI).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_a_layer_of_the_tower_cannot_be_named_for_token_vectors(tmp_path: Path) -> None:
    random_kimi(KIMI).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="feature_layer is set; the token vectors of this family are merged"):
        Runner(load_checkpoint(str(tmp_path)), feature_layer=-2)


@pytest.mark.parametrize(
    "content",
    [
        {"patch_size": 16}, {"merge_size": 1}, {"resample": 2}, {"max_patches": 0}, {"do_resize": False},
        {"size": {"max_height": 512, "max_width": 500}}, {"image_processor_type": "CLIPImageProcessor"},
    ],
)  # fmt: skip
def test_pictures_that_would_be_prepared_in_another_manner_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    random_kimi(KIMI).save_pretrained(tmp_path)
    save_kimi_processor(tmp_path, **content)
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(content))} is"):
        load_checkpoint(str(tmp_path))


def test_bounds_are_those_of_the_processor_or_its_class(tmp_path: Path) -> None:
    random_kimi(KIMI).save_pretrained(tmp_path)
    wanted = Geometry.for_shrinking(14, Shrink(512 * 14, 16_384, multiple=2, pads=True), factor=2)
    assert load_checkpoint(str(tmp_path)).preprocessing.geometry == wanted
    save_kimi_processor(tmp_path, max_patches=400, size={"max_height": 64, "max_width": 64})
    found = load_checkpoint(str(tmp_path)).preprocessing
    assert found.geometry.shrink == Shrink(64 * 14, 400, multiple=2, pads=True)
    assert found.default_max_tokens == 400


def test_moonshots_own_file_of_the_processor_is_read_by_its_names(tmp_path: Path) -> None:
    """As it lies beside the published weights: an object that Transformers' class does not look into."""
    random_kimi(KIMI).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    own = {
        "in_patch_limit": 400, "patch_size": 14, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5],
        "merge_kernel_size": 2, "fixed_output_tokens": None, "patch_limit_on_one_side": 64, "sample_fps": 2.0,
    }  # fmt: skip
    path.write_text(json.dumps({"auto_map": {}, "media_proc_cfg": own}))
    found = load_checkpoint(str(tmp_path)).preprocessing
    assert found.geometry.shrink == Shrink(64 * 14, 400, multiple=2, pads=True)
    assert found.std == (0.25, 0.5, 0.5)
    path.write_text(json.dumps({"media_proc_cfg": own | {"fixed_output_tokens": 64}}))
    with pytest.raises(CheckpointError, match="fixed_output_tokens is 64; only None"):
        load_checkpoint(str(tmp_path))
