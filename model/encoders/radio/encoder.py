"""C-RADIO: a vision transformer over any grid with several class tokens, registers, and a normalisation of its own.

Equal to Transformers' `RadioModel` (modeling_radio.py) on the same weights, from images of any sizes: the vector is its
`summary`, tokens are its `features`. Class tokens and registers are rows before those of each segment, and not image
tokens. Knows nothing of images, devices or checkpoint files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement, PrefixedArrangement, prefixed_arrangement
from model.encoders.parts.blocks import Blocks, GatedMlp, Mlp
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing, read_unnormalised
from model.encoders.parts.tensors import (
    ACTIVATIONS,
    Shapes,
    activation_weights,
    linear_shapes,
    norm_shapes,
    renamed,
    scaled,
)
from model.encoders.parts.tower import EncoderConfig, EncoderOutput, Setup, Tower
from model.encoders.radio.names import MEAN, STD, SUMMARY, Names
from model.errors import CheckpointError
from model.kernels.positions import PositionTable
from model.pack import PackedBatch


class RadioEncoder(Tower):
    """From packed patches to tokens and, for each segment, some class tokens in a row. There is no last norm."""

    def __init__(self, config: "RadioConfig", setup: Setup) -> None:
        super().__init__(config, setup)
        self.blocks = Blocks(
            config,
            attention=setup.attention,
            kernel=setup.kernel,
            activation=ACTIVATIONS[config.hidden_act],
            mlp=GatedMlp if config.gated else Mlp,
            features_after=setup.features_after,
        )
        self._config = config

    def arrange(self, batch: PackedBatch) -> PrefixedArrangement:
        return prefixed_arrangement(batch, self._positions, self._config.prefix_tokens)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, PrefixedArrangement)
        x = self.with_prefix(patches, arrangement)
        features = self.blocks(x, arrangement.segments)
        starts = arrangement.segments.cu_seqlens[:-1]
        summary = torch.cat([x.index_select(0, starts + row) for row in self._config.summary], dim=1)
        return EncoderOutput(
            tokens=(x if features is None else features).index_select(0, arrangement.token_rows),
            pooled=summary,
            filler_rows=len(x) - arrangement.rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioConfig(EncoderConfig):
    """hidden_act: Transformers' name. gated: whether MLPs are. layer_scale: the scale of every layer; None if each has
    its own in the weights. class_tokens, registers: rows before those of a segment. summary: the class tokens that make
    an embedding. table_side: of the learned square position table, in patches. image_side: of the pictures that the
    model is fed by default, in pixels. mean, std: of the pictures. names: of the tensors. buffers: names of those that
    repeat what config.json says.
    """

    hidden_act: str
    gated: bool
    has_qkv_bias: bool
    layer_scale: float | None
    class_tokens: int
    registers: int
    summary: tuple[int, ...]
    table_side: int
    image_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    names: Names
    buffers: tuple[str, ...]

    encoder_type: ClassVar = RadioEncoder

    @property
    def prefix_tokens(self) -> int:
        return self.class_tokens + self.registers

    @property
    def embedding_width(self) -> int:
        return len(self.summary) * self.width

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_unnormalised(fields, mean=self.mean, std=self.std, patch_size=self.patch_size, side=self.image_side)

    def checkpoint_shapes(self) -> Shapes:
        d, m, names = self.width, self.mlp_width, self.names
        shapes: Shapes = {
            f"{names.patch}.weight": (d, self.patch_width),
            names.table: (1, self.table_side**2, d),
            names.prefix: (self.prefix_tokens, d),
        }
        buffers: Shapes = {MEAN: (3, 1, 1), STD: (3, 1, 1), SUMMARY: (len(self.summary),)}
        shapes |= {name: shape for name, shape in buffers.items() if name in self.buffers}
        for block in self._blocks():
            for name in names.qkv:
                shapes |= linear_shapes(f"{block}.{name}", 3 * d // len(names.qkv), d)
                if not self.has_qkv_bias:
                    del shapes[f"{block}.{name}.bias"]
            shapes |= linear_shapes(f"{block}.{names.out}", d, d)
            shapes |= norm_shapes(f"{block}.norm1", d) | norm_shapes(f"{block}.norm2", d)
            *inner, last = self._mlp_names()
            for name in inner:
                shapes |= linear_shapes(f"{block}.mlp.{name}", m, d)
            shapes |= linear_shapes(f"{block}.mlp.{last}", d, m)
            if self.layer_scale is None:
                shapes |= {f"{block}.layer_scale{part}.lambda1": (d,) for part in (1, 2)}
        return shapes

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = self._patch_weights(tensors)
        for i, block in enumerate(self._blocks()):
            weights |= self._block_weights(tensors, f"blocks.{i}", block)
        return weights if self.gated else activation_weights(weights, self.depth, self.hidden_act)

    def _patch_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Patches come with channels first in a checkpoint, and last here. Raises `CheckpointError`.

        They are normalised by `mean` and `std` before. Weights that hold others by a hair, for example rounded to
        bfloat16, go first in Transformers, so the difference goes into this layer.
        """
        stored = tensors.get(SUMMARY, torch.tensor(self.summary)).tolist()
        if stored != [*self.summary]:
            raise CheckpointError(f"summary_idxs is {[*self.summary]} in config.json, and {stored} in the weights")
        pixels = self.patch_size**2
        weight = tensors[f"{self.names.patch}.weight"].view(self.width, 3, pixels).double()
        mean, std = torch.tensor(self.mean).double(), torch.tensor(self.std).double()
        used_mean = tensors.get(MEAN, mean).flatten().double()
        used_std = tensors.get(STD, std).flatten().double()
        shift = (mean - used_mean) / used_std
        return {
            "patch.weight": (weight * (std / used_std)[:, None]).transpose(1, 2).flatten(1).float(),
            "patch.bias": (weight.sum(2) @ shift).float(),
        }

    def _block_weights(self, tensors: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
        """Multiplies a layer scale into the layer before it, and takes zeros for a missing bias."""
        mlp = ("gate", "up", "down") if self.gated else ("0", "1")
        names = {"norm1": "norm1", "norm2": "norm2", "out": self.names.out}
        names |= {f"mlp.{name}": f"mlp.{stored}" for name, stored in zip(mlp, self._mlp_names(), strict=True)}
        weights = renamed(tensors, {f"{ours}.{name}": f"{theirs}.{stored}" for name, stored in names.items()})
        qkv = torch.cat([tensors[f"{theirs}.{name}.weight"] for name in self.names.qkv])
        weights[f"{ours}.qkv.weight"] = qkv
        weights[f"{ours}.qkv.bias"] = (
            torch.cat([tensors[f"{theirs}.{name}.bias"] for name in self.names.qkv])
            if self.has_qkv_bias
            else torch.zeros(len(qkv), dtype=qkv.dtype)
        )
        for layer, part in (("out", 1), (f"mlp.{mlp[-1]}", 2)):
            if self.layer_scale is None:
                weights |= scaled(weights, f"{ours}.{layer}", tensors[f"{theirs}.layer_scale{part}.lambda1"])
            elif self.layer_scale != 1.0:
                weights |= scaled(weights, f"{ours}.{layer}", torch.full((self.width,), self.layer_scale))
        return weights

    def _blocks(self) -> list[str]:
        return [f"{self.names.blocks}.{i}" for i in range(self.depth)]

    def _mlp_names(self) -> tuple[str, ...]:
        return ("gate_proj", "up_proj", "down_proj") if self.gated else ("fc1", "fc2")

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> PositionTable:
        """Class tokens and registers have no positions; their own values take that place."""
        table = tensors[self.names.table].view(self.table_side, self.table_side, self.width)
        before = tensors[self.names.prefix]
        return PositionTable(table, device=device, antialias=False, keeps_aspect=True, before=before)
