"""DINOv3 ViT: rotary positions from where a patch lies between -1 and 1, in any grid.

Equal to Transformers' `DINOv3ViTModel` (modeling_dinov3_vit.py) on the same weights.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.dino.encoder import DinoEncoder
from model.encoders.dino.family import IMAGENET, DinoConfig, gated_act
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import Keys
from model.encoders.parts.tensors import hidden_act, renamed
from model.encoders.parts.tower import shape_fields
from model.kernels.positions import NoTable
from model.kernels.rotary import PrefixedPositions, RotaryGrids

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "patch_size": 16,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "use_gated_mlp": False,
    "num_register_tokens": 0,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
}
# What Transformers' class has no choice of. Meta's own code can divide coordinates by the longer or the shorter side.
_SUPPORTED = {"num_channels": 3, "pos_embed_rope_normalize_coords": "separate", "rope_parameters": None}
_ATTENTION = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")
_BIASES = dict(zip(("query_bias", "key_bias", "value_bias", "proj_bias"), _ATTENTION, strict=True))
# The mask token is for training.
KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)embeddings\.patch_embeddings\.weight"),
    bare=re.compile(r"(embeddings|layer|norm)\."),
    ignored=re.compile(r"embeddings\.mask_token"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoV3Config(DinoConfig):
    """theta: the longest period of the rotary positions."""

    theta: float

    encoder_type: ClassVar = DinoEncoder
    patch_name: ClassVar[str] = "embeddings.patch_embeddings"
    block_name: ClassVar[str] = "layer"
    norm_name: ClassVar[str] = "norm"
    attention_names: ClassVar[tuple[str, str, str, str]] = _ATTENTION
    processors: ClassVar[tuple[str, ...]] = ("DINOv3ViT", "Bit", "ViT")
    pictures: ClassVar[Mapping[str, Any]] = IMAGENET | {"size": {"height": 224, "width": 224}, "resample": 2}

    @property
    def stores_registers(self) -> bool:
        return True

    @property
    def mlp_shapes(self) -> Mapping[str, tuple[int, int]]:
        d, m = self.width, self.mlp_width
        return {f"mlp.{name}_proj": (d, m) if name == "down" else (m, d) for name in self._mlp_names()}

    def mlp_weights(self, tensors: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
        return renamed(tensors, {ours: f"{block}.mlp.{name}_proj" for name, ours in self._mlp_names().items()})

    def _mlp_names(self) -> Mapping[str, str]:
        """Ours, by the checkpoint's."""
        return {"gate": "gate", "up": "up", "down": "down"} if self.gated else {"up": "0", "down": "1"}

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> PrefixedPositions:
        before = self.prefix(tensors)
        rotary = RotaryGrids(self._angles, before=len(before), head_width=self.head_width, device=device)
        return PrefixedPositions(NoTable(before, device=device), rotary)

    def _angles(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[grid_h * grid_w, d/2]`: d/4 of the row, then d/4 of the column.

        The centre of a patch lies between -1 and 1 on either axis, whatever the shape of the picture.
        """
        frequencies = 1 / self.theta ** torch.arange(0, 1, 4 * self.heads / self.width, dtype=torch.float32)
        axes = [2 * (torch.arange(0.5, side, dtype=torch.float32) / side) - 1 for side in grid]
        centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)  # [N, 2]
        return (2 * math.pi * centres[:, :, None] * frequencies).flatten(1)


def read_config(fields: Fields, names: Collection[str]) -> DinoV3Config:
    """From a config.json of model_type `dinov3_vit`. What concerns training or a backbone's output has no effect."""
    fields = fields.over(DEFAULTS)
    fields.require(_SUPPORTED)
    shape, gated = shape_fields(fields), fields.flag("use_gated_mlp")
    if shape["width"] % (4 * shape["heads"]):
        raise fields.error("num_attention_heads", f"the width, {shape['width']}, is not a multiple of 4 for each head")
    unbiased = [layer for key, layer in _BIASES.items() if not fields.flag(key)]
    if not fields.flag("mlp_bias"):
        unbiased += [f"mlp.{name}_proj" for name in ("gate", "up", "down") if gated or name != "gate"]
    return DinoV3Config(
        **shape,
        hidden_act=gated_act(fields, hidden_act(fields)) if gated else hidden_act(fields),
        gated=gated,
        registers=fields.count("num_register_tokens") if fields.get("num_register_tokens") != 0 else 0,
        unbiased=tuple(unbiased),
        theta=fields.positive("rope_theta"),
    )
