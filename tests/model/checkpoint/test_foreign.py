"""Folders that are no checkpoint, or not one of Transformers: each is named in one line that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint.load import load_checkpoint
from model.errors import CheckpointError
from model.running.runner import Runner
from service.__main__ import main
from tests.reference import SMALL, random_pack, save_fixed, save_tower

WEIGHTS = "model.safetensors"
FIXED = SMALL | {"image_size": 64, "patch_size": 16}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    save_fixed(folder, "clip", FIXED)
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def pooled(folder: Path) -> Any:
    return Runner(load_checkpoint(str(folder)), dtype="float32").run(random_pack([(4, 4)] * 2)).pooled


def an_adapter(folder: Path) -> None:
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "openai/clip"})
    save_file({"base_model.model.q_proj.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")


def an_adapter_beside_its_model(folder: Path) -> None:
    save_tower(folder, SMALL)
    an_adapter(folder)


def openclip(folder: Path) -> None:
    write_json(folder / "open_clip_config.json", {"model_cfg": {"embed_dim": 512}, "preprocess_cfg": {}})
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"\x80")


def openclip_weights(folder: Path) -> None:
    only_config(folder)
    save_file({"visual.conv1.weight": torch.zeros(2, 2)}, folder / "open_clip_model.safetensors")


def sentence_transformers(folder: Path) -> None:
    """As its 2.x wrote a model of CLIP."""
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    write_json(folder / "modules.json", [module])
    write_json(folder / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.0.0"}})
    save_tower(folder / "0_CLIPModel", SMALL)


def sentence_transformers_with_a_layer_more(folder: Path) -> None:
    save_tower(folder, SMALL)
    kinds = {"": "base.modules.transformer.Transformer", "1_Dense": "base.modules.dense.Dense"}
    modules = [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in kinds.items()]
    write_json(folder / "modules.json", modules)


def broken_modules(folder: Path) -> None:
    save_tower(folder, SMALL)
    write_json(folder / "modules.json", {"0": "Transformer"})


def nothing(folder: Path) -> None:
    pass


def a_checkpoint_one_folder_down(folder: Path) -> None:
    save_tower(folder / "checkpoint-500", SMALL)


def only_weights(folder: Path) -> None:
    save_tower(folder, SMALL)
    (folder / "config.json").unlink()


def only_config(folder: Path) -> None:
    save_tower(folder, SMALL)
    (folder / WEIGHTS).unlink()


def only(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        only_config(folder)
        (folder / "training_args.bin").write_bytes(b"\x80")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x80")

    return make


def a_lfs_pointer(folder: Path) -> None:
    save_tower(folder, SMALL)
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n")


def unmerged_lora(folder: Path) -> None:
    """As peft's wrapped model stands in a state dict."""

    def wrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        query = "encoder.layers.0.self_attn.q_proj"
        tensors[f"{query}.base_layer.weight"] = tensors.pop(f"{query}.weight")
        tensors[f"{query}.lora_A.default.weight"] = torch.zeros(2, 96)
        return {f"base_model.model.{key}": tensor for key, tensor in tensors.items()}

    save_tower(folder, SMALL)
    rewrite(folder, wrap)


def two_towers(folder: Path) -> None:
    save_tower(folder, SMALL)
    rewrite(folder, lambda t: {f"{name}.{key}": t[key].clone() for name in ("student", "teacher") for key in t})


def a_language_model(folder: Path) -> None:
    save_tower(folder, SMALL)
    config = {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}
    write_json(folder / "config.json", config)


def named_weights(folder: Path) -> None:
    save_tower(folder, SMALL)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"transformers_weights": "ema.safetensors"})


FOLDERS = [
    (an_adapter, "is an adapter (LoRA or alike) of openai/clip: merge it into that model with peft's merge_and_unload"),
    (an_adapter_beside_its_model, "is an adapter (LoRA or alike) of openai/clip: merge it"),
    (openclip, "is an OpenCLIP checkpoint: name the same model as Transformers saves it"),
    (openclip_weights, "holds OpenCLIP's weights, whose tensors have other names (open_clip_model.safetensors)"),
    (sentence_transformers, "its Transformers model lies in its folder 0_CLIPModel; name that folder"),
    (sentence_transformers_with_a_layer_more, "whose vectors also go through Dense, which is not read"),
    (broken_modules, "modules.json is not the list of modules that sentence-transformers writes"),
    (nothing, "config.json is missing: a checkpoint's folder holds config.json and model.safetensors"),
    (a_checkpoint_one_folder_down, "config.json is missing: a checkpoint's folder holds config.json and "),
    (a_checkpoint_one_folder_down, "; there is one in its folder checkpoint-500"),
    (only_weights, "config.json is missing"),
    (only_config, "model.safetensors is missing, and no other weights are there; save the model with"),
    (only("pytorch_model.bin"), "holds pickled weights only, and pickles are never read (pytorch_model.bin); save"),
    (only("model-f16.gguf"), "holds GGUF weights, those of llama.cpp (model-f16.gguf); save the model with"),
    (only("onnx/vision_model.onnx"), "holds ONNX weights (vision_model.onnx)"),
    (only("tf_model.h5"), "holds TensorFlow's weights (tf_model.h5)"),
    (only("flax_model.msgpack"), "holds Flax's weights (flax_model.msgpack)"),
    (
        only("model-00001-of-00002.safetensors"),
        "and no model.safetensors.index.json (model-00001-of-00002.safetensors)",
    ),
    (a_lfs_pointer, "model.safetensors is a pointer of Git LFS, not the weights: run git lfs pull"),
    (unmerged_lora, "the weights hold LoRA layers beside those that they adapt: merge them with peft's"),
    (two_towers, "the weights hold several towers, under student., teacher.: save one alone"),
    (a_language_model, "its vision tower, a clip_vision_model, is read if save_pretrained saves it alone"),
    (named_weights, "transformers_weights is 'ema.safetensors'; only 'model.safetensors' is supported"),
]


@pytest.mark.parametrize(("make", "message"), FOLDERS)
def test_a_folder_that_is_not_served_is_named_in_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path)
    capsys.readouterr()  # the progress of saving
    assert main(["info", "--model", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"packlight: {tmp_path}") or make is two_towers
    assert message in err
    assert err.count("\n") == 1


def test_a_file_in_place_of_a_folder_is_named(clip: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file: name the folder that holds it"):
        load_checkpoint(str(clip / WEIGHTS))


@pytest.mark.parametrize("wrapper", ["model.", "module.", "_orig_mod.", "base_model.model.", "vision_tower.", "a.b.c."])
def test_what_a_program_put_before_every_key_is_left_out(clip: Path, wrapper: str) -> None:
    before = pooled(clip)
    rewrite(clip, lambda t: {f"{wrapper}{key}": tensor for key, tensor in t.items()})
    assert np.array_equal(pooled(clip), before)


def test_only_the_tower_under_the_prefix_is_read_from_a_larger_model(tmp_path: Path) -> None:
    """A folder with the config.json of a tower and the weights of a language model that has it."""
    save_fixed(tmp_path, "siglip_vision_model", FIXED)
    before = pooled(tmp_path)

    def wrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        wrapped = {f"model.vision_tower.vision_model.{key}": tensor for key, tensor in tensors.items()}
        others = ("model.language_model.embed_tokens.weight", "encoder.layers.0.layer_norm1.weight", "lm_head.weight")
        return wrapped | {key: torch.ones(2) for key in others}

    rewrite(tmp_path, wrap)
    assert np.array_equal(pooled(tmp_path), before)


def test_a_tower_without_a_wrapper_is_taken_before_others(clip: Path) -> None:
    before = pooled(clip)
    rewrite(clip, lambda t: t | {f"ema.{key}": torch.zeros_like(tensor) for key, tensor in t.items()})
    assert np.array_equal(pooled(clip), before)


def test_a_sentence_transformers_folder_that_is_a_checkpoint_with_a_norm_is_read(clip: Path) -> None:
    before = pooled(clip)
    kinds = {"": "base.modules.transformer.Transformer", "1_Normalize": "base.modules.normalize.Normalize"}
    write_json(clip / "modules.json", [{"path": path, "type": f"x.{kind}"} for path, kind in kinds.items()])
    assert np.array_equal(pooled(clip), before)


def test_a_whole_file_is_read_in_place_of_the_shards_of_an_older_index(tmp_path: Path) -> None:
    """`save_pretrained` over a sharded checkpoint leaves the index. Transformers reads the whole file."""
    old, new = save_tower(tmp_path / "old", SMALL, seed=1), save_tower(tmp_path / "new", SMALL, seed=2)
    folder = tmp_path / "both"
    old.save_pretrained(folder, max_shard_size="200KB")
    assert (folder / "model.safetensors.index.json").exists()
    shards = load_checkpoint(str(folder)).digest
    assert shards == load_checkpoint(str(tmp_path / "old")).digest
    new.save_pretrained(folder)
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"head.probe": "gone.safetensors"}})
    assert load_checkpoint(str(folder)).digest == load_checkpoint(str(tmp_path / "new")).digest
    theirs = type(new).from_pretrained(folder)
    assert torch.equal(theirs.state_dict()["head.probe"], new.state_dict()["head.probe"])
