"""Checkpoints and numbers of the reference implementation, Transformers' own models, with random weights."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Siglip2Config,
    Siglip2Model,
    Siglip2TextConfig,
    Siglip2TextModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.initialization import no_init_weights

from model.pack import PackedBatch, PackedTexts, pack, pack_texts

SMALL = {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2, "num_attention_heads": 3}
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
# Where widths count and depth does not: a third of its layers. One model is compared at its whole depth.
BASE_WIDTHS = BASE | {"num_hidden_layers": 4}
# The widths of so400m, which are no powers of two: heads of 72, an MLP of 4304. Two layers of its 27.
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 2, "num_attention_heads": 16}


# The text tower of a whole model.
_TEXT = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}
END_ID = 98
_HALVES = (0.5, 0.5, 0.5)


def random_tower(shape: dict[str, Any], *, seed: int = 0) -> Any:
    return randomised(lambda: Siglip2VisionModel(Siglip2VisionConfig(**shape)), seed=seed)


def randomised(make: Callable[[], Any], *, seed: int = 0) -> Any:
    """A model with every parameter random, including biases and norms, so that a test sees any that are mixed up."""
    with no_init_weights():
        model = make()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if not parameter.numel():
                continue  # registers of a model that has none
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                # CLIP misspells the name, and Qwen's mergers have another.
                is_norm = "norm" in name or "layrnorm" in name or "ln_q" in name
                parameter.copy_(0.1 * noise + float(is_norm and name.endswith("weight")))
    return model.eval()


def save_tower(folder: Path, shape: dict[str, Any], *, seed: int = 0) -> Any:
    tower = random_tower(shape, seed=seed)
    tower.save_pretrained(folder)
    return tower


def fixed_model(model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    """A model of one grid, by the `model_type` of its config.json; `+` adds a projection."""
    if model_type == "siglip":
        return whole_model(model_type, shape, _TEXT, seed=seed)
    if model_type == "clip":
        config = CLIPConfig(vision_config=shape, text_config=_TEXT | {"eos_token_id": END_ID}, projection_dim=40)
        return randomised(lambda: CLIPModel(config), seed=seed)
    towers: dict[str, Any] = {
        "siglip_vision_model": lambda: SiglipVisionModel(SiglipVisionConfig(**shape)),
        "clip_vision_model": lambda: CLIPVisionModel(CLIPVisionConfig(**shape)),
        "clip_vision_model+": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**shape)),
    }
    return randomised(towers[model_type], seed=seed)


def whole_model(model_type: str, vision: dict[str, Any], text: dict[str, Any], *, seed: int = 0) -> Any:
    """A SigLIP or SigLIP 2 model with both towers, whose vectors are as wide as the vision tower."""
    config, model = {"siglip": (SiglipConfig, SiglipModel), "siglip2": (Siglip2Config, Siglip2Model)}[model_type]
    text = text | {"projection_size": vision["hidden_size"]}
    return randomised(lambda: model(config(vision_config=vision, text_config=text)), seed=seed)


def text_tower(model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    """A text tower alone, by the `model_type` of its config.json; `+` adds a projection."""
    towers: dict[str, Any] = {
        "siglip_text_model": lambda: SiglipTextModel(SiglipTextConfig(**shape)),
        "siglip2_text_model": lambda: Siglip2TextModel(Siglip2TextConfig(**shape)),
        "clip_text_model": lambda: CLIPTextModel(CLIPTextConfig(**shape)),
        "clip_text_model+": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**shape)),
    }
    return randomised(towers[model_type], seed=seed)


def random_texts(lengths: Sequence[int], *, context: int = 0, seed: int = 0) -> PackedTexts:
    """Texts of these lengths, of ids from 1 on, that end with `END_ID`, the highest. Padded with 0 to `context`."""
    random = np.random.default_rng(seed)
    texts = [np.append(random.integers(1, END_ID, length - 1), END_ID) for length in lengths]
    return pack_texts([np.pad(text, (0, max(0, context - len(text)))).astype(np.int32) for text in texts])


@torch.no_grad()
def text_outputs(model: Any, texts: PackedTexts) -> NDArray[np.float32]:
    """Pooled `[S, E]` of a whole model or a text tower, each text alone, without a mask."""
    forward = getattr(model, "get_text_features", model)
    outputs = [forward(input_ids=torch.from_numpy(ids[None].astype(np.int64))) for ids in texts.texts()]
    pooled = [getattr(output, "text_embeds", None) for output in outputs]
    found = [p if p is not None else o.pooler_output for p, o in zip(pooled, outputs, strict=True)]
    return torch.cat(found).numpy()


@torch.no_grad()
def reference_logits(model: Any, batch: PackedBatch, texts: PackedTexts) -> NDArray[np.float32]:
    """`logits_per_image` of a whole model, `[images, texts]`. batch: of grids of one size."""
    longest = max(map(len, texts.texts()))
    ids = torch.from_numpy(
        np.stack([np.pad(text, (0, longest - len(text))) for text in texts.texts()]).astype(np.int64)
    )
    (grid_h, grid_w), count = batch.grids[0], len(batch.grids)
    if isinstance(model, Siglip2Model):
        images = {
            "pixel_values": normalised(batch.rows).view(count, grid_h * grid_w, -1),
            "pixel_attention_mask": torch.ones(count, grid_h * grid_w, dtype=torch.int32),
            "spatial_shapes": torch.tensor(batch.grids),
        }
    else:
        is_clip = isinstance(model, CLIPModel)
        mean, std = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if is_clip else (_HALVES, _HALVES)
        side = grid_h * math.isqrt(batch.rows.shape[1] // 3)
        images = {"pixel_values": whole_pictures(normalised(batch.rows, mean, std), batch, side)}
    logits: NDArray[np.float32] = model(input_ids=ids, **images).logits_per_image.numpy()
    return logits


def save_fixed(folder: Path, model_type: str, shape: dict[str, Any], *, seed: int = 0) -> Any:
    model = fixed_model(model_type, shape, seed=seed)
    model.save_pretrained(folder)
    return model


def random_pack(grids: Sequence[tuple[int, int]], *, seed: int = 0, patch_size: int = 16) -> PackedBatch:
    random = np.random.default_rng(seed)
    rows = [random.integers(0, 256, (h * w, 3 * patch_size**2), dtype=np.uint8) for h, w in grids]
    return pack(rows, grids)


@torch.no_grad()
def reference_outputs(
    tower: Any, batch: PackedBatch, *, padded_to: int | None = None, feature_layer: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled `[S, D]` and tokens `[T, D]`: each segment alone, padded to `padded_to` tokens and masked if given."""
    pooled, tokens = [], []
    for (start, end), grid in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
        length = end - start
        values = torch.zeros(1, padded_to or length, batch.rows.shape[1])
        values[0, :length] = normalised(batch.rows[start:end])
        mask = (torch.arange(values.shape[1]) < length).int().unsqueeze(0)
        output = tower(
            pixel_values=values,
            pixel_attention_mask=mask,
            spatial_shapes=torch.tensor([grid]),
            output_hidden_states=feature_layer is not None,
        )
        pooled.append(output.pooler_output.numpy())
        tokens.append(_features(output, feature_layer)[0, :length].numpy())
    return np.concatenate(pooled), np.concatenate(tokens)


@torch.no_grad()
def fixed_outputs(
    model: Any, batch: PackedBatch, *, image_side: int, feature_layer: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled `[S, E]` and tokens `[T, D]` of a model of one grid, from whole pictures through its convolution."""
    is_clip = isinstance(model, CLIPModel | CLIPVisionModel | CLIPVisionModelWithProjection)
    mean, std = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if is_clip else (_HALVES, _HALVES)
    pictures = whole_pictures(normalised(batch.rows, mean, std), batch, image_side)
    forward = getattr(model, "get_image_features", model)
    output = forward(pixel_values=pictures, output_hidden_states=True)
    pooled = output.image_embeds if isinstance(model, CLIPVisionModelWithProjection) else output.pooler_output
    tokens = _features(output, feature_layer)[:, int(is_clip) :]
    return pooled.numpy(), tokens.flatten(0, 1).numpy()


def whole_pictures(values: Tensor, batch: PackedBatch, image_side: int) -> Tensor:
    """`[S, 3, image_side, image_side]` from `[T, P*P*3]`, with noise in the strips that fill no patch."""
    (grid_h, grid_w), count = batch.grids[0], len(batch.grids)
    patch = math.isqrt(values.shape[1] // 3)
    pictures = torch.randn(count, 3, image_side, image_side, generator=torch.Generator().manual_seed(0))
    patches = values.view(count, grid_h, grid_w, patch, patch, 3).permute(0, 5, 1, 3, 2, 4)
    pictures[:, :, : grid_h * patch, : grid_w * patch] = patches.reshape(count, 3, grid_h * patch, grid_w * patch)
    return pictures


def _features(output: Any, feature_layer: int | None) -> Tensor:
    features: Tensor = output.last_hidden_state if feature_layer is None else output.hidden_states[feature_layer]
    return features


def normalised(rows: NDArray[np.uint8], mean: Sequence[float] = _HALVES, std: Sequence[float] = _HALVES) -> Tensor:
    """As the reference processor does: rescales in float64, casts, then shifts and scales each channel."""
    values = torch.from_numpy((rows * (1 / 255)).astype(np.float32)).view(len(rows), -1, 3)
    shifted: Tensor = (values - torch.tensor(mean)) / torch.tensor(std)
    return shifted.flatten(1)
