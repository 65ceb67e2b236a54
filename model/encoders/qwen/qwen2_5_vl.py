"""The vision tower of Qwen2.5-VL: gated MLPs, and attention inside windows in most blocks.

Equal to Transformers' `Qwen2_5_VisionTransformerPretrainedModel` (modeling_qwen2_5_vl.py) on the same weights.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from model.encoders.parts.blocks import GatedMlp, Mlp, Norm, RmsNorm
from model.encoders.parts.fields import Fields
from model.encoders.qwen import family
from model.encoders.qwen.encoder import QwenEncoder

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = family.DEFAULTS | {
    "depth": 32,
    "hidden_size": 3584,
    "hidden_act": "silu",
    "intermediate_size": 3420,
    "patch_size": 14,
    "window_size": 112,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
# More layers than any tower has: Transformers ignores numbers of layers that a tower lacks.
_ANY_LAYER = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2_5Config(family.QwenConfig):
    encoder_type: ClassVar = QwenEncoder
    norm: ClassVar[type[Norm] | type[RmsNorm]] = RmsNorm
    mlp: ClassVar[type[Mlp] | type[GatedMlp]] = GatedMlp
    mlp_names: ClassVar = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def read_config(fields: Fields, names: Collection[str]) -> Qwen2_5Config:
    """From a config.json of model_type `qwen2_5_vl` or `qwen2_5_vl_vision`; window_size is in pixels."""
    vision = family.vision_fields(fields, DEFAULTS)
    vision.require({"hidden_act": "silu"})
    shape = family.shape_fields(vision, vision.count("hidden_size"))
    window = vision.count("window_size") // shape["merge"] // shape["patch_size"]
    if not window:
        raise vision.error("window_size", "it holds no merged token")
    return Qwen2_5Config(
        **shape,
        mlp_width=vision.count("intermediate_size"),
        out_width=vision.count("out_hidden_size"),
        window=window,
        full_layers=vision.indices("fullatt_block_indexes", below=_ANY_LAYER),
    )
