"""The packed text towers give the numbers of Transformers' own models on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPTextConfig, Siglip2TextConfig, SiglipTextConfig

from model.checkpoint.load import load_checkpoint, load_text
from model.encoders.clip import text as clip_text
from model.encoders.siglip import text as siglip_text
from model.pack import pack_texts
from model.running.runner import Runner
from model.running.texts import TextRunner
from tests.model.encoders.test_parity import assert_within_promise, cosine
from tests.reference import (
    BASE_WIDTHS,
    END_ID,
    SMALL,
    fixed_model,
    random_pack,
    random_texts,
    reference_logits,
    text_outputs,
    text_tower,
    whole_model,
)

CPU = torch.device("cpu")
VOCABULARY = 120
SIGLIP = SMALL | {"vocab_size": VOCABULARY, "max_position_embeddings": 20}
CLIP = SMALL | {"vocab_size": VOCABULARY, "eos_token_id": END_ID}
LENGTHS = [5, 20, 2, 7, 7, 13, 1, 5, 19]


def text_runner(folder: Path, dtype: str = "float32") -> TextRunner:
    return TextRunner(load_text(str(folder)), device=CPU, dtype=getattr(torch, dtype))


@pytest.mark.parametrize(
    ("model_type", "shape"),
    [
        pytest.param("siglip_text_model", SIGLIP | {"projection_size": 72}, id="siglip"),
        pytest.param("siglip2_text_model", SIGLIP, id="siglip2"),
        pytest.param(
            "siglip2_text_model",
            BASE_WIDTHS | {"vocab_size": 5000, "max_position_embeddings": 64},
            id="siglip2-base",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_siglip_text_tower_equals_transformers_over_all_positions(
    tmp_path: Path, model_type: str, shape: dict[str, Any]
) -> None:
    tower = text_tower(model_type, shape)
    tower.save_pretrained(tmp_path)
    texts = random_texts(LENGTHS, context=shape["max_position_embeddings"])
    expected = text_outputs(tower, texts)
    float32 = text_runner(tmp_path).run(texts).pooled
    assert_within_promise(float32, expected)
    assert cosine(text_runner(tmp_path, "bfloat16").run(texts).pooled, float32).min() >= 0.9999


@pytest.mark.parametrize(
    ("model_type", "shape"),
    [
        pytest.param("clip_text_model", CLIP, id="no-projection"),
        pytest.param("clip_text_model+", CLIP | {"projection_dim": 40}, id="projection"),
        pytest.param("clip_text_model+", CLIP | {"eos_token_id": 2}, id="old-rule"),
        pytest.param("clip_text_model", CLIP | {"hidden_act": "gelu"}, id="gelu"),
        pytest.param(
            "clip_text_model+",
            {"vocab_size": 5000, "eos_token_id": END_ID},
            id="base",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_clip_text_tower_equals_transformers_with_and_without_its_padding(
    tmp_path: Path, model_type: str, shape: dict[str, Any]
) -> None:
    tower = text_tower(model_type, shape)
    tower.save_pretrained(tmp_path)
    texts = random_texts([*LENGTHS, 77])
    padded = pack_texts([np.pad(ids, (0, 77 - len(ids))) for ids in texts.texts()])
    expected = text_outputs(tower, padded)
    assert_within_promise(text_outputs(tower, texts), expected)

    runner = text_runner(tmp_path)
    found = runner.run(texts)
    assert_within_promise(found.pooled, expected)
    of_padded = runner.run(padded)
    assert np.array_equal(of_padded.pooled, found.pooled)
    assert of_padded.computed_tokens == found.computed_tokens < 77 * 4
    assert cosine(text_runner(tmp_path, "bfloat16").run(texts).pooled, found.pooled).min() >= 0.9999


@pytest.mark.parametrize(
    ("eos_token_id", "ids"),
    [
        (END_ID, [5, END_ID, 7, 119, END_ID, 3]),  # the first of its id
        (2, [5, 90, 7, 119, 2, 119]),  # the first of the highest id
        (END_ID, [5, 6, 7, 119]),  # none: the first token
    ],
)
def test_the_end_token_is_found_as_transformers_finds_it(tmp_path: Path, eos_token_id: int, ids: list[int]) -> None:
    tower = text_tower("clip_text_model", CLIP | {"eos_token_id": eos_token_id})
    tower.save_pretrained(tmp_path)
    texts = pack_texts([np.array(ids, dtype=np.int32)])
    assert_within_promise(text_runner(tmp_path).run(texts).pooled, text_outputs(tower, texts))


def test_a_text_of_another_length_than_siglip_takes_is_not_run(tmp_path: Path) -> None:
    text_tower("siglip_text_model", SIGLIP).save_pretrained(tmp_path)
    for context in (19, 21):
        with pytest.raises(AssertionError, match="this model takes 20"):
            text_runner(tmp_path).run(random_texts([3], context=context))


@pytest.mark.parametrize("model_type", ["siglip", "siglip2", "clip"])
def test_logits_of_our_vectors_are_those_of_the_whole_model(tmp_path: Path, model_type: str) -> None:
    fixed = SMALL | {"image_size": 64, "patch_size": 16}
    if model_type == "clip":
        model, texts = fixed_model(model_type, fixed), random_texts([4, 9, 4])
    else:
        model = whole_model(model_type, SMALL if model_type == "siglip2" else fixed, SIGLIP)
        texts = random_texts([4, 9, 4], context=20)
    model.save_pretrained(tmp_path)
    checkpoint, batch = load_checkpoint(str(tmp_path)), random_pack([(4, 4)] * 3)
    runner = Runner(checkpoint, dtype="float32")
    images, words = (_unit(found.pooled) for found in (runner.run(batch), runner.run_texts(texts)))
    assert checkpoint.logits
    assert (checkpoint.logits.bias is None) == (model_type == "clip")
    found = checkpoint.logits.scale * images @ words.T + (checkpoint.logits.bias or 0.0)
    expected = reference_logits(model, batch, texts)
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def test_text_keys_that_a_config_omits_have_the_defaults_of_transformers() -> None:
    for config, ours in (
        (Siglip2TextConfig(), siglip_text.DEFAULTS),
        (SiglipTextConfig(), siglip_text.DEFAULTS),
        (CLIPTextConfig(), clip_text.DEFAULTS),
    ):
        theirs = config.to_dict()
        assert {key: theirs[key] for key in ours} == ours


def test_the_longest_text_of_a_config_takes_all_its_positions(tmp_path: Path) -> None:
    """A warm-up runs it, and must not stop at an end token."""
    for name, shape in (
        ("siglip_text_model", SIGLIP),
        ("clip_text_model", CLIP),
        ("clip_text_model", CLIP | {"eos_token_id": 2}),
    ):
        text_tower(name, shape).save_pretrained(tmp_path)
        config = load_text(str(tmp_path)).config
        assert config.used(pack_texts([config.longest()])).tolist() == [config.context]
        text_runner(tmp_path).warm_up(200)
