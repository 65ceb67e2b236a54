"""EmbeddingGemma 2, images and texts mixed, beside Transformers' model, which pads both.

For each image of a pack there is a text, of 8 to 400 ids where images differ in size, of 32 where they do not.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

from loadtest.bench.forwards.rounds import Forward
from model.checkpoint.load import load_checkpoint
from model.pack import SOFT_TOKEN, PackedBatch, pack_documents
from model.running.runner import Runner

SHAPE, LAYERS, PATCH, MULTIPLE = "embeddinggemma-2", 16, 16, 3

# Layers of the text encoder for each of the vision tower.
_TEXT_LAYERS = 1.5
# A small vocabulary: looking ids up costs the same in a large one.
_START, _END, _IMAGE_START, _IMAGE_END, _IMAGE, _VOCABULARY = 2, 1, 4, 5, 6, 4_096
_TEXT_IDS = (8, 24, 96, 400, 12, 48, 200, 16)
_UNIFORM_TEXT_IDS = 32


def save(folder: Path, layers: int) -> None:
    text = {"num_hidden_layers": round(layers * _TEXT_LAYERS), "vocab_size": _VOCABULARY}
    vision = {"model_type": "gemma4_vision", "num_hidden_layers": layers}
    ids = {"image_token_id": _IMAGE, "boi_token_id": _IMAGE_START, "eoi_token_id": _IMAGE_END}
    config = EmbeddingGemma2Config(text_config=text, vision_config=vision, dtype="float32", **ids)
    model = EmbeddingGemma2Model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("q_norm.weight"):
                # Scores of unit size, as trained weights have. Otherwise softmax takes one key alone, and rounding
                # decides which.
                parameter.mul_(len(parameter) ** -0.5)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "add_eos_token": True}))


def ours(folder: Path, dtype: str, batch: PackedBatch) -> Forward:
    """From uint8 patch rows and ids to vectors on the host: images, then texts."""
    runner = Runner(load_checkpoint(str(folder)), dtype=dtype)  # type: ignore[arg-type]
    images, texts = list(_images(batch)), _texts(batch)
    ids = [each.ids for each in images] + texts
    documents = pack_documents(ids, [batch.rows], [*([grid] for grid in batch.grids), *([()] * len(texts))])
    return lambda: runner.run_documents(documents).pooled


def padded(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    """A call for all images and one for all texts, each padded to its longest. One call for both would pad more."""
    model = _model(folder, dtype)
    images, texts = _padded_images(list(_images(batch)), dtype), _padded_ids(_texts(batch))

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        return np.concatenate([_means(model, images), _means(model, texts)])

    return forward


def one_by_one(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model = _model(folder, dtype)
    calls = [_padded_images([image], dtype) for image in _images(batch)]
    calls += [_padded_ids([text]) for text in _texts(batch)]

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        return np.concatenate([_means(model, call) for call in calls])

    return forward


REFERENCES = {"padded": padded, "one_by_one": one_by_one}


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """values: from 0 to 1, `[n, 3*P*P]`. places: (x, y) of each patch. ids: of its row."""

    values: Tensor
    places: Tensor
    ids: NDArray[np.int32]


def _images(batch: PackedBatch) -> Iterator[_Image]:
    for (start, end), grid in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
        rows, columns = np.indices(grid).reshape(2, -1)
        soft = [SOFT_TOKEN] * (grid[0] * grid[1] // MULTIPLE**2)
        yield _Image(
            torch.from_numpy(batch.rows[start:end]).float().div(255),
            torch.from_numpy(np.stack([columns, rows], axis=1)),
            np.array([_START, _IMAGE_START, *soft, _IMAGE_END, _END], np.int32),
        )


def _texts(batch: PackedBatch) -> list[NDArray[np.int32]]:
    lengths = batch.lengths
    uniform = lengths.max() < 1.5 * lengths.min()
    counts = [_UNIFORM_TEXT_IDS if uniform else _TEXT_IDS[number % len(_TEXT_IDS)] for number in range(len(lengths))]
    random = np.random.default_rng(1)
    return [random.integers(10, _VOCABULARY, count).astype(np.int32) for count in counts]


def _padded_ids(rows: list[NDArray[np.int32]]) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = np.stack([np.pad(row, (0, longest - len(row))) for row in rows]).astype(np.int64)
    mask = np.stack([np.arange(longest) < len(row) for row in rows]).astype(np.int64)
    return {
        "input_ids": torch.from_numpy(np.where(ids == SOFT_TOKEN, _IMAGE, ids)),
        "attention_mask": torch.from_numpy(mask),
    }


def _padded_images(images: list[_Image], dtype: torch.dtype) -> dict[str, Tensor]:
    longest = max(len(image.values) for image in images)
    values = [F.pad(image.values, (0, 0, 0, longest - len(image.values))) for image in images]
    places = [F.pad(image.places, (0, 0, 0, longest - len(image.places)), value=-1) for image in images]
    pictures = {"pixel_values": torch.stack(values).to(dtype), "image_position_ids": torch.stack(places)}
    return _padded_ids([image.ids for image in images]) | pictures


def _means(model: Any, call: dict[str, Tensor]) -> NDArray[np.float32]:
    """As sentence-transformers pools: over the tokens that are no padding."""
    hidden, mask = model(**call).last_hidden_state.float(), call["attention_mask"][..., None].float()
    means: NDArray[np.float32] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return means


def _model(folder: Path, dtype: torch.dtype) -> Any:
    return EmbeddingGemma2Model.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
