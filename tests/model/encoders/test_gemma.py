"""EmbeddingGemma 2: Transformers' numbers for images, texts and documents of both, and the same bits in any pack."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import EmbeddingGemma2Config
from transformers.models.gemma4.image_processing_pil_gemma4 import (
    Gemma4ImageProcessorPil,
    get_aspect_ratio_preserving_size,
)

from model.checkpoint.load import load_checkpoint
from model.encoders.parts.soft_tokens import SOFT_TOKENS
from model.errors import BudgetError, CheckpointError
from model.images.patches import patch_rows
from model.pack import PackedDocuments, pack_texts
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from tests.gemma import PUBLISHED, SMALL, random_documents, save_model, vectors
from tests.reference import random_pack

GRIDS = [(3, 3), (6, 9), (27, 24), (3, 30)]
# Texts shorter and longer than a window, images alone, and both in any order.
PARTS: list[list[int | tuple[int, int]]] = [
    [1], [30], [(6, 9)], [4, (3, 3)], [(12, 9), 3, (3, 6), 20], [(3, 3), (3, 3)], [7], [7], [60, (15, 12), 1],
]  # fmt: skip
GEOMETRY = Geometry.for_pooling(16, 3, budgets=tuple(9 * count for count in SOFT_TOKENS))


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("gemma")
    return folder, save_model(folder)


def assert_close(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())


def check_parity(folder: Path, model: Any) -> None:
    runner = Runner(load_checkpoint(str(folder)), dtype="float32")
    documents = random_documents(model, PARTS)
    assert_close(runner.run_documents(documents).pooled, vectors(model, documents)[0])
    images = random_documents(model, [[grid] for grid in GRIDS])
    assert images.pictures is not None
    output = runner.run(images.pictures, tokens=True)
    pooled, soft = vectors(model, images)
    assert_close(output.pooled, pooled)
    assert_close(output.tokens, soft)
    texts = random_documents(model, [[5], [40]])
    assert_close(
        runner.run_texts(pack_texts(np.split(texts.ids, texts.cu_seqlens[1:-1]))).pooled, vectors(model, texts)[0]
    )
    halves = Runner(load_checkpoint(str(folder)), dtype="bfloat16").run_documents(documents).pooled
    whole = runner.run_documents(documents).pooled
    lengths = np.linalg.norm(halves, axis=1) * np.linalg.norm(whole, axis=1)
    assert ((halves * whole).sum(1) / lengths).min() > 0.999


def test_float32_equals_transformers_and_bfloat16_stays_close(small: tuple[Path, Any]) -> None:
    check_parity(*small)


def test_clipped_linear_layers_equal_transformers(tmp_path: Path) -> None:
    """Bounds that most values are beyond, each layer with its own; one layer has none. Heads do not add up to the
    width."""
    shapes = SMALL | {"vision": SMALL["vision"] | {"use_clipped_linears": True, "head_dim": 20}}
    model = save_model(tmp_path, shapes)
    images = random_documents(model, [[grid] for grid in GRIDS])
    assert images.pictures is not None
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint.config.head_width == 20
    assert_close(Runner(checkpoint, dtype="float32").run(images.pictures).pooled, vectors(model, images)[0])
    bounds = [buffer for name, buffer in model.named_buffers() if name.endswith("put_max") and "vision" in name]
    assert len({float(bound) for bound in bounds if torch.isfinite(bound)}) > 10


@pytest.mark.slow
def test_the_published_shape_equals_transformers(tmp_path: Path) -> None:
    check_parity(tmp_path, save_model(tmp_path, PUBLISHED))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_document_has_the_same_bits_alone_and_in_any_pack(small: tuple[Path, Any], dtype: DtypeName) -> None:
    folder, model = small
    runner = Runner(load_checkpoint(str(folder)), dtype=dtype)
    documents = random_documents(model, PARTS)
    torch.set_num_threads(2)
    alone = [runner.run_documents(documents.part(np.array([i]))).pooled[0] for i in range(len(PARTS))]
    random = np.random.default_rng(1)
    for threads in (1, 2, 3, 7, 1, 2, 3, 7):
        torch.set_num_threads(threads)
        chosen = random.permutation([*random.integers(0, len(PARTS), random.integers(1, 9))])
        together = runner.run_documents(documents.part(chosen)).pooled
        assert np.array_equal(together, np.stack([alone[i] for i in chosen])), threads


def test_an_image_alone_is_a_document_of_one(small: tuple[Path, Any]) -> None:
    folder, model = small
    runner = Runner(load_checkpoint(str(folder)), dtype="float32")
    images = random_documents(model, [[grid] for grid in GRIDS])
    assert images.pictures is not None
    assert np.array_equal(runner.run(images.pictures).pooled, runner.run_documents(images).pooled)


def test_a_change_in_one_document_moves_no_other(small: tuple[Path, Any]) -> None:
    folder, model = small
    runner = Runner(load_checkpoint(str(folder)), dtype="float32")
    before, after = (random_documents(model, PARTS) for _ in range(2))
    assert after.pictures is not None
    after.pictures.rows[:] = 255 - after.pictures.rows
    changed = np.any(runner.run_documents(before).pooled != runner.run_documents(after).pooled, axis=1)
    assert changed.tolist() == [any(isinstance(part, tuple) for part in own) for own in PARTS]


def sizes(count: int) -> Iterator[tuple[int, int, int]]:
    random = np.random.default_rng(0)
    for height, width in np.exp(random.uniform(0, np.log(20_000), (count, 2))).astype(int).tolist():
        yield height, width, SOFT_TOKENS[random.integers(5)]
    yield from ((1, 70 * side, 70) for side in (1, 2, 3))
    yield from ((1, 100_000, 70), (100_000, 1, 1120), (48, 48, 280))


def test_sizes_are_those_of_the_processor_to_the_pixel() -> None:
    """Neither of its two refusals is ever reached."""
    for height, width, soft in sizes(5_000):
        expected = get_aspect_ratio_preserving_size(height, width, 16, soft * 9, 3)
        plan = plan_image((height, width), geometry=GEOMETRY, budget=Budget.of_tokens(soft * 9, 16), strategy="naflex")
        assert plan.resized == expected
        assert plan.tokens <= plan.token_cap == soft * 9


def test_a_cap_is_lowered_to_a_budget_of_the_model_and_one_below_all_is_refused() -> None:
    def plan(cap: int) -> int:
        return plan_image((500, 500), geometry=GEOMETRY, budget=Budget.of_tokens(cap, 16), strategy="naflex").token_cap

    assert [plan(cap) for cap in (630, 1259, 1260, 4096, 99_999)] == [630, 630, 1260, 2520, 10_080]
    with pytest.raises(BudgetError, match="takes an image at 630 tokens or more; the cap is 629"):
        plan(629)


@pytest.mark.parametrize("size", [(31, 45), (48, 48), (200, 90), (1, 300), (913, 641)])
def test_patch_rows_are_those_of_the_pillow_processor(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = Gemma4ImageProcessorPil(max_soft_tokens=70, do_rescale=False)
    expected = processor(Image.fromarray(pixels), return_tensors="np")
    plan = plan_image(size, geometry=GEOMETRY, budget=Budget.of_tokens(630, 16), strategy="naflex")
    rows = patch_rows(Image.fromarray(pixels), plan, GEOMETRY)
    assert int(expected["num_soft_tokens_per_image"][0]) == len(rows) // 9
    assert np.array_equal(rows, expected["pixel_values"][0][: len(rows)])


def edit(folder: Path, target: Path, change: Any) -> None:
    """The checkpoint with a changed config.json."""
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["text_config"].update(hidden_activation="silu"), "hidden_activation is 'silu'"),
        (lambda c: c["vision_config"].update(use_clipped_linears=True), "the weights lack .*input_m"),
        (lambda c: c.update(vision_config=None), "vision_config is None; a text encoder alone is not served"),
        (
            lambda c: c["text_config"]["rope_parameters"]["full_attention"].update(rope_type="yarn"),
            "rope_type is 'yarn'",
        ),
        (lambda c: c["vision_config"].update(num_key_value_heads=2), "it does not divide num_attention_heads, 3"),
        (lambda c: c["vision_config"].update(position_embedding_size=64), "an image may be 3360 patches long"),
        (lambda c: c["vision_config"].update(num_hidden_layers=1), "which config.json does not account for"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    small: tuple[Path, Any], tmp_path: Path, change: Any, message: str
) -> None:
    edit(small[0], tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_files_of_older_versions_call_the_rotation_of_the_vision_tower_the_default(
    small: tuple[Path, Any], tmp_path: Path
) -> None:
    edit(small[0], tmp_path, lambda c: c["vision_config"].update(rope_parameters={"rope_type": "default"}))
    assert EmbeddingGemma2Config.from_pretrained(tmp_path).vision_config.rope_parameters["rope_theta"] == 100.0
    assert load_checkpoint(str(tmp_path)).config == load_checkpoint(str(small[0])).config


def test_an_audio_tower_is_not_read_and_changes_nothing(small: tuple[Path, Any], tmp_path: Path) -> None:
    edit(small[0], tmp_path, lambda c: c.update(audio_config={"model_type": "gemma4_audio"}))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors |= {
        "audio_tower.output_proj.weight": torch.ones(2, 2),
        "embed_audio.embedding_projection.weight": torch.ones(2),
    }
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert load_checkpoint(str(tmp_path)).digest == load_checkpoint(str(small[0])).digest


def test_its_vectors_may_be_cut_to_what_the_file_lists_or_anywhere(small: tuple[Path, Any], tmp_path: Path) -> None:
    assert load_checkpoint(str(small[0])).matryoshka_dimensions == ()
    edit(small[0], tmp_path, lambda c: c.update(matryoshka_dimensions=[32, 8]))
    assert load_checkpoint(str(tmp_path)).matryoshka_dimensions == (8, 32)


def test_a_feature_layer_is_refused(small: tuple[Path, Any]) -> None:
    with pytest.raises(CheckpointError, match="feature_layer is set"):
        Runner(load_checkpoint(str(small[0])), feature_layer=-2)


def test_a_part_of_a_pack_of_documents_is_those_documents(small: tuple[Path, Any]) -> None:
    documents = random_documents(small[1], PARTS)
    part = documents.part(np.array([4, 0, 4]))
    assert part.cu_pictures.tolist() == [0, 2, 2, 4]
    assert part.pictures is not None
    assert part.pictures.grids == ((12, 9), (3, 6)) * 2
    assert isinstance(documents.part(np.array([0, 1])), PackedDocuments)
    assert documents.part(np.array([0, 1])).pictures is None
    assert documents.tokens == documents.lengths.sum() - int((documents.ids < 0).sum())
    assert random_pack([(3, 3)]).lengths.tolist() == [9]
