"""Pixtral's vision tower, also that of Mistral 3: blocks without a bias whose heads are rotated by row and column.

Equal to Transformers' `PixtralVisionModel` (modeling_pixtral.py) on the same weights. Tokens are its patches, which a
language model's projector takes. Knows nothing of images, devices or checkpoint files.

Axes: T patches of a pack, R rows of the sequence (filler included), D width, d width of a head.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.axial import axial_shape_fields, axial_theta, rows_and_columns
from model.encoders.parts.blocks import Blocks, GatedMlp, RmsNorm
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import Keys
from model.encoders.parts.preprocessing import Preprocessing, read_longest_edge
from model.encoders.parts.tensors import ACTIVATIONS, Shapes, hidden_act, patch_weight
from model.encoders.parts.tower import EncoderConfig, EncoderOutput, LanguagePositions, Setup, Tower, segment_means
from model.kernels.attention import Segments
from model.kernels.linear import pad_rows
from model.kernels.rotary import RotaryGrids
from model.pack import PackedBatch

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "patch_size": 16,
    "hidden_act": "gelu",
}
_EPS = 1e-5

KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)patch_conv\.weight"),
    prefixes=("vision_tower.",),
    bare=re.compile(r"(patch_conv|ln_pre|transformer)\."),
    ignored=re.compile(r"patch_positional_embedding\..*"),
)


class PixtralEncoder(Tower):
    """From packed patches to tokens, and their mean for each image."""

    def __init__(self, config: "PixtralConfig", setup: Setup) -> None:
        super().__init__(config, setup, patch_bias=False)
        self.norm = RmsNorm(config.width, eps=config.eps)
        self.blocks = Blocks(
            config,
            attention=setup.attention,
            kernel=setup.kernel,
            activation=ACTIVATIONS[config.hidden_act],
            norm=RmsNorm,
            mlp=GatedMlp,
            features_after=setup.features_after,
        )

    def arrange(self, batch: PackedBatch) -> Arrangement:
        """positions of the arrangement: float32 `[R, d]`, the rotation of each row's heads."""
        rotation = pad_rows(self._positions.gather(batch), self._row_multiple)
        return Arrangement(Segments.at(batch.cu_seqlens, batch.max_seqlen, self._positions.device), rotation)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        x = self.norm.in_float32(self.patch(pad_rows(patches, self._row_multiple)).float())
        features = self.blocks(x, arrangement.segments, arrangement.positions)
        rows = arrangement.rows
        return EncoderOutput(
            tokens=(x if features is None else features)[:rows],
            pooled=segment_means(x, arrangement.segments.offsets),
            filler_rows=len(x) - rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PixtralConfig(EncoderConfig):
    """hidden_act: Transformers' name. theta: of the rotation. multiple: patches a side that a language
    model's projector merges, so that grids are multiples of it; None for a tower alone, whose processor says it.
    """

    hidden_act: str
    theta: float
    multiple: int | None = None

    encoder_type: ClassVar = PixtralEncoder

    @property
    def language_positions(self) -> LanguagePositions | None:
        """Pixtral's language model sees a break after each row. Mistral 3's sees tokens that are merged first."""
        return "rows" if self.multiple in (None, 1) else None

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_longest_edge(fields, patch_size=self.patch_size, multiple=self.multiple)

    def checkpoint_shapes(self) -> Shapes:
        d, p = self.width, self.patch_size
        shapes: Shapes = {"patch_conv.weight": (d, 3, p, p), "ln_pre.weight": (d,)}
        for _, theirs in self._blocks():
            shapes |= {f"{theirs}.attention.{x}_proj.weight": (d, d) for x in "qkvo"}
            shapes |= {f"{theirs}.{norm}.weight": (d,) for norm in ("attention_norm", "ffn_norm")}
            shapes |= {f"{theirs}.feed_forward.{x}_proj.weight": (self.mlp_width, d) for x in ("gate", "up")}
            shapes[f"{theirs}.feed_forward.down_proj.weight"] = (d, self.mlp_width)
        return shapes

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """No layer has a bias; our blocks add zeros."""
        weights = {
            "patch.weight": patch_weight(tensors["patch_conv.weight"]),
            "norm.weight": tensors["ln_pre.weight"],
        }
        for ours, theirs in self._blocks():
            attention = f"{theirs}.attention"
            layers = {
                "qkv": torch.cat([tensors[f"{attention}.{x}_proj.weight"] for x in "qkv"]),
                "out": tensors[f"{attention}.o_proj.weight"],
            }
            layers |= {
                f"mlp.{name}": tensors[f"{theirs}.feed_forward.{name}_proj.weight"] for name in ("gate", "up", "down")
            }
            for name, weight in layers.items():
                weights[f"{ours}.{name}.weight"] = weight
                weights[f"{ours}.{name}.bias"] = weight.new_zeros(len(weight))
            weights[f"{ours}.norm1.weight"] = tensors[f"{theirs}.attention_norm.weight"]
            weights[f"{ours}.norm2.weight"] = tensors[f"{theirs}.ffn_norm.weight"]
        return weights

    def _blocks(self) -> Iterator[tuple[str, str]]:
        """Our name and the checkpoint's of each block."""
        for i in range(self.depth):
            yield f"blocks.{i}", f"transformer.layers.{i}"

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> RotaryGrids:
        return RotaryGrids(self._angles, head_width=self.head_width, device=device)

    def _angles(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[h*w, d/2]`: every other frequency times the row, then the others times the column."""
        d = self.head_width
        frequencies = 1.0 / self.theta ** (torch.arange(0, d, 2, dtype=torch.float32) / d)
        rows, columns = rows_and_columns(grid)
        return torch.cat([rows * frequencies[0::2], columns * frequencies[1::2]], dim=1)


def read_config(fields: Fields, names: Collection[str]) -> PixtralConfig:
    """From a config.json of model_type `pixtral`, or of a `llava` or `mistral3` with such a tower."""
    whole = "vision_config" in fields
    vision = (fields.section("vision_config") if whole else fields).over(DEFAULTS)
    shape = axial_shape_fields(vision, eps=_EPS)
    vision.require({"num_channels": 3})
    activation = hidden_act(vision)
    if activation == "quick_gelu":
        raise vision.error("hidden_act", "in this family it is silu, gelu or gelu_pytorch_tanh")
    multiple = None
    if whole:
        merges = fields.get("model_type") == "mistral3"
        multiple = fields.over({"spatial_merge_size": 2}).count("spatial_merge_size") if merges else 1
    return PixtralConfig(**shape, hidden_act=activation, theta=axial_theta(vision), multiple=multiple)
