"""DINOv2, with and without registers: a learned table of positions, resized to any grid.

Equal to Transformers' `Dinov2Model` and `Dinov2WithRegistersModel` (modeling_dinov2.py,
modeling_dinov2_with_registers.py) on the same weights. The table is resized with antialiasing only with registers.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.dino.encoder import DinoEncoder
from model.encoders.dino.family import IMAGENET, DinoConfig
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import Keys
from model.encoders.parts.tensors import Shapes, hidden_act, renamed
from model.encoders.parts.tower import shape_fields
from model.kernels.positions import PositionTable
from model.kernels.rotary import PrefixedPositions

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
REGISTER_DEFAULTS: dict[str, Any] = DEFAULTS | {"patch_size": 16, "num_register_tokens": 4}
_TABLE = "embeddings.position_embeddings"
_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
# The mask token is for training, and a classifier has no part in a vector.
KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)embeddings\.patch_embeddings\.projection\.weight"),
    prefixes=("dinov2.", "dinov2_with_registers."),
    bare=re.compile(r"(embeddings|encoder|layernorm)\."),
    ignored=re.compile(r"embeddings\.mask_token"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoV2Config(DinoConfig):
    """table_side: of the learned positions. antialias: whether the table is resized with it."""

    table_side: int
    antialias: bool

    encoder_type: ClassVar = DinoEncoder
    patch_name: ClassVar[str] = "embeddings.patch_embeddings.projection"
    block_name: ClassVar[str] = "encoder.layer"
    norm_name: ClassVar[str] = "layernorm"
    attention_names: ClassVar[tuple[str, str, str, str]] = (*_QKV, "attention.output.dense")
    processors: ClassVar[tuple[str, ...]] = ("Bit", "CLIP", "ViT")
    pictures: ClassVar[Mapping[str, Any]] = IMAGENET | {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
    }

    @property
    def mlp_shapes(self) -> Mapping[str, tuple[int, int]]:
        d, m = self.width, self.mlp_width
        if self.gated:
            return {"mlp.weights_in": (2 * m, d), "mlp.weights_out": (d, m)}
        return {"mlp.fc1": (m, d), "mlp.fc2": (d, m)}

    def mlp_weights(self, tensors: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
        """A gated MLP is stored with its gate and what it gates in one layer."""
        if not self.gated:
            return renamed(tensors, {"0": f"{block}.mlp.fc1", "1": f"{block}.mlp.fc2"})
        weights = renamed(tensors, {"down": f"{block}.mlp.weights_out"})
        for part in ("weight", "bias"):
            weights[f"gate.{part}"], weights[f"up.{part}"] = tensors[f"{block}.mlp.weights_in.{part}"].chunk(2)
        return weights

    def checkpoint_shapes(self) -> Shapes:
        return DinoConfig.checkpoint_shapes(self) | {_TABLE: (1, 1 + self.table_side**2, self.width)}

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> PrefixedPositions:
        """The class token is the same in every image, so its position is added here, once. Registers have none."""
        table, before = tensors[_TABLE][0].float(), self.prefix(tensors)
        before[0] += table[0]
        cells = table[1:].view(self.table_side, self.table_side, -1)
        return PrefixedPositions(
            PositionTable(cells, mode="bicubic", antialias=self.antialias, before=before, device=device)
        )


def read_config(fields: Fields, names: Collection[str]) -> DinoV2Config:
    """From a config.json of model_type `dinov2`."""
    return _read(fields.over(DEFAULTS), registers=0, antialias=False)


def read_config_with_registers(fields: Fields, names: Collection[str]) -> DinoV2Config:
    """From a config.json of model_type `dinov2_with_registers`."""
    fields = fields.over(REGISTER_DEFAULTS)
    return _read(fields, registers=fields.count("num_register_tokens"), antialias=True)


def _read(fields: Fields, *, registers: int, antialias: bool) -> DinoV2Config:
    fields.require({"num_channels": 3})
    width, gated = fields.count("hidden_size"), fields.flag("use_swiglu_ffn")
    mlp_width = int(width * fields.positive("mlp_ratio"))
    if gated:
        # Two thirds of it, rounded up to a multiple of 8.
        mlp_width = (int(mlp_width * 2 / 3) + 7) // 8 * 8
    shape = shape_fields(fields.over({"intermediate_size": mlp_width})) | {"mlp_width": mlp_width}
    fields.require({"head_dim": shape["width"] // shape["heads"]})
    table_side = fields.count("image_size") // shape["patch_size"]
    if not table_side:
        raise fields.error("image_size", f"it holds no patch of {shape['patch_size']} pixels a side")
    return DinoV2Config(
        **shape,
        hidden_act="silu" if gated else hidden_act(fields),
        gated=gated,
        registers=registers,
        unbiased=() if fields.flag("qkv_bias") else _QKV,
        table_side=table_side,
        antialias=antialias,
    )
