"""Checkpoints and numbers of Transformers' EmbeddingGemma 2, with random weights."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

from model.pack import SOFT_TOKEN, PackedDocuments, pack_documents
from tests.reference import randomised
from tests.vocabularies import IMAGE_TOKENS, write_gemma

# Windows that texts outgrow, full layers with wider heads, and a full layer between sliding ones.
SMALL: dict[str, dict[str, Any]] = {
    "text": {
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32, "num_global_key_value_heads": 1,
        "sliding_window_pattern": 2, "sliding_window": 6, "hidden_size_per_layer_input": 24, "embedding_dim": 40,
    },
    "vision": {
        "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 3, "head_dim": 32, "position_embedding_size": 3360, "standardize": True,
    },
}  # fmt: skip
# As published, but for depth and vocabulary: six layers of the text encoder are a round of its kinds.
PUBLISHED: dict[str, dict[str, Any]] = {
    "text": {"num_hidden_layers": 6},
    "vision": {"num_hidden_layers": 2, "position_embedding_size": 3360},
}
PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}
_CONFIG: dict[str, object] = {"tokenizer_class": "GemmaTokenizer", "model_max_length": 96}


def save_model(folder: Path, shapes: dict[str, dict[str, Any]] = SMALL, *, seed: int = 0, **config: Any) -> Any:
    """A folder with weights, tokenizer and prompts. Returns Transformers' model."""
    write_gemma(folder, model_type="embedding_gemma2", images=True, config=_CONFIG)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin, image, end = (tokenizer.token_to_id(token) for token in IMAGE_TOKENS)
    text = {"vocab_size": tokenizer.get_vocab_size()} | shapes["text"]
    vision = {"model_type": "gemma4_vision"} | shapes["vision"]
    ids = {"image_token_id": image, "boi_token_id": begin, "eoi_token_id": end}
    whole = EmbeddingGemma2Config(text_config=text, vision_config=vision, dtype="float32", **ids, **config)
    model = settled(randomised(lambda: EmbeddingGemma2Model(whole), seed=seed), seed=seed)
    model.save_pretrained(folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    return model


@torch.no_grad()
def settled(model: Any, *, seed: int) -> Any:
    """Buffers random too. Attention as a trained model has it: scores of unit size, and not of the size of a head,
    where softmax would take one key alone and rounding would decide which."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith(("layer_scalar", "std_scale", "std_bias")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        clips = name.endswith(("put_min", "put_max")) and "layers.0.mlp.up_proj" not in name
        if clips:
            sign = 1 if name.endswith("max") else -1
            buffer.copy_(sign * (0.2 + torch.rand(buffer.shape, generator=generator)))
    for name, parameter in model.named_parameters():
        if name.endswith("q_norm.weight"):
            parameter.mul_(len(parameter) ** -0.5)
    return model


def document(model: Any, parts: Sequence[Sequence[int] | tuple[int, int]]) -> NDArray[np.int32]:
    """The ids of a document. parts: lists of ids, and grids of pictures as tuples."""
    config = model.config
    ids: list[int] = []
    for part in parts:
        soft = [SOFT_TOKEN] * (part[0] * part[1] // 9) if isinstance(part, tuple) else []
        ids += [config.boi_token_id, *soft, config.eoi_token_id] if isinstance(part, tuple) else part
    return np.array([*ids, 1], np.int32)


def random_documents(model: Any, parts: Sequence[Sequence[int | tuple[int, int]]], *, seed: int = 0) -> PackedDocuments:
    """Documents of random texts of these lengths and random pictures of these grids, in order."""
    random = np.random.default_rng(seed)
    documents, rows, grids = [], [], []
    for own in parts:
        given = [part if isinstance(part, tuple) else random.integers(3, 200, part).tolist() for part in own]
        documents.append(document(model, given))
        grids.append([part for part in own if isinstance(part, tuple)])
        rows += [random.integers(0, 256, (h * w, 768), dtype=np.uint8) for h, w in grids[-1]]
    return pack_documents(documents, rows, grids)


@torch.no_grad()
def vectors(model: Any, documents: PackedDocuments) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean over tokens `[S, E]` of each document alone, and the vectors of all soft tokens `[N, E]`."""
    pooled, soft = [], []
    pictures = documents.pictures
    spans = list(pairwise(documents.cu_pictures.tolist()))
    for ids, (first, last) in zip(np.split(documents.ids, documents.cu_seqlens[1:-1]), spans, strict=True):
        values, positions = [], []
        for number in range(first, last):
            assert pictures is not None
            start, end = pictures.cu_seqlens[number : number + 2]
            rows, columns = np.indices(pictures.grids[number]).reshape(2, -1)
            values.append(torch.from_numpy((pictures.rows[start:end] * (1 / 255)).astype(np.float32)))
            positions.append(torch.from_numpy(np.stack([columns, rows], axis=1)))
        is_soft = ids == SOFT_TOKEN
        row = torch.from_numpy(np.where(is_soft, model.config.image_token_id, ids).astype(np.int64))[None]
        images: dict[str, Any] = {}
        if values:
            longest = max(map(len, values))
            padded = [torch.nn.functional.pad(each, (0, 0, 0, longest - len(each))) for each in values]
            places = [torch.nn.functional.pad(each, (0, 0, 0, longest - len(each)), value=-1) for each in positions]
            images = {"pixel_values": torch.stack(padded), "image_position_ids": torch.stack(places)}
        hidden = model(input_ids=row, attention_mask=torch.ones_like(row), **images).last_hidden_state[0]
        pooled.append(hidden.mean(0).numpy())
        soft.append(hidden[torch.from_numpy(is_soft)].numpy())
    return np.stack(pooled), np.concatenate(soft)
