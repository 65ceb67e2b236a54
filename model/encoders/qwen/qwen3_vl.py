"""The vision tower of Qwen3-VL: a learned position table besides the rotation of heads, and deepstack features.

Equal to Transformers' `Qwen3VLVisionModel` (modeling_qwen3_vl.py) on the same weights.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.arrangement import RotatedPositions
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import HALVES
from model.encoders.parts.tensors import Shapes
from model.encoders.qwen import family
from model.encoders.qwen.encoder import QwenEncoder
from model.kernels.positions import PositionTable

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = family.DEFAULTS | {
    "depth": 27,
    "hidden_size": 1152,
    "hidden_act": "gelu_pytorch_tanh",
    "intermediate_size": 4304,
    "patch_size": 16,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Config(family.QwenConfig):
    """table_side: side of the learned square position table, in patches."""

    table_side: int

    encoder_type: ClassVar = QwenEncoder
    mlp_names: ClassVar = {"0": "linear_fc1", "1": "linear_fc2"}
    merger_names: ClassVar = ("norm", "linear_fc1", "linear_fc2")
    has_patch_bias: ClassVar = True
    # Those of the published checkpoints.
    preprocessing_defaults: ClassVar = {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}} | HALVES

    def checkpoint_shapes(self) -> Shapes:
        return family.QwenConfig.checkpoint_shapes(self) | {"pos_embed.weight": (self.table_side**2, self.width)}

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> RotatedPositions:
        table = tensors["pos_embed.weight"].view(self.table_side, self.table_side, self.width)
        rotary = family.QwenConfig.positions(self, tensors, device).rotary
        return RotatedPositions(rotary, PositionTable(table, device=device, align_corners=True, antialias=False))


def read_config(fields: Fields, names: Collection[str]) -> Qwen3Config:
    """From a config.json of model_type `qwen3_vl` or `qwen3_vl_vision`."""
    vision = family.vision_fields(fields, DEFAULTS)
    side = math.isqrt(vision.count("num_position_embeddings"))
    if side**2 != vision.count("num_position_embeddings"):
        raise vision.error("num_position_embeddings", "it is the square of a side")
    shape = family.shape_fields(vision, vision.count("hidden_size"))
    return Qwen3Config(
        **shape,
        mlp_width=vision.count("intermediate_size"),
        out_width=vision.count("out_hidden_size"),
        deepstack_layers=vision.indices("deepstack_visual_indexes", below=shape["depth"]),
        table_side=side,
    )
