"""Checkpoints and numbers of Transformers' Qwen-VL models, with random weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model.pack import PackedBatch
from tests.reference import normalised, randomised

MODELS: dict[str, Any] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
}
PATCH = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16}
# Widths that are no power of two, heads of 80 and 72 as published, and layers with windows around one without.
SMALL: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 2, "embed_dim": 160, "hidden_size": 72, "num_heads": 2, "mlp_ratio": 3},
    "qwen2_5_vl": {
        "depth": 3, "hidden_size": 160, "out_hidden_size": 72, "num_heads": 2, "intermediate_size": 342,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        "depth": 3, "hidden_size": 144, "out_hidden_size": 72, "num_heads": 2, "intermediate_size": 300,
        "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1],
    },
}  # fmt: skip
# As published for Qwen2-VL 2B, Qwen2.5-VL 3B and Qwen3-VL 8B, but for their depth: a layer of each kind.
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 1, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
    "qwen2_5_vl": {
        "depth": 2, "hidden_size": 1280, "out_hidden_size": 2048, "num_heads": 16, "intermediate_size": 3420,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        "depth": 1, "hidden_size": 1152, "out_hidden_size": 4096, "num_heads": 16, "intermediate_size": 4304,
        "num_position_embeddings": 2304, "deepstack_visual_indexes": [0],
    },
}  # fmt: skip
_TEXT = {
    "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 99,
}  # fmt: skip


def random_model(model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    config, model = MODELS[model_type]
    return randomised(lambda: model(config(text_config=_TEXT, vision_config=shape)), seed=seed)


def save_model(folder: Path, model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    """The vision tower of the whole model in the folder."""
    model = random_model(model_type, shape, seed=seed)
    model.save_pretrained(folder)
    return model.model.visual


@torch.no_grad()
def tower_outputs(tower: Any, batch: PackedBatch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled `[S, E]` and tokens `[N, (1 + deepstack) * E]`: all images in one call, as the model takes them."""
    values = torch.cat([_patchified(tower, batch, index) for index in range(len(batch.grids))])
    return pooled_and_tokens(tower, values, torch.tensor([[1, *grid] for grid in batch.grids]))


@torch.no_grad()
def pooled_and_tokens(tower: Any, values: Tensor, grids: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """values: `[T, 3*2*P*P]` as the processor makes them. grids: `[S, 3]`."""
    output = tower(values, grid_thw=grids)
    merged = output.pooler_output
    lengths = (grids.prod(1) // tower.spatial_merge_size**2).tolist()
    pooled = torch.stack([part.double().mean(0) for part in merged.split(lengths)]).float()
    tokens = torch.cat([merged, *getattr(output, "deepstack_features", [])], dim=1)
    return pooled.numpy(), tokens.numpy()


def _patchified(tower: Any, batch: PackedBatch, index: int) -> Tensor:
    """The values of one image as the processor cuts them, from its patch rows."""
    start, end = list(pairwise(batch.cu_seqlens.tolist()))[index]
    (grid_h, grid_w), patch = batch.grids[index], tower.config.patch_size
    rows = normalised(batch.rows[start:end], OPENAI_CLIP_MEAN, OPENAI_CLIP_STD).numpy()
    picture = rows.reshape(grid_h, grid_w, patch, patch, 3).transpose(4, 0, 2, 1, 3).reshape(3, grid_h * patch, -1)
    return torch.from_numpy(Qwen2VLImageProcessorPil().patchify(picture, patch, tower.spatial_merge_size, 2)[0].copy())
