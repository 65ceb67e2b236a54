"""SigLIP, and SigLIP 2 of a fixed resolution: a pre-norm vision transformer with an attention-pooling (MAP) head.

Equal to Transformers' `SiglipVisionModel` (modeling_siglip.py) on the same weights. Knows nothing of images, devices or
checkpoint files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.blocks import Blocks, MapHead, Norm
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import HALVES, Preprocessing, read_fixed
from model.encoders.parts.tensors import (
    Shapes,
    block_shapes,
    block_weights,
    map_head_shapes,
    map_head_weights,
    norm_shapes,
    patch_weight,
    renamed,
)
from model.encoders.parts.tower import EncoderConfig, EncoderOutput, FixedConfig, Setup, Tower, fixed_shape_fields
from model.kernels.attention import Segments
from model.kernels.linear import pad_rows
from model.kernels.positions import FixedTable
from model.pack import PackedBatch

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
# The variants of the architecture that this encoder implements; NaFlex shares them.
SUPPORTED = {"num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "vision_use_head": True}


class SiglipEncoder(Tower):
    """From packed patches to tokens and one pooled vector a segment. Every row of the sequence is an image token."""

    def __init__(self, config: EncoderConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.blocks = Blocks(
            config, attention=setup.attention, kernel=setup.kernel, features_after=setup.features_after
        )
        self.norm = Norm(config.width, eps=config.eps)
        self.head = MapHead(config, setup.attention, setup.kernel)

    def arrange(self, batch: PackedBatch) -> Arrangement:
        segments = Segments.at(batch.cu_seqlens, batch.max_seqlen, self._positions.device)
        return Arrangement(segments, self._positions.gather(batch))

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        positions = pad_rows(arrangement.positions, self._row_multiple)
        x = self.patch(pad_rows(patches, self._row_multiple)).float() + positions
        features = self.blocks(x, arrangement.segments)
        tokens = self.norm(x)
        return EncoderOutput(
            tokens=(tokens if features is None else features)[: arrangement.rows],
            pooled=self.head(tokens, arrangement.segments),
            filler_rows=len(x) - arrangement.rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiglipConfig(FixedConfig):
    """The tower of SigLIP, or of SigLIP 2 at a fixed resolution."""

    encoder_type: ClassVar = SiglipEncoder

    def preprocessing(self, fields: Fields) -> Preprocessing:
        size = {"height": self.image_side, "width": self.image_side}
        defaults = {"size": size, "resample": 3, "do_center_crop": False} | HALVES
        return read_fixed(fields, defaults, own=("Siglip",), image_side=self.image_side, patch_size=self.patch_size)

    def checkpoint_shapes(self) -> Shapes:
        shapes: Shapes = {
            "embeddings.patch_embedding.weight": (self.width, 3, self.patch_size, self.patch_size),
            "embeddings.patch_embedding.bias": (self.width,),
            "embeddings.position_embedding.weight": (self.grid[0] * self.grid[1], self.width),
        }
        return shapes | tower_shapes(self)

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = tower_weights(tensors, self)
        return weights | {"patch.weight": patch_weight(tensors["embeddings.patch_embedding.weight"])}

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> FixedTable:
        return FixedTable(tensors["embeddings.position_embedding.weight"], grid=self.grid, device=device)


def read_config(fields: Fields, names: Collection[str]) -> SiglipConfig:
    """From a config.json of model_type `siglip` or `siglip_vision_model`."""
    vision = fields.section("vision_config") if fields.get("model_type") == "siglip" else fields
    vision = vision.over(DEFAULTS)
    vision.require(SUPPORTED)
    return SiglipConfig(**fixed_shape_fields(vision))


def tower_shapes(config: EncoderConfig) -> Shapes:
    """The shapes of all tensors but the embeddings."""
    return block_shapes(config) | norm_shapes("post_layernorm", config.width) | map_head_shapes(config)


def tower_weights(tensors: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """The state of a `SiglipEncoder`, for a patch embedding that is stored as a matrix."""
    weights = renamed(tensors, {"patch": "embeddings.patch_embedding", "norm": "post_layernorm"})
    return weights | block_weights(tensors, config.depth) | map_head_weights(tensors, config.width)
