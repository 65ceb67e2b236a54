"""Which checkpoints are read, and how others are refused."""

import json
import logging
import math
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    Siglip2Config,
    Siglip2Model,
    Siglip2VisionConfig,
    SiglipVisionConfig,
)

from model.checkpoint import tiny, weights
from model.checkpoint.load import load_checkpoint
from model.checkpoint.weights import digest
from model.encoders.clip import vision as clip
from model.encoders.siglip import fixed, naflex
from model.errors import CheckpointError
from model.running.devices import DtypeName
from model.running.runner import Runner
from tests.reference import SMALL, random_pack, save_fixed, save_tower

WEIGHTS = "model.safetensors"
FIXED = SMALL | {"image_size": 64, "patch_size": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tower(tmp_path, SMALL)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def rewrite_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pooled(folder: Path) -> Any:
    return Runner(load_checkpoint(str(folder)), dtype="float32").run(random_pack([(3, 4), (5, 2)])).pooled


def test_both_spellings_of_the_key_prefix_give_the_same_numbers(folder: Path) -> None:
    before = pooled(folder)
    rewrite(folder, lambda t: [t.update({f"vision_model.{key}": t.pop(key)}) for key in list(t)])
    assert np.array_equal(pooled(folder), before)


def test_only_the_vision_tower_of_a_whole_model_is_read(tmp_path: Path) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    text = {"hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    Siglip2Model(Siglip2Config(vision_config=SMALL, text_config=text)).save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint.config.width == 96
    assert not [name for name in checkpoint.tensors if "text" in name or "logit" in name]


@pytest.mark.parametrize("model_type", ["siglip", "clip"])
def test_only_the_vision_tower_and_its_projection_are_read_from_a_whole_model_with_one_grid(
    tmp_path: Path, model_type: str
) -> None:
    save_fixed(tmp_path, model_type, FIXED)
    assert [name for name in load_file(tmp_path / WEIGHTS) if name.startswith("text_model.")]
    checkpoint = load_checkpoint(str(tmp_path))
    assert not [name for name in checkpoint.tensors if "text" in name or "logit" in name]
    assert ("visual_projection.weight" in checkpoint.tensors) == (model_type == "clip")
    assert checkpoint.config.embedding_width == (40 if model_type == "clip" else 96)


@pytest.mark.parametrize("model_type", ["siglip_vision_model", "clip_vision_model", "clip_vision_model+"])
def test_a_tower_with_one_grid_gives_the_same_numbers_with_and_without_the_prefix(
    tmp_path: Path, model_type: str
) -> None:
    save_fixed(tmp_path, model_type, FIXED)
    batch = random_pack([(4, 4)] * 2)
    before = Runner(load_checkpoint(str(tmp_path)), dtype="float32").run(batch).pooled
    rewrite(tmp_path, _respell)
    assert np.array_equal(Runner(load_checkpoint(str(tmp_path)), dtype="float32").run(batch).pooled, before)


def _respell(tensors: dict[str, Tensor]) -> None:
    """Adds the prefix to keys without one and removes it from the others. A projection never has one."""
    for key in [key for key in tensors if not key.startswith("visual_projection")]:
        name = key.removeprefix("vision_model.")
        tensors[f"vision_model.{name}" if name == key else name] = tensors.pop(key)


def test_a_clip_tower_has_a_projection_if_one_is_stored(tmp_path: Path) -> None:
    save_fixed(tmp_path, "clip_vision_model+", FIXED)
    assert Runner(load_checkpoint(str(tmp_path))).width == 512
    rewrite(tmp_path, lambda t: t.pop("visual_projection.weight"))
    assert Runner(load_checkpoint(str(tmp_path))).width == 96


def test_a_whole_clip_model_without_its_projection_is_refused(tmp_path: Path) -> None:
    save_fixed(tmp_path, "clip", FIXED)
    rewrite(tmp_path, lambda t: t.pop("visual_projection.weight"))
    with pytest.raises(CheckpointError, match=r"lack visual_projection\.weight"):
        load_checkpoint(str(tmp_path))


def test_position_numbers_in_old_files_are_ignored(tmp_path: Path) -> None:
    save_fixed(tmp_path, "clip", FIXED)
    rewrite(tmp_path, lambda t: t.update({"vision_model.embeddings.position_ids": torch.arange(17)[None]}))
    assert "embeddings.position_ids" not in load_checkpoint(str(tmp_path)).tensors


def test_an_old_clip_config_describes_its_tower_under_an_older_key(tmp_path: Path) -> None:
    """openai/clip-vit-large-patch14 does. Transformers reads that key and fills in defaults."""
    save_fixed(tmp_path, "clip", FIXED)
    old = FIXED | {"layer_norm_eps": 1e-6}
    rewrite_config(tmp_path, vision_config_dict=old, vision_config={"hidden_size": 7, "hidden_act": "gelu"})
    config = load_checkpoint(str(tmp_path)).config
    assert isinstance(config, clip.ClipConfig)
    theirs = CLIPConfig.from_pretrained(tmp_path).vision_config
    assert (config.width, config.eps, config.hidden_act) == (96, 1e-6, "quick_gelu")
    assert (theirs.hidden_size, theirs.layer_norm_eps, theirs.hidden_act) == (96, 1e-6, "quick_gelu")


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("siglip_vision_model", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; only 'gelu_pytorch_tanh'"),
        ("siglip_vision_model", {"vision_use_head": False}, "vision_use_head is False"),
        ("siglip_vision_model", {"image_size": 15}, "image_size is 15; it holds no patch of 16"),
        ("siglip_vision_model", {"image_size": [64, 64]}, "image_size is"),
        ("siglip_vision_model", {"image_size": 80}, r"position_embedding\.weight has shape \(16, 96\).*\(25, 96\)"),
        ("clip_vision_model", {"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of quick_gelu, gelu"),
        ("clip_vision_model", {"hidden_act": ["gelu"]}, "hidden_act is"),
        ("clip_vision_model", {"num_channels": 4}, "num_channels is 4"),
        ("clip_vision_model", {"image_size": True}, "image_size is True"),
    ],
)
def test_an_unsupported_config_of_a_model_with_one_grid_is_refused_by_key(
    tmp_path: Path, model_type: str, changes: dict[str, Any], message: str
) -> None:
    save_fixed(tmp_path, model_type, FIXED)
    rewrite_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_a_sharded_checkpoint_equals_a_single_file(folder: Path) -> None:
    before = pooled(folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / shard)
    weight_map = {key: shard for shard, keys in shards.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert np.array_equal(pooled(folder), before)

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing, and .*index\.json says"):
        load_checkpoint(str(folder))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map | {names[0]: None}}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: weight_map .* names no files"):
        load_checkpoint(str(folder))


def test_keys_that_a_config_omits_have_the_defaults_of_transformers() -> None:
    for config, ours in (
        (Siglip2VisionConfig(), naflex.DEFAULTS),
        (SiglipVisionConfig(), fixed.DEFAULTS),
        (CLIPVisionConfig(), clip.DEFAULTS),
    ):
        theirs = config.to_dict()
        assert {key: theirs[key] for key in ours} == ours


def test_mean_std_and_default_budget_come_from_the_preprocessor_config(folder: Path) -> None:
    content = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "max_num_patches": 576}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    checkpoint = load_checkpoint(str(folder))
    assert checkpoint.preprocessing.mean == (0.1, 0.2, 0.3)
    assert checkpoint.preprocessing.std == (0.4, 0.5, 0.6)
    assert checkpoint.preprocessing.default_max_tokens == 576


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"is_matryoshka": False}, None),
        ({"is_matryoshka": True}, ()),
        ({"matryoshka_dimensions": [64, 32, 64]}, (32, 64)),
        ({"is_matryoshka": True, "matryoshka_dimensions": [16]}, (16,)),
        ({"is_matryoshka": True, "matryoshka_dimensions": None}, ()),
        ({"matryoshka_dimensions": []}, None),
        ({"matryoshka_dimensions": 64}, (64,)),
    ],
)
def test_a_config_may_say_that_vectors_may_be_cut(
    folder: Path, changes: dict[str, Any], expected: tuple[int, ...] | None
) -> None:
    rewrite_config(folder, **changes)
    assert load_checkpoint(str(folder)).matryoshka_dimensions == expected


@pytest.mark.parametrize("value", ["64", [64.0], [0], [True], True, 6.4, {"64": 1}])
def test_dimensions_that_are_no_list_of_numbers_are_named(folder: Path, value: Any) -> None:
    rewrite_config(folder, matryoshka_dimensions=value)
    with pytest.raises(CheckpointError, match="matryoshka_dimensions is .*; it is a list of positive whole numbers"):
        load_checkpoint(str(folder))


def test_a_missing_key_is_named(folder: Path) -> None:
    rewrite(folder, lambda t: t.pop("encoder.layers.1.mlp.fc2.bias"))
    with pytest.raises(CheckpointError, match=r"lack encoder\.layers\.1\.mlp\.fc2\.bias"):
        load_checkpoint(str(folder))


def test_an_unexpected_key_is_named(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"encoder.layers.2.mlp.fc2.bias": torch.zeros(96)}))
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.2\.mlp\.fc2\.bias, which config\.json does not"):
        load_checkpoint(str(folder))


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"post_layernorm.weight": torch.zeros(95)}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: post_layernorm\.weight has shape \(95,\).*\(96,\)"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integer_weights_are_refused(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda t: t.update({"post_layernorm.weight": torch.zeros(96, dtype=dtype)}))
    with pytest.raises(CheckpointError, match=rf"post_layernorm\.weight is stored as {dtype}"):
        load_checkpoint(str(folder))


def test_pickled_weights_are_refused_unread(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(_Trap(), file)
    with pytest.raises(CheckpointError, match="pickles are never read"):
        load_checkpoint(str(folder))


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_link_to_what_is_not_mounted_is_named(folder: Path, name: str) -> None:
    """A snapshot of the hub's cache, mounted into a container without its blobs."""
    (folder / name).unlink()
    (folder / name).symlink_to("../../blobs/0123abcd")
    with pytest.raises(CheckpointError, match=rf"{name} is a link to ../../blobs/0123abcd, which is not here: mount"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_that_the_user_may_not_read_is_named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() == 0:
        # Root may read all, so the system's refusal is played: of JSON by Python, of weights by the library.
        denied = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != name and denied(path, mode))
        (folder / name).write_bytes(b"")
    else:
        (folder / name).chmod(0)
    with pytest.raises(CheckpointError, match=rf"{name} may not be read by user {os.getuid()}, .*: chmod -R a\+rX"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("keep", [0, 4, 100, -1000])
def test_a_truncated_file_is_named(folder: Path, keep: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'; types that are read are siglip2, .*, clip_vision_model"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'gelu_pytorch_tanh'"),
        ({"vision_use_head": False}, "vision_use_head is False"),
        ({"num_patches": 255}, "num_patches is 255"),
        ({"num_attention_heads": 7}, "not a multiple of num_attention_heads"),
        ({"patch_size": [16, 16]}, r"patch_size is \[16, 16\]"),
        ({"hidden_size": 97}, "hidden_size"),
        ({"num_patches": "256"}, "num_patches is '256'"),
        ({"num_patches": -4}, "num_patches is -4"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None"),
        ({"layer_norm_eps": math.inf}, "layer_norm_eps is inf"),
        ({"model_type": ["siglip2"]}, r"model_type is \['siglip2'\]; types that are read are"),
        ({"model_type": "llava", "vision_config": {"model_type": ["pixtral"]}}, "model_type is 'llava'; types that"),
        ({"model_type": "siglip2", "vision_config": [1]}, "vision_config is not an object"),
    ],
)
def test_an_unsupported_config_is_refused_by_key(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder))


@pytest.mark.parametrize(
    "content",
    [
        {"image_mean": 0.5},
        {"image_mean": [0.5]},
        {"image_mean": [0.5, math.nan, 0.5]},
        {"image_std": [0, 0, 0]},
        {"image_std": [0.5, 0.5, math.inf]},
        {"max_num_patches": 0},
        {"max_num_patches": None},
        {"resample": 3},
        {"do_normalize": False},
        {"rescale_factor": 1},
        {"patch_size": 14},
    ],
)
def test_an_unsupported_preprocessing_is_refused_by_key(folder: Path, content: dict[str, Any]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(content))} is"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize(("content", "message"), [("{", "not readable as JSON"), ("[]", "does not hold a JSON object")])
def test_a_broken_config_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}"):
        load_checkpoint(str(folder))


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["./no/such/folder", "nothing", "/nowhere", ""])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not a hub id"):
        load_checkpoint(name)


def test_a_hub_id_that_is_not_cached_is_an_error_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="org/name at revision v1 is not in the local cache"):
        load_checkpoint("org/name", revision="v1")


def test_a_hub_id_is_read_from_the_cache_offline(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache, commit = tmp_path_factory.mktemp("hub"), "0" * 40
    repository = cache / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for revision in (None, "main", commit):
        assert load_checkpoint("org/name", revision=revision).config.width == 96


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_runner_holds_its_weights_once_and_not_the_file_that_they_came_from(
    tmp_path: Path, dtype: DtypeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tower(tmp_path, SMALL | {"intermediate_size": 400})
    # All but the matrices of the MLPs, as in a model of full size.
    monkeypatch.setattr(weights, "_SMALL_BYTES", 4 * 400 * SMALL["hidden_size"] - 1)
    runner = Runner(load_checkpoint(str(tmp_path)), dtype=dtype)
    assert str(tmp_path / WEIGHTS) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert runner.run(random_pack([(3, 4)])).pooled.any()


def test_the_digest_changes_with_any_weight_but_not_with_the_prefix(folder: Path) -> None:
    before = load_checkpoint(str(folder)).digest
    rewrite(folder, lambda t: [t.update({f"vision_model.{key}": t.pop(key)}) for key in list(t)])
    assert load_checkpoint(str(folder)).digest == before
    rewrite(folder, lambda t: t["vision_model.head.probe"].add_(1e-3))
    assert load_checkpoint(str(folder)).digest != before


def test_the_bundled_model_is_always_the_same_and_names_its_card() -> None:
    first, second = load_checkpoint("packlight-tiny"), load_checkpoint("packlight-tiny")
    assert first.digest == second.digest
    assert first.card == "model/checkpoint/tiny/MODEL_CARD.md"
    assert (Path(__file__).parents[3] / first.card).is_file()


def test_the_bundled_weights_are_trained_have_16_bits_and_take_at_most_8_megabytes() -> None:
    bundled = load_checkpoint("packlight-tiny")
    assert {tensor.dtype for tensor in bundled.tensors.values()} == {torch.bfloat16}
    assert bundled.digest != digest(tiny.seeded_tensors())
    assert (tiny.FOLDER / "model.safetensors").stat().st_size <= 8 * 1024**2
