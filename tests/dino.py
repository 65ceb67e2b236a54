"""Checkpoints and numbers of Transformers' DINOv2 and DINOv3, with random weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from model.pack import PackedBatch
from tests.reference import normalised, randomised

MODELS: dict[str, Any] = {
    "dinov2": (Dinov2Config, Dinov2Model),
    "dinov2_with_registers": (Dinov2WithRegistersConfig, Dinov2WithRegistersModel),
    "dinov3_vit": (DINOv3ViTConfig, DINOv3ViTModel),
}
_SMALL: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
_OTHER_BIASES = dict.fromkeys(("query_bias", "value_bias", "proj_bias", "mlp_bias"), False) | {"key_bias": True}
# Every choice that a configuration leaves, at two layers: model_type and shape by a name.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "v2": ("dinov2", _SMALL | {"image_size": 518}),
    "v2-quick": ("dinov2", _SMALL | {"image_size": 70, "hidden_act": "quick_gelu", "mlp_ratio": 2}),
    "v2-registers": ("dinov2_with_registers", _SMALL | {"image_size": 98, "patch_size": 14}),
    "v2-gated": (
        "dinov2_with_registers",
        _SMALL
        | {"image_size": 64, "patch_size": 16, "use_swiglu_ffn": True, "qkv_bias": False, "num_register_tokens": 1},
    ),
    "v3": ("dinov3_vit", _SMALL | {"intermediate_size": 200, "num_register_tokens": 4}),
    "v3-plain": ("dinov3_vit", _SMALL | {"intermediate_size": 200, "patch_size": 14, "rope_theta": 50.0}),
    "v3-gated": (
        "dinov3_vit",
        _SMALL
        | {"intermediate_size": 136, "num_register_tokens": 2, "use_gated_mlp": True, "hidden_act": "silu"}
        | _OTHER_BIASES,
    ),
}  # fmt: skip
# As published for the base models and, at two layers, for those with registers, DINOv2's giant and DINOv3's H+.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "v2-base": ("dinov2", {"image_size": 518, "num_hidden_layers": 4}),
    "v2-registers-base": ("dinov2_with_registers", {"image_size": 518, "patch_size": 14, "num_hidden_layers": 2}),
    "v2-registers-giant": (
        "dinov2_with_registers",
        {
            "image_size": 518, "patch_size": 14, "hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 2,
            "use_swiglu_ffn": True,
        },
    ),
    "v3-base": (
        "dinov3_vit",
        {
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 4,
            "num_register_tokens": 4,
        },
    ),
    "v3-huge-plus": (
        "dinov3_vit",
        {
            "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 2,
            "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu",
        },
    ),
}  # fmt: skip


def random_dino(model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    """With layer scales of about 1, so that a block counts for as much as what it is added to."""
    config, model = MODELS[model_type]
    made = randomised(lambda: model(config(**shape)), seed=seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("lambda1"):
                parameter.mul_(10)
    return made


def save_dino(folder: Path, model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    model = random_dino(model_type, shape, seed=seed)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def dino_outputs(
    model: Any, batch: PackedBatch, *, feature_layer: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled by the class token `[S, D]` and tokens `[T, D]`, one image at a time."""
    pooled, tokens = [], []
    patch, prefix = model.config.patch_size, 1 + getattr(model.config, "num_register_tokens", 0)
    for (start, end), (grid_h, grid_w) in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
        rows = normalised(batch.rows[start:end], IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        patches = rows.view(grid_h, grid_w, patch, patch, 3).permute(4, 0, 2, 1, 3)
        output = model(patches.reshape(1, 3, grid_h * patch, grid_w * patch), output_hidden_states=True)
        last = output.last_hidden_state
        pooled.append(output.pooler_output)
        tokens.append((last if feature_layer is None else output.hidden_states[feature_layer])[0, prefix:])
    return torch.cat(pooled).numpy(), torch.cat(tokens).numpy()
