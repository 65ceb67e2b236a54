"""DINOv2 and DINOv3: Transformers' numbers, its processor's patch rows, and the same bits in any pack."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2ForImageClassification
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from model.checkpoint.load import Checkpoint, load_checkpoint
from model.encoders.families import find_family
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tower import EncoderConfig
from model.errors import BudgetError, CheckpointError
from model.images.patches import patch_rows, picture_of
from model.pack import pack
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Strategy
from model.sizing.plan import ImagePlan, plan_image
from tests import pictures
from tests.dino import PUBLISHED, SMALL, dino_outputs, save_dino
from tests.examples import many
from tests.model.encoders.invariance import DTYPES, assert_same_bits_in_any_pack
from tests.model.encoders.test_parity import assert_equals, assert_within_promise, cosine
from tests.reference import random_pack

MIXED = [(1, 1), (14, 18), (1, 2), (7, 7), (5, 23), (1, 64), (3, 1), (40, 1), (37, 37)]
IN_PACKS = [(1, 1), (1, 2), (3, 1), (2, 8), (1, 17), (7, 9), (8, 16), (14, 18)]
BIT = {"size": {"shortest_edge": 256}, "image_mean": IMAGENET_DEFAULT_MEAN, "image_std": IMAGENET_DEFAULT_STD}
OF_V3 = {
    "image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 224, "width": 224}, "resample": 2,
    "image_mean": IMAGENET_DEFAULT_MEAN, "image_std": IMAGENET_DEFAULT_STD, "do_resize": True, "do_rescale": True,
    "do_normalize": True, "rescale_factor": 1 / 255, "do_center_crop": None, "crop_size": None,
}  # fmt: skip


def pooled_by(checkpoint: Checkpoint, pooling: Any) -> Checkpoint:
    return replace(checkpoint, config=checkpoint.config.pooled_by(pooling))


@pytest.mark.parametrize(("model_type", "shape"), [pytest.param(*SMALL[name], id=name) for name in SMALL])
def test_float32_equals_transformers_and_bfloat16_stays_close(
    tmp_path: Path, model_type: str, shape: dict[str, Any]
) -> None:
    assert_dino_equals(tmp_path, save_dino(tmp_path, model_type, shape), MIXED, averaged=len(MIXED))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_widths_equal_transformers_with_the_same_bits_in_any_pack(tmp_path: Path, name: str) -> None:
    """A row costs a hundred times as much: the longest image, of a table's own grid, is left out. Means of a few
    images are enough, since all tokens are compared. The widest of both generations are packed."""
    model = save_dino(tmp_path, *PUBLISHED[name])
    assert_dino_equals(tmp_path, model, [*MIXED[:-1], (28, 28)], averaged=5)
    if pooling := {"v2-registers-giant": "cls", "v3-huge-plus": "mean"}.get(name):
        checkpoint = pooled_by(load_checkpoint(str(tmp_path)), pooling)
        images = [random_pack([grid], seed=i, patch_size=model.config.patch_size) for i, grid in enumerate(IN_PACKS)]
        for dtype in DTYPES:
            assert_same_bits_in_any_pack(Runner(checkpoint, dtype=dtype), images, packs=11)


def assert_dino_equals(folder: Path, model: Any, grids: list[tuple[int, int]], *, averaged: int) -> None:
    """Both poolings: the mean of the first `averaged` images."""
    batch = random_pack(grids, patch_size=model.config.patch_size)
    pooled, tokens = dino_outputs(model, batch)
    assert_equals(folder, batch, pooled, tokens, least_cosines=(0.9997, 0.9995))
    mean = Runner(pooled_by(load_checkpoint(str(folder)), "mean"), dtype="float32")
    means = [part.mean(0, dtype=np.float64) for part in np.split(tokens, batch.cu_seqlens[1:-1])]
    found = mean.run(batch.part(np.arange(averaged))).pooled
    assert_within_promise(found, np.stack(means)[:averaged].astype(np.float32))


@pytest.mark.parametrize("name", ["v2-registers", "v3"])
@pytest.mark.parametrize("feature_layer", [-2, -1, 0])
def test_tokens_of_a_layer_are_the_hidden_states_of_transformers(tmp_path: Path, name: str, feature_layer: int) -> None:
    model = save_dino(tmp_path, *SMALL[name])
    batch = random_pack([(5, 7), (2, 3)], patch_size=model.config.patch_size)
    pooled, tokens = dino_outputs(model, batch, feature_layer=feature_layer)
    output = Runner(load_checkpoint(str(tmp_path)), dtype="float32", feature_layer=feature_layer).run(
        batch, tokens=True
    )
    assert output.tokens is not None
    assert_within_promise(output.tokens, tokens)
    assert_within_promise(output.pooled, pooled)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("model_type", "shape", "pooling"),
    [
        pytest.param(*SMALL["v2-registers"], "cls", id="v2"),
        pytest.param(*SMALL["v3-gated"], "mean", id="v3"),
    ],
)
def test_an_image_has_the_same_bits_alone_and_in_any_pack(
    tmp_path: Path, model_type: str, shape: dict[str, Any], pooling: str, dtype: DtypeName
) -> None:
    model = save_dino(tmp_path, model_type, shape)
    runner = Runner(pooled_by(load_checkpoint(str(tmp_path)), pooling), dtype=dtype)
    images = [random_pack([grid], seed=i, patch_size=model.config.patch_size) for i, grid in enumerate(IN_PACKS)]
    assert_same_bits_in_any_pack(runner, images, packs=32)


def test_a_picture_and_its_enlargement_are_turned_alike_at_their_edges(tmp_path: Path) -> None:
    """DINOv3 sees where a patch lies in its picture, not how many patches there are."""
    save_dino(tmp_path, *SMALL["v3"])
    checkpoint = load_checkpoint(str(tmp_path))
    rotary = checkpoint.config.positions(checkpoint.tensors, torch.device("cpu")).rotary  # type: ignore[attr-defined]
    small, large = rotary.for_grid((3, 5)).view(3, 5, -1), rotary.for_grid((9, 15)).view(9, 15, -1)
    assert torch.allclose(small, large[1::3, 1::3], atol=1e-5)


def test_pooling_is_part_of_the_fingerprint_and_refused_where_a_model_leaves_no_choice(tmp_path: Path) -> None:
    save_dino(tmp_path, *SMALL["v3"])
    checkpoint = load_checkpoint(str(tmp_path))
    plain, cls, mean = (
        Runner(each, dtype="float32").fingerprint()
        for each in (checkpoint, pooled_by(checkpoint, "cls"), pooled_by(checkpoint, "mean"))
    )
    assert plain == cls != mean
    assert checkpoint.config.chosen_pooling == "cls"
    tiny = load_checkpoint("packlight-tiny")
    assert tiny.config.chosen_pooling is None
    with pytest.raises(CheckpointError, match="pooling is cls; this model leaves no choice"):
        pooled_by(tiny, "cls")


def configured(name: str, **changes: Any) -> EncoderConfig:
    model_type, shape = SMALL[name]
    fields = Fields(Path("config.json"), {"model_type": model_type} | shape | changes)
    return find_family(fields).read_config(fields, ())


def prepared(name: str, content: dict[str, Any]) -> Preprocessing:
    return configured(name).preprocessing(Fields(Path("preprocessor_config.json"), content))


def bit_content(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(BitImageProcessorPil(**BIT).to_json_string())
    return content | changes


@pytest.mark.parametrize("suffix", ["", "Fast", "Pil"])
def test_every_name_of_a_processor_is_read_and_without_a_file_it_is_the_published_one(suffix: str) -> None:
    cropped = FixedInput(224, "shortest_edge", 256, "bicubic")
    squashed = FixedInput(224, "squash", 224, "bilinear")
    for name, content, own, cap in (
        ("v2", bit_content(image_processor_type=f"BitImageProcessor{suffix}"), cropped, 256),
        ("v3", OF_V3 | {"image_processor_type": f"DINOv3ViTImageProcessor{suffix}"}, squashed, 196),
    ):
        read = prepared(name, content)
        assert read == prepared(name, {})
        assert (read.geometry.own_square, read.default_max_tokens) == (own, cap)
        assert (read.mean, read.std) == (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))
        assert read.geometry.strategies == ("naflex", "native", "square")
        assert read.geometry.resample == own.resample


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("v2", OF_V3, "image_processor_type"),
        ("v3", OF_V3 | {"image_processor_type": "SiglipImageProcessor"}, "image_processor_type"),
        ("v2", bit_content(do_center_crop=False), "do_center_crop"),
        ("v2", bit_content(crop_size={"height": 224, "width": 336}), "crop_size"),
        ("v2", bit_content(crop_size=13), "crop_size"),
        ("v2", bit_content(image_mean=None), "image_mean"),
        ("v3", OF_V3 | {"resample": None}, "resample"),
        ("v3", OF_V3 | {"size": {"height": 224, "width": 448}}, "size"),
        ("v3", OF_V3 | {"size": 15}, "size"),
        ("v3", OF_V3 | {"do_rescale": False}, "do_rescale"),
    ],
)
def test_pictures_that_would_be_prepared_in_another_manner_are_refused(
    name: str, content: dict[str, Any], key: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {key} is"):
        prepared(name, content)


def planned(
    preprocessing: Preprocessing, size: tuple[int, int], strategy: Strategy, cap: int | None = None
) -> ImagePlan:
    geometry = preprocessing.geometry
    budget = Budget.of_tokens(cap or preprocessing.default_max_tokens, geometry.patch_size)
    return plan_image(size, geometry=geometry, budget=budget, strategy=strategy)


@many(40)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 2]), st.integers(0, 2**32 - 1))
def test_square_is_what_the_processor_of_dinov2_makes_at_any_scale(
    height: int, width: int, scale: int, seed: int
) -> None:
    """To the bit, before rescaling and normalising."""
    assume(max(height, width) <= 8 * min(height, width))
    image = Image.fromarray(pictures.noise(height, width, seed=seed))
    sides = {"size": {"shortest_edge": 256 * scale}, "crop_size": {"height": 224 * scale, "width": 224 * scale}}
    theirs = BitImageProcessorPil(**sides, do_rescale=False, do_normalize=False)(image, return_tensors="np")
    preprocessing = prepared("v2", {})
    plan = planned(preprocessing, (height, width), "square", 256 * scale**2)
    ours = picture_of(patch_rows(image, plan, preprocessing.geometry), plan, preprocessing.geometry)
    assert np.array_equal(np.asarray(ours).transpose(2, 0, 1), theirs["pixel_values"][0])


@pytest.mark.parametrize("size", [(480, 640), (33, 90), (300, 224)])
def test_other_sizes_are_pillows_resize_by_the_filter_of_the_processor(size: tuple[int, int]) -> None:
    image = pictures.picture(*size)
    for name, resample in (("v2", Image.Resampling.BICUBIC), ("v3", Image.Resampling.BILINEAR)):
        preprocessing = prepared(name, {})
        for strategy in ("naflex", "native", *(["square"] if name == "v3" else [])):
            plan = planned(preprocessing, size, strategy)  # type: ignore[arg-type]
            ours = picture_of(patch_rows(image, plan, preprocessing.geometry), plan, preprocessing.geometry)
            assert np.array_equal(np.asarray(ours), np.asarray(image.resize(plan.resized[::-1], resample)))
            assert strategy != "square" or plan.resized == (224, 224)


def test_a_square_keeps_the_strips_that_fill_no_patch_at_its_own_size_only() -> None:
    """As the convolution drops them. Other sizes are whole patches, cut in the same proportion."""
    sides = {"size": {"shortest_edge": 592}, "crop_size": {"height": 518, "width": 518}}
    preprocessing = configured("v2-gated").preprocessing(Fields(Path("preprocessor_config.json"), bit_content(**sides)))
    assert preprocessing.default_max_tokens == 32 * 32
    own, half = (planned(preprocessing, (600, 900), "square", cap) for cap in (1024, 256))
    assert (own.resized, own.segments[0].grid) == ((518, 518), (32, 32))
    assert (half.resized, half.segments[0].grid) == ((256, 256), (16, 16))
    square = preprocessing.geometry.square_input(256)
    assert square == FixedInput(256, "shortest_edge", 293, "bicubic")
    with pytest.raises(BudgetError, match="longer than 200 times the other"):
        planned(preprocessing, (1, 201), "square")


@pytest.mark.slow
def test_rounding_resized_values_to_whole_numbers_hardly_moves_a_vector(tmp_path: Path) -> None:
    """DINOv3's own processor resizes numbers from 0 to 1 and rounds none; our patch rows are whole numbers."""
    model = save_dino(tmp_path, *PUBLISHED["v3-base"])
    checkpoint = load_checkpoint(str(tmp_path))
    geometry = checkpoint.preprocessing.geometry
    runner = Runner(checkpoint, dtype="float32")
    cosines = []
    for name in pictures.PHOTOGRAPHS:
        image = Image.open(BytesIO(pictures.photograph_file(name))).convert("RGB")
        plan = planned(checkpoint.preprocessing, image.size[::-1], "square")
        ours = runner.run(pack([patch_rows(image, plan, geometry)], [plan.segments[0].grid]), tokens=True)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0) / 255
        values = F.interpolate(values, size=plan.resized, mode="bilinear", antialias=True)
        shift, scale = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        with torch.no_grad():
            theirs = model((values - shift) / scale)
        assert ours.tokens is not None
        tokens = theirs.last_hidden_state[0, 5:].numpy()
        cosines.append((cosine(ours.pooled, theirs.pooler_output.numpy()).min(), cosine(ours.tokens, tokens).min()))
    print(*zip(pictures.PHOTOGRAPHS, cosines, strict=True), sep="\n")  # noqa: T201
    assert np.min(cosines, axis=0)[0] >= 0.9999
    assert np.min(cosines, axis=0)[1] >= 0.999


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_every_spelling_of_the_keys_gives_the_same_weights(tmp_path: Path, name: str) -> None:
    """A tower in another program's wrapper, and beside what it does not need."""
    save_dino(tmp_path, *SMALL[name])
    checkpoint, path = load_checkpoint(str(tmp_path)), tmp_path / "model.safetensors"
    assert not [tensor for tensor in checkpoint.tensors if "mask" in tensor]
    tensors = load_file(path)
    save_file({f"module.{key}": tensor for key, tensor in tensors.items()} | {"head.weight": torch.ones(1)}, path)
    assert load_checkpoint(str(tmp_path)).digest == checkpoint.digest


def test_a_classifier_is_read_as_the_model_under_it(tmp_path: Path) -> None:
    model = Dinov2ForImageClassification(Dinov2Config(**SMALL["v2"][1], num_labels=3))
    model.save_pretrained(tmp_path / "classifier")
    model.dinov2.save_pretrained(tmp_path / "model")
    assert load_checkpoint(str(tmp_path / "classifier")).digest == load_checkpoint(str(tmp_path / "model")).digest


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("v3", {"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of"),
        ("v3-gated", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; a gated MLP takes"),
        ("v3", {"use_gated_mlp": "yes"}, "use_gated_mlp is 'yes'; it is true or false"),
        ("v3", {"key_bias": None}, "key_bias is None; it is true or false"),
        ("v3", {"num_attention_heads": 16}, "num_attention_heads is 16; the width, 96, is not a multiple of 4"),
        ("v3", {"num_attention_heads": 7}, "hidden_size is 96; it is not a multiple of num_attention_heads, 7"),
        ("v3", {"num_channels": 1}, "num_channels is 1; only 3"),
        ("v3", {"patch_size": [16, 8]}, r"patch_size is \[16, 8\]; it is a positive whole number"),
        ("v3", {"rope_theta": None}, "rope_theta is None; it is a positive number"),
        ("v3", {"num_register_tokens": -1}, "num_register_tokens is -1; it is a positive whole number"),
        ("v3", {"pos_embed_rope_normalize_coords": "max"}, "pos_embed_rope_normalize_coords is 'max'; only 'separate'"),
        ("v2", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("v2", {"num_channels": 4}, "num_channels is 4; only 3"),
        ("v2", {"mlp_ratio": 0}, "mlp_ratio is 0; it is a positive number"),
        ("v2", {"image_size": 13}, "image_size is 13; it holds no patch of 14 pixels a side"),
        ("v2", {"head_dim": 64}, "head_dim is 64; only 48"),
        ("v2-registers", {"num_register_tokens": 0}, "num_register_tokens is 0; it is a positive whole number"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_key(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        configured(name, **changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "v3",
            {"num_register_tokens": 2},
            r"register_tokens has shape \(1, 4, 96\); config.json asks for \(1, 2, 96\)",
        ),
        ("v3", {"key_bias": True}, r"lack layer\.0\.attention\.k_proj\.bias"),
        (
            "v3",
            {"proj_bias": False},
            r"hold layer\.0\.attention\.o_proj\.bias, .*config.json does not account",
        ),
        ("v3", {"use_gated_mlp": True}, r"lack layer\.0\.mlp\.gate_proj\.bias"),
        ("v2", {"model_type": "dinov2_with_registers"}, r"lack embeddings\.register_tokens"),
        (
            "v2",
            {"image_size": 224},
            r"position_embeddings has shape \(1, 1370, 96\); config.json asks for \(1, 257, 96\)",
        ),
        ("v2", {"use_swiglu_ffn": True}, r"lack encoder\.layer\.0\.mlp\.weights_in\.bias"),
    ],
)
def test_weights_that_are_not_those_of_the_config_are_refused_by_name(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    save_dino(tmp_path, *SMALL[name])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_a_long_picture_is_not_resized_to_gigabytes_before_a_large_square_is_cut(tmp_path: Path) -> None:
    """At 4,096 tokens a strip of 1 × 200 pixels would become 1,024 × 204,800."""
    save_dino(tmp_path, *SMALL["v2-registers"])
    geometry = load_checkpoint(str(tmp_path)).preprocessing.geometry
    for cap in (256, 4096):
        plan_image((30, 50), geometry=geometry, budget=Budget.of_tokens(cap, 14), strategy="square")
    plan_image((1, 200), geometry=geometry, budget=Budget.of_tokens(256, 14), strategy="square")
    with pytest.raises(BudgetError, match="an image of 1×200 pixels is too long for a square of 896 pixels a side"):
        plan_image((1, 200), geometry=geometry, budget=Budget.of_tokens(4096, 14), strategy="square")
