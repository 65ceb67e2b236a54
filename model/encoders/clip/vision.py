"""CLIP: a vision transformer with a class token, a norm before its first block, and a projection of the class token.

Equal to Transformers' `CLIPVisionModel`, `CLIPVisionModelWithProjection` and `CLIPModel.get_image_features`
(modeling_clip.py) on the same weights. The class token is the first row of each segment in the blocks' sequence. It is
not an image token, and never among the tokens that come out. Knows nothing of images, devices or checkpoint files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement, PrefixedArrangement, prefixed_arrangement
from model.encoders.parts.blocks import Blocks, Norm
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import CLIP_NORMALISATION, Preprocessing, read_fixed
from model.encoders.parts.tensors import (
    ACTIVATIONS,
    Shapes,
    activation_weights,
    block_shapes,
    block_weights,
    hidden_act,
    norm_shapes,
    patch_weight,
    renamed,
)
from model.encoders.parts.tower import EncoderOutput, FixedConfig, Setup, Tower, fixed_shape_fields
from model.kernels.linear import Linear, pad_rows
from model.kernels.positions import FixedTable
from model.pack import PackedBatch

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_PROJECTION = "visual_projection.weight"


class ClipEncoder(Tower):
    """From packed patches to tokens, which lack the final norm as in Transformers, and projected class tokens."""

    def __init__(self, config: "ClipConfig", setup: Setup) -> None:
        super().__init__(config, setup, patch_bias=False)
        self.pre_norm = Norm(config.width, eps=config.eps)
        self.blocks = Blocks(
            config,
            attention=setup.attention,
            kernel=setup.kernel,
            activation=ACTIVATIONS[config.hidden_act],
            features_after=setup.features_after,
        )
        self.norm = Norm(config.width, eps=config.eps)
        self.projection = (
            Linear(config.width, config.projection_width, kernel=setup.kernel, bias=False)
            if config.projection_width
            else None
        )

    def arrange(self, batch: PackedBatch) -> PrefixedArrangement:
        return prefixed_arrangement(batch, self._positions, 1)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, PrefixedArrangement)
        positions = pad_rows(arrangement.positions, self._row_multiple)
        # Class tokens are rows of zeros: without a bias, only their position is left.
        rows = patches.new_zeros(len(positions), patches.shape[1]).index_copy_(0, arrangement.token_rows, patches)
        x = self.pre_norm.in_float32(self.patch(rows).float() + positions)
        features = self.blocks(x, arrangement.segments)
        return EncoderOutput(
            tokens=(x if features is None else features).index_select(0, arrangement.token_rows),
            pooled=self._pool(x.index_select(0, arrangement.segments.cu_seqlens[:-1])),
            filler_rows=len(x) - arrangement.rows,
        )

    def _pool(self, x: Tensor) -> Tensor:
        """x: class tokens, float32 `[S, D]`. Returns `[S, E]`."""
        if self.projection is None:
            return self.norm.in_float32(x)
        return self.projection(pad_rows(self.norm(x), self._row_multiple))[: len(x)]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig(FixedConfig):
    """hidden_act: Transformers' name. projection_width: of an embedding; None without a projection."""

    hidden_act: str
    projection_width: int | None

    encoder_type: ClassVar = ClipEncoder

    @property
    def embedding_width(self) -> int:
        return self.projection_width or self.width

    def preprocessing(self, fields: Fields) -> Preprocessing:
        side = self.image_side
        defaults: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        defaults |= {"resample": 3, "do_center_crop": True} | CLIP_NORMALISATION
        return read_fixed(fields, defaults, own=("CLIP", "Bit"), image_side=self.image_side, patch_size=self.patch_size)

    def checkpoint_shapes(self) -> Shapes:
        d = self.width
        shapes: Shapes = {
            "embeddings.class_embedding": (d,),
            "embeddings.patch_embedding.weight": (d, 3, self.patch_size, self.patch_size),
            "embeddings.position_embedding.weight": (1 + self.grid[0] * self.grid[1], d),
        }
        # Transformers misspells the name, and so does every file.
        shapes |= norm_shapes("pre_layrnorm", d) | block_shapes(self) | norm_shapes("post_layernorm", d)
        return shapes | ({_PROJECTION: (self.projection_width, d)} if self.projection_width else {})

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = renamed(tensors, {"pre_norm": "pre_layrnorm", "norm": "post_layernorm"})
        weights |= block_weights(tensors, self.depth)
        weights["patch.weight"] = patch_weight(tensors["embeddings.patch_embedding.weight"])
        if self.projection_width:
            weights["projection.weight"] = tensors[_PROJECTION]
        return activation_weights(weights, self.depth, self.hidden_act)

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> FixedTable:
        """The class token is the same in every image, so it is added to its position here, once."""
        table = tensors["embeddings.position_embedding.weight"].float()
        first = table[:1] + tensors["embeddings.class_embedding"].float()
        return FixedTable(torch.cat([first, table[1:]]), grid=self.grid, device=device)


def read_config(fields: Fields, names: Collection[str]) -> ClipConfig:
    """From a config.json of model_type `clip` or `clip_vision_model`, and the names of the stored tensors."""
    vision = fields
    if fields.get("model_type") == "clip":
        # If both are present, Transformers takes the older key and ignores the other.
        vision = fields.section(
            "vision_config_dict" if fields.get("vision_config_dict") is not None else "vision_config"
        )
    vision = vision.over(DEFAULTS)
    vision.require({"num_channels": 3})
    return ClipConfig(
        **fixed_shape_fields(vision),
        hidden_act=hidden_act(vision),
        projection_width=_projection_width(fields, vision, names),
    )


def _projection_width(fields: Fields, vision: Fields, names: Collection[str]) -> int | None:
    """A whole model always has a projection and gives its width. A tower alone may be stored with one."""
    if fields.get("model_type") == "clip":
        return fields.over({"projection_dim": DEFAULTS["projection_dim"]}).count("projection_dim")
    return vision.count("projection_dim") if _PROJECTION in names else None
