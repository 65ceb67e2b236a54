"""Which text towers are read, beside a vision tower or alone, and how others are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig

from model.checkpoint.load import load_checkpoint, load_text
from model.encoders.clip.text import ClipTextConfig
from model.errors import CheckpointError
from model.running.runner import Runner
from model.running.texts import TextRunner
from tests.reference import END_ID, SMALL, random_pack, random_texts, save_fixed, text_tower, whole_model

FIXED = SMALL | {"image_size": 64, "patch_size": 16}
TEXT = SMALL | {"vocab_size": 99, "max_position_embeddings": 12}
SIGLIP_TEXTS = random_texts([3, 12, 5], context=12)
CLIP_TEXTS = random_texts([3, 12, 5])


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    whole_model("siglip", FIXED, TEXT).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    save_fixed(tmp_path, "clip", FIXED)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def rewrite_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def run_text(folder: Path, texts: Any) -> Any:
    return TextRunner(load_text(str(folder)), device=torch.device("cpu"), dtype=torch.float32).run(texts).pooled


def test_both_towers_of_a_whole_model_are_read_beside_each_other(siglip: Path) -> None:
    checkpoint = load_checkpoint(str(siglip))
    assert checkpoint.text
    assert "head.probe" in checkpoint.tensors
    assert checkpoint.text.tensors["head.weight"].shape == (96, 96)
    assert (checkpoint.text.family, checkpoint.text.folder) == ("siglip", siglip)
    assert (checkpoint.text.config.context, checkpoint.text.config.vocabulary) == (12, 99)


def test_a_runner_with_both_towers_gives_the_vectors_of_each_alone(siglip: Path) -> None:
    checkpoint = load_checkpoint(str(siglip))
    runner, batch = Runner(checkpoint, dtype="float32"), random_pack([(4, 4)] * 2)
    before = runner.run(batch).pooled
    assert np.array_equal(runner.run_texts(SIGLIP_TEXTS).pooled, run_text(siglip, SIGLIP_TEXTS))
    assert np.array_equal(runner.run(batch).pooled, before)
    assert runner.parameters == sum(t.numel() for t in load_file(siglip / "model.safetensors").values()) - 2


@pytest.mark.parametrize(
    "model_type", ["siglip_text_model", "siglip2_text_model", "clip_text_model", "clip_text_model+"]
)
def test_a_text_tower_alone_gives_the_same_vectors_with_and_without_the_prefix(tmp_path: Path, model_type: str) -> None:
    text_tower(model_type, TEXT | {"eos_token_id": END_ID}).save_pretrained(tmp_path)
    texts = CLIP_TEXTS if "clip" in model_type else SIGLIP_TEXTS
    before, digest = run_text(tmp_path, texts), load_text(str(tmp_path)).digest

    def respell(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if not key.startswith("text_projection")]:
            name = key.removeprefix("text_model.")
            tensors[f"text_model.{name}" if name == key else name] = tensors.pop(key)

    rewrite(tmp_path, respell)
    assert np.array_equal(run_text(tmp_path, texts), before)
    assert load_text(str(tmp_path)).digest == digest


def test_a_folder_of_a_text_tower_alone_is_not_served(tmp_path: Path) -> None:
    text_tower("siglip2_text_model", TEXT).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="siglip2_text_model'; a text tower alone is not served: name the whole"):
        load_checkpoint(str(tmp_path))


def test_a_model_without_a_text_tower_has_no_text(siglip: Path) -> None:
    assert load_checkpoint("packlight-tiny").text is None
    rewrite(siglip, lambda t: [t.pop(key) for key in list(t) if key.startswith("text_model.")])
    checkpoint = load_checkpoint(str(siglip))
    assert checkpoint.text is None
    assert checkpoint.logits is None
    assert Runner(checkpoint).texts is None
    with pytest.raises(CheckpointError, match="types with a text tower are siglip2, siglip, clip, siglip2_text_model"):
        load_text(str(_vision_alone(siglip)))


def _vision_alone(folder: Path) -> Path:
    rewrite_config(folder, lambda c: c.update(c.pop("vision_config"), model_type="siglip_vision_model"))
    return folder


def test_the_scale_and_bias_of_logits_are_read(siglip: Path) -> None:
    rewrite(siglip, lambda t: t.update(logit_scale=torch.tensor([4.0]), logit_bias=torch.tensor([-12.5])))
    logits = load_checkpoint(str(siglip)).logits
    assert logits
    assert logits.scale == pytest.approx(54.598150)
    assert logits.bias == -12.5


def test_clip_has_a_scale_alone(clip: Path) -> None:
    logits = load_checkpoint(str(clip)).logits
    assert logits
    assert logits.bias is None


def test_position_numbers_in_old_files_are_ignored(clip: Path) -> None:
    before = load_checkpoint(str(clip)).text
    rewrite(clip, lambda t: t.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))
    after = load_checkpoint(str(clip)).text
    assert before
    assert after
    assert after.digest == before.digest


def test_an_old_clip_config_describes_its_text_tower_under_an_older_key(clip: Path) -> None:
    """openai/clip-vit-base-patch32 does. Transformers reads that key and fills in defaults."""
    old = {
        key: value
        for key, value in CLIPConfig.from_pretrained(clip).text_config.to_dict().items()
        if key != "eos_token_id"
    }
    rewrite_config(
        clip, lambda c: c.update(text_config_dict=old | {"layer_norm_eps": 1e-6}, text_config={"hidden_act": "gelu"})
    )
    text = load_checkpoint(str(clip)).text
    assert text
    assert isinstance(text.config, ClipTextConfig)
    theirs = CLIPConfig.from_pretrained(clip).text_config
    assert (text.config.eps, text.config.hidden_act, text.config.end_id) == (1e-6, "quick_gelu", 49407)
    assert (theirs.layer_norm_eps, theirs.hidden_act, theirs.eos_token_id) == (1e-6, "quick_gelu", 49407)


def test_a_sharded_checkpoint_gives_the_towers_of_a_single_file(siglip: Path) -> None:
    before = load_checkpoint(str(siglip))
    tensors = load_file(siglip / "model.safetensors")
    (siglip / "model.safetensors").unlink()
    weight_map = {key: f"{number % 3}.safetensors" for number, key in enumerate(sorted(tensors))}
    for shard in set(weight_map.values()):
        save_file({key: tensors[key] for key, place in weight_map.items() if place == shard}, siglip / shard)
    (siglip / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    after = load_checkpoint(str(siglip))
    assert before.text
    assert after.text
    assert (after.digest, after.text.digest, after.logits) == (before.digest, before.text.digest, before.logits)


def test_text_vectors_that_are_not_as_wide_as_image_vectors_are_refused(siglip: Path) -> None:
    rewrite(
        siglip,
        lambda t: t.update({"text_model.head.weight": torch.zeros(40, 96), "text_model.head.bias": torch.zeros(40)}),
    )
    rewrite_config(siglip, lambda c: c["text_config"].update(projection_size=40))
    with pytest.raises(CheckpointError, match="text vectors have 40 numbers, and image vectors 96"):
        load_checkpoint(str(siglip))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of quick_gelu, gelu"),
        ({"num_attention_heads": 7}, "not a multiple of num_attention_heads"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"vocab_size": 98}, r"token_embedding\.weight has shape \(99, 48\).*\(98, 48\)"),
        ({"max_position_embeddings": True}, "max_position_embeddings is True"),
        ({"eos_token_id": [98]}, r"eos_token_id is \[98\]"),
    ],
)
def test_an_unsupported_text_config_is_refused_by_key(clip: Path, changes: dict[str, Any], message: str) -> None:
    rewrite_config(clip, lambda c: c["text_config"].update(changes))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(clip))


def test_a_missing_and_an_unexpected_text_key_are_named(clip: Path) -> None:
    rewrite(clip, lambda t: t.update({"text_model.extra.weight": t.pop("text_projection.weight")}))
    with pytest.raises(CheckpointError, match=r"lack text_projection\.weight"):
        load_checkpoint(str(clip))
    rewrite(clip, lambda t: t.update({"text_projection.weight": t["text_model.extra.weight"].clone()}))
    with pytest.raises(CheckpointError, match=r"hold text_model\.extra\.weight"):
        load_checkpoint(str(clip))


def test_a_model_without_its_logit_scale_is_refused(clip: Path) -> None:
    rewrite(clip, lambda t: t.pop("logit_scale"))
    with pytest.raises(CheckpointError, match="lack logit_scale"):
        load_checkpoint(str(clip))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1000.0])
def test_a_logit_scale_that_makes_no_logits_is_refused(clip: Path, scale: float) -> None:
    rewrite(clip, lambda t: t["logit_scale"].fill_(scale))
    with pytest.raises(CheckpointError, match="make no logits"):
        load_checkpoint(str(clip))


def test_a_text_tower_that_is_not_wanted_is_not_read(clip: Path) -> None:
    rewrite(clip, lambda t: (t.pop("logit_scale"), t.pop("text_projection.weight")))
    checkpoint = load_checkpoint(str(clip), text=False)
    assert (checkpoint.text, checkpoint.logits) == (None, None)


def test_a_text_fingerprint_names_weights_dtype_and_preprocessing_and_leaves_that_of_images(siglip: Path) -> None:
    def fingerprints(dtype: Any = "float32") -> tuple[str, str, str]:
        runner = Runner(load_checkpoint(str(siglip)), dtype=dtype)
        assert runner.texts
        return runner.fingerprint(), runner.texts.fingerprint("a"), runner.texts.fingerprint("b")

    image, text, other = fingerprints()
    assert text != other
    assert fingerprints() == (image, text, other)
    assert fingerprints("bfloat16") == tuple(each.replace("-float32", "-bfloat16") for each in (image, text, other))
    rewrite(siglip, lambda t: t["text_model.head.bias"].add_(1e-3))
    changed = fingerprints()
    assert changed[0] == image
    assert not {*changed[1:]} & {text, other}
