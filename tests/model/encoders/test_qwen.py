"""Qwen-VL's towers: Transformers' numbers, windows inside their image, and the same bits in any pack."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

from model.checkpoint.load import Checkpoint, load_checkpoint
from model.encoders.parts.windows import merge_order
from model.encoders.qwen import qwen2_5_vl, qwen2_vl, qwen3_vl
from model.encoders.qwen.encoder import QwenEncoder
from model.encoders.qwen.family import QwenConfig
from model.errors import CheckpointError
from model.images.patches import patch_rows
from model.kernels.linear import choose_linear
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from tests.examples import PART, many
from tests.model.encoders.invariance import DTYPES, assert_same_bits_in_any_pack, tokens_of
from tests.model.encoders.test_parity import assert_equals
from tests.qwen import MODELS, PATCH, PUBLISHED, SMALL, random_model, save_model, tower_outputs
from tests.reference import random_pack

FAMILIES = list(MODELS)
MIXED = [(2, 2), (14, 18), (2, 8), (32, 32), (6, 24), (2, 64), (4, 2), (54, 20), (8, 8), (10, 16)]
# At published widths a row costs a hundred times as much: one image is long enough for the largest parts of attention.
OF_PUBLISHED = [(2, 2), (14, 18), (2, 8), (28, 28), (6, 24), (2, 64), (4, 2), (8, 8), (10, 16)]


def saved(folder: Path, family: str, shapes: dict[str, dict[str, Any]]) -> tuple[Any, Checkpoint]:
    """Saves a model with one mean and deviation for all families, which the reference also normalises by."""
    tower = save_model(folder, family, shapes[family])
    Qwen2VLImageProcessorPil(patch_size=PATCH[family]).save_pretrained(folder)
    return tower, load_checkpoint(str(folder))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family's small shape, to copy what a test changes."""
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        save_model(folder, family, SMALL[family])
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_equals_transformers_and_bfloat16_stays_close(tmp_path: Path, family: str) -> None:
    tower, _ = saved(tmp_path, family, SMALL)
    batch = random_pack(MIXED, patch_size=PATCH[family])
    pooled, tokens = tower_outputs(tower, batch)
    assert_equals(tmp_path, batch, pooled, tokens, least_cosines=(0.9999, 0.9995))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
# Qwen2.5 has windows, where a segment's place in the pack matters most.
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] * (name != "qwen2_5_vl")) for name in FAMILIES]
)
def test_an_image_has_the_same_bits_alone_and_in_any_pack(tmp_path: Path, family: str, dtype: DtypeName) -> None:
    """Few merged tokens and many, odd numbers of rows, any number of threads."""
    images = [random_pack([grid], seed=i, patch_size=PATCH[family]) for i, grid in enumerate(MIXED)]
    runner = Runner(saved(tmp_path, family, SMALL)[1], dtype=dtype)
    assert_same_bits_in_any_pack(runner, images, packs=32 // PART)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_published_widths_equal_transformers_with_the_same_bits_in_any_pack(tmp_path: Path, family: str) -> None:
    tower, checkpoint = saved(tmp_path, family, PUBLISHED)
    batch = random_pack(OF_PUBLISHED, patch_size=PATCH[family])
    pooled, tokens = tower_outputs(tower, batch)
    assert_equals(tmp_path, batch, pooled, tokens, least_cosines=(0.9999, 0.9995))
    images = [random_pack([grid], seed=i, patch_size=PATCH[family]) for i, grid in enumerate(OF_PUBLISHED)]
    for dtype in DTYPES:
        assert_same_bits_in_any_pack(Runner(checkpoint, dtype=dtype), images, packs=8)


def encoder_of(checkpoint: Checkpoint) -> QwenEncoder:
    """An encoder without weights, to see how it arranges packs."""
    cpu, config = torch.device("cpu"), checkpoint.config
    assert isinstance(config, QwenConfig)
    encoder = config.encoder(
        positions=config.positions(checkpoint.tensors, cpu),
        attention=lambda q, k, v, queries, keys: q,
        kernel=choose_linear(cpu, torch.float32),
        features_after=None,
    )
    assert isinstance(encoder, QwenEncoder)
    return encoder


def test_neighbouring_images_of_a_pack_share_no_window(tmp_path: Path) -> None:
    encoder = encoder_of(saved(tmp_path, "qwen2_5_vl", SMALL)[1])
    arrangement = encoder.arrange(random_pack(MIXED, patch_size=14))
    order, images = arrangement.order.numpy(), np.array(arrangement.segments.offsets)
    assert {*arrangement.segments.offsets} <= {*arrangement.windows.offsets}
    whole = 0
    for start, end in pairwise(arrangement.windows.offsets):
        (image,) = {*np.searchsorted(images, order[start:end], side="right") - 1}
        rows, columns = np.divmod(order[start:end] - images[image], MIXED[image][1])
        assert rows.max() // 8 == rows.min() // 8
        assert columns.max() // 8 == columns.min() // 8
        whole += end - start == 64
    assert whole == sum(h // 8 * (w // 8) for h, w in MIXED)
    assert arrangement.windows.max_seqlen == 64


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_in_one_image_moves_no_other(tmp_path: Path, family: str) -> None:
    runner = Runner(saved(tmp_path, family, SMALL)[1], dtype="float32")
    before = random_pack([(6, 10), (4, 6), (8, 12)], patch_size=PATCH[family])
    after = random_pack([(6, 10), (4, 6), (8, 12)], patch_size=PATCH[family])
    after.rows[60:84] = 255 - after.rows[60:84]
    changed = np.any(tokens_of(runner.run(before, tokens=True)) != tokens_of(runner.run(after, tokens=True)), axis=1)
    assert changed.tolist() == [False] * 15 + [True] * 6 + [False] * 24


@pytest.mark.parametrize("family", FAMILIES)
def test_one_change_reaches_its_window_first_and_the_whole_image_after_a_full_layer(
    tmp_path: Path, family: str
) -> None:
    """Qwen2.5-VL has windows; the others have none."""
    shape = SMALL[family] | ({"fullatt_block_indexes": []} if family == "qwen2_5_vl" else {})
    save_model(tmp_path, family, shape)
    runner = Runner(load_checkpoint(str(tmp_path)), dtype="float32")
    before, after = (random_pack([(8, 20)], patch_size=PATCH[family]) for _ in range(2))
    after.rows[0] = 255 - after.rows[0]
    changed = np.any(tokens_of(runner.run(before, tokens=True)) != tokens_of(runner.run(after, tokens=True)), axis=1)
    reached = np.ones((4, 10), bool)
    if family == "qwen2_5_vl":
        reached[:, 4:] = False
    assert np.array_equal(changed.reshape(4, 10), reached)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_spelling_of_the_keys_gives_the_same_weights(tmp_path: Path, family: str) -> None:
    """The tower of a whole model under either prefix, beside the language model, or a tower alone."""
    model = random_model(family, SMALL[family])
    model.save_pretrained(tmp_path / "whole")
    model.model.visual.save_pretrained(tmp_path / "tower")
    checkpoint = load_checkpoint(str(tmp_path / "whole"))
    assert not [name for name in checkpoint.tensors if "layers" in name or "embed_tokens" in name]
    assert load_checkpoint(str(tmp_path / "tower")).digest == checkpoint.digest
    assert load_checkpoint(str(tmp_path / "tower")).config == checkpoint.config
    path = tmp_path / "whole" / "model.safetensors"
    tensors = load_file(path)
    for key in [key for key in tensors if "visual." in key]:
        name = key.rpartition("visual.")[2]
        tensors[f"visual.{name}" if key.startswith("model.") else f"model.visual.{name}"] = tensors.pop(key)
    save_file(tensors, path)
    assert load_checkpoint(str(tmp_path / "whole")).digest == checkpoint.digest


def test_of_a_sharded_model_only_what_holds_the_tower_is_fetched_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = tmp_path / "model", tmp_path / ("0" * 40)
    save_model(model, "qwen3_vl", SMALL["qwen3_vl"])
    digest = load_checkpoint(str(model)).digest
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    shards = {key: f"model-0000{1 + ('visual' in key)}-of-00002.safetensors" for key in tensors}
    for shard in {*shards.values()}:
        save_file({key: tensor for key, tensor in tensors.items() if shards[key] == shard}, model / shard)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert revision in ("v1", cache.name)
        cache.mkdir(exist_ok=True)
        for file in allow_patterns:
            if (model / file).exists():
                (cache / file).write_bytes((model / file).read_bytes())
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert load_checkpoint("org/name", revision="v1").digest == digest
    assert [path.name for path in cache.glob("*.safetensors")] == ["model-00002-of-00002.safetensors"]


@many(200)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_patch_rows_are_those_of_the_processor_in_another_order(height: int, width: int, seed: int) -> None:
    """Compares pixels to the bit before rescaling and normalising: both frames of every patch."""
    assume(max(height, width) <= 200 * min(height, width))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    raw = {"do_rescale": False, "do_normalize": False, "size": {"shortest_edge": 5_000, "longest_edge": 30_000}}
    inputs = Qwen2VLImageProcessorPil(patch_size=14, **raw)(Image.fromarray(pixels), return_tensors="np")
    geometry = Geometry.for_merging(14, 2, min_pixels=5_000, max_pixels=30_000)
    budget = Budget(30_000 // 196, 30_000)
    plan = plan_image((height, width), geometry=geometry, budget=budget, strategy="native")
    grid = plan.segments[0].grid
    assert inputs["image_grid_thw"].tolist() == [[1, *grid]]
    rows = patch_rows(Image.fromarray(pixels), plan, geometry)[merge_order(grid, 2, None)[0]]
    theirs = np.asarray(inputs["pixel_values"]).reshape(-1, 3, 2, 14, 14)
    for frame in range(2):
        assert np.array_equal(rows, theirs[:, :, frame].transpose(0, 2, 3, 1).reshape(len(rows), -1))


def test_what_a_config_leaves_out_is_as_in_transformers() -> None:
    for config, ours in (
        (Qwen2VLVisionConfig(), qwen2_vl.DEFAULTS),
        (Qwen2_5_VLVisionConfig(), qwen2_5_vl.DEFAULTS),
        (Qwen3VLVisionConfig(), qwen3_vl.DEFAULTS),
    ):
        theirs = config.to_dict()
        assert {key: list(value) if isinstance(value := theirs[key], tuple) else value for key in ours} == ours


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("qwen2_vl", {"in_chans": 4}, "in_chans is 4; only 3"),
        ("qwen2_vl", {"num_heads": 3}, "num_heads is 3; the width, 160, is not a multiple of 4"),
        ("qwen2_vl", {"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of"),
        ("qwen2_vl", {"rope_parameters": {"rope_theta": 500.0}}, "rope_theta is 500.0; only 10000.0"),
        ("qwen2_vl", {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5}, "rope_theta is 5; only 10000.0"),
        ("qwen2_vl", {"hidden_size": 80}, r"visual\.merger\.mlp\.2\.\S+ has shape \(72,"),
        ("qwen2_5_vl", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
        ("qwen2_5_vl", {"window_size": 20}, "window_size is 20; it holds no merged token"),
        ("qwen2_5_vl", {"fullatt_block_indexes": [1, 0]}, r"fullatt_block_indexes is \[1, 0\]; it is a list"),
        ("qwen3_vl", {"deepstack_visual_indexes": [3]}, r"deepstack_visual_indexes is \[3\]; .* from 0 to 2"),
        ("qwen3_vl", {"num_position_embeddings": 37}, "num_position_embeddings is 37; it is the square"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_key(
    stored: dict[str, Path], tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    shutil.copytree(stored[family], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"vision_config": content["vision_config"] | changes}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_a_layer_of_the_tower_cannot_be_named_for_token_vectors(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, "qwen2_vl", SMALL)[1]
    with pytest.raises(CheckpointError, match="feature_layer is set; the token vectors of this family are merged"):
        Runner(checkpoint, feature_layer=-2)


def test_a_warm_up_of_any_length_fills_whole_tokens(tmp_path: Path) -> None:
    runner = Runner(saved(tmp_path, "qwen2_5_vl", SMALL)[1])
    runner.warm_up([1])
    runner.warm_up([4, 6, 258])


def preprocessed(stored: dict[str, Path], tmp_path: Path, **content: Any) -> Any:
    shutil.copytree(stored["qwen2_vl"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    return load_checkpoint(str(tmp_path)).preprocessing


def test_bounds_of_the_area_come_from_either_spelling(stored: dict[str, Path], tmp_path: Path) -> None:
    size = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    wanted = Geometry.for_merging(14, 2, min_pixels=3136, max_pixels=12_845_056)
    found = preprocessed(stored, tmp_path, size=size)
    assert found.geometry == wanted
    assert found.default_max_tokens == 65_536
    assert preprocessed(stored, tmp_path, min_pixels=3136, max_pixels=12_845_056).geometry == wanted
    both = preprocessed(stored, tmp_path, size=size, max_pixels=100_000).geometry
    theirs = Qwen2VLImageProcessorPil(size=dict(size), max_pixels=100_000).size
    assert (both.native_min_pixels, both.native_max_pixels) == (theirs["shortest_edge"], theirs["longest_edge"])
    theirs = Qwen2VLImageProcessorPil().size
    left_out = preprocessed(stored, tmp_path).geometry
    assert (left_out.native_min_pixels, left_out.native_max_pixels) == (theirs["shortest_edge"], theirs["longest_edge"])


@pytest.mark.parametrize(
    "content",
    [{"patch_size": 16}, {"merge_size": 1}, {"resample": 2}, {"max_pixels": 500}, {"size": 224}, {"do_resize": False}],
)
def test_pictures_that_would_be_prepared_in_another_manner_are_refused(
    stored: dict[str, Path], tmp_path: Path, content: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(content))} is"):
        preprocessed(stored, tmp_path, **content)
