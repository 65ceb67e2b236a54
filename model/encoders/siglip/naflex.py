"""SigLIP 2 NaFlex: SigLIP's encoder over grids of any shape. One table of positions is resized for each grid.

Equal to Transformers' `Siglip2VisionModel` (modeling_siglip2.py) on the same weights, without its padding. Knows
nothing of images, devices or checkpoint files.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing, read_naflex
from model.encoders.parts.tensors import Shapes, linear_shapes
from model.encoders.parts.tower import EncoderConfig, shape_fields
from model.encoders.siglip import fixed
from model.kernels.positions import PositionTable

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {key: value for key, value in fixed.DEFAULTS.items() if key != "image_size"}
DEFAULTS["num_patches"] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NaFlexConfig(EncoderConfig):
    """table_side: side of the learned square position table, in patches."""

    patch_size: int = 16
    table_side: int = 16
    eps: float = 1e-6

    encoder_type: ClassVar = fixed.SiglipEncoder

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_naflex(fields, patch_size=self.patch_size)

    def checkpoint_shapes(self) -> Shapes:
        shapes = linear_shapes("embeddings.patch_embedding", self.width, self.patch_width)
        shapes["embeddings.position_embedding.weight"] = (self.table_side**2, self.width)
        return shapes | fixed.tower_shapes(self)

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return fixed.tower_weights(tensors, self)

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> PositionTable:
        table = tensors["embeddings.position_embedding.weight"]
        return PositionTable(table.view(self.table_side, self.table_side, self.width), device=device)


def read_config(fields: Fields, names: Collection[str]) -> NaFlexConfig:
    """From a config.json of model_type `siglip2` or `siglip2_vision_model`."""
    vision = fields.section("vision_config") if fields.get("model_type") == "siglip2" else fields
    vision = vision.over(DEFAULTS)
    vision.require(fixed.SUPPORTED)
    side = math.isqrt(vision.count("num_patches"))
    if side**2 != vision.count("num_patches"):
        raise vision.error("num_patches", "it is the square of a side")
    return NaFlexConfig(**shape_fields(vision), table_side=side)
