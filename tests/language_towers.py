"""Checkpoints and numbers of Transformers' Pixtral and Kimi K2.5 towers, with random weights."""

import ast
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    Kimi_K25Config,
    Kimi_K25ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralVisionConfig,
    PixtralVisionModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.kimi_k25.configuration_kimi_k25 import Kimi_K25VisionConfig
from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25VisionModel

from model.pack import PackedBatch
from tests.reference import normalised, randomised

# Widths that are no power of two, and heads of 72 as in Kimi's.
SMALL = {"hidden_size": 144, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 200}
TABLE = {"pos_emb_height": 6, "pos_emb_width": 6}
KIMI = SMALL | TABLE
PIXTRAL = SMALL | {"hidden_act": "silu"}
# As published, but for the depth.
KIMI_PUBLISHED = {"num_hidden_layers": 2}
PIXTRAL_PUBLISHED = {"num_hidden_layers": 2, "hidden_act": "silu"}

_HALVES = (0.5, 0.5, 0.5)
_TEXT = {
    "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 99,
}  # fmt: skip
_MISTRAL = _TEXT | {"model_type": "mistral", "head_dim": 24}
_DEEPSEEK = _TEXT | {
    "model_type": "deepseek_v3", "moe_intermediate_size": 8, "n_routed_experts": 2, "num_experts_per_tok": 1,
    "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 4, "n_group": 1, "topk_group": 1,
}  # fmt: skip


def random_kimi(shape: dict[str, Any], *, seed: int = 0) -> Any:
    return randomised(lambda: Kimi_K25VisionModel(Kimi_K25VisionConfig(**shape)), seed=seed)


def random_pixtral(shape: dict[str, Any], *, seed: int = 0) -> Any:
    return randomised(lambda: PixtralVisionModel(PixtralVisionConfig(**shape)), seed=seed)


def whole_model(model_type: str) -> Any:
    """A `kimi_k25`, `llava` or `mistral3`, whose tower is `model.vision_tower`."""
    if model_type == "kimi_k25":
        tokens = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
        width = {"projection_hidden_size": SMALL["hidden_size"]}
        config = Kimi_K25Config(text_config=_DEEPSEEK, vision_config=KIMI, **width, **tokens)
        return randomised(lambda: Kimi_K25ForConditionalGeneration(config))
    classes: dict[str, Any] = {
        "llava": (LlavaConfig, LlavaForConditionalGeneration),
        "mistral3": (Mistral3Config, Mistral3ForConditionalGeneration),
    }
    configuration, model = classes[model_type]
    vision = PIXTRAL | {"model_type": "pixtral"}
    whole = configuration(text_config=_MISTRAL, vision_config=vision, image_token_index=5)
    return randomised(lambda: model(whole))


@torch.no_grad()
def kimi_outputs(tower: Any, batch: PackedBatch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled `[S, D]` and tokens `[N, 4*D]`: all images in one call, as the model takes them."""
    patch = tower.config.patch_size
    values = normalised(batch.rows, _HALVES, _HALVES).view(-1, patch, patch, 3).permute(0, 3, 1, 2)
    output = tower(values, grid_thw=torch.tensor([[1, *grid] for grid in batch.grids]))
    return _means(output.last_hidden_state, batch), output.pooler_output.flatten(1).numpy()


@torch.no_grad()
def pixtral_outputs(
    tower: Any, batch: PackedBatch, *, feature_layer: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled `[S, D]` and tokens `[T, D]`: all images in one call, padded, as the model takes them."""
    patch = tower.config.patch_size
    sizes = [(height * patch, width * patch) for height, width in batch.grids]
    # Noise around the pictures, which the model cuts off.
    shape = len(sizes), 3, max(height for height, _ in sizes), max(width for _, width in sizes)
    pictures = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = normalised(batch.rows, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    for picture, (start, end), (height, width) in zip(pictures, pairwise(batch.cu_seqlens), sizes, strict=True):
        patches = values[start:end].view(height // patch, width // patch, patch, patch, 3)
        picture[:, :height, :width] = patches.permute(4, 0, 2, 1, 3).reshape(3, height, width)
    output = tower(pictures, image_sizes=sizes, output_hidden_states=True)
    last = output.last_hidden_state
    tokens = last if feature_layer is None else output.hidden_states[feature_layer]
    return _means(last[0], batch), tokens[0].numpy()


def _means(tokens: Tensor, batch: PackedBatch) -> NDArray[np.float32]:
    spans = pairwise(batch.cu_seqlens.tolist())
    means: NDArray[np.float32] = (
        torch.stack([tokens[start:end].double().mean(0) for start, end in spans]).float().numpy()
    )
    return means


def save_kimi_processor(folder: Path, **changes: Any) -> None:
    """As Transformers writes it; its class needs torchvision."""
    fields = {
        "image_processor_type": "Kimi_K25ImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
        "do_convert_rgb": True, "rescale_factor": 1 / 255, "resample": 3, "patch_size": 14, "merge_size": 2,
        "max_patches": 16384, "size": {"max_height": 512, "max_width": 512}, "image_mean": _HALVES,
        "image_std": _HALVES,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(fields | changes))


def navit_resize() -> Callable[..., tuple[tuple[int, int], tuple[int, int]]]:
    """Kimi's sizing from the source of its processor, whose module cannot be imported without torchvision."""
    package = find_spec("transformers")
    assert package
    assert package.origin
    source = Path(package.origin).parent / "models/kimi_k25/image_processing_kimi_k25.py"
    module = ast.parse(source.read_text())
    module.body = [each for each in module.body if isinstance(each, ast.FunctionDef) and each.name == "navit_resize"]
    names: dict[str, Any] = {"math": math}
    exec(compile(module, str(source), "exec"), names)
    function: Callable[..., tuple[tuple[int, int], tuple[int, int]]] = names["navit_resize"]
    return function
