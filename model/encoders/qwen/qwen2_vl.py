"""The vision tower of Qwen2-VL: plain blocks over the whole image.

Equal to Transformers' `Qwen2VisionTransformerPretrainedModel` (modeling_qwen2_vl.py) on the same weights.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from model.encoders.parts.fields import Fields
from model.encoders.qwen import family
from model.encoders.qwen.encoder import QwenEncoder

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = family.DEFAULTS | {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "hidden_act": "quick_gelu",
    "mlp_ratio": 4,
    "patch_size": 14,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2Config(family.QwenConfig):
    encoder_type: ClassVar = QwenEncoder


def read_config(fields: Fields, names: Collection[str]) -> Qwen2Config:
    """From a config.json of model_type `qwen2_vl` or `qwen2_vl_vision`; hidden_size is the width of merged tokens."""
    vision = family.vision_fields(fields, DEFAULTS)
    width, ratio = vision.count("embed_dim"), vision.count("mlp_ratio")
    return Qwen2Config(
        **family.shape_fields(vision, width), mlp_width=width * ratio, out_width=vision.count("hidden_size")
    )
