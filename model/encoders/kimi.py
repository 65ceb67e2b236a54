"""MoonViT, the vision tower of Kimi K2.5: a learned table of positions, and heads rotated by column and row.

Equal to Transformers' `Kimi_K25VisionModel` (modeling_kimi_k25.py) on the same weights. It gives the normed patches of
2 × 2 cells side by side; the projector that makes a language model's token of them is not part of it. Knows nothing of
images, devices or checkpoint files.

Axes: T patches of a pack, R rows of the sequence (filler included), N = T / merge**2 tokens, D width, d of a head.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement, RotatedPositions
from model.encoders.parts.axial import axial_shape_fields, axial_theta, rows_and_columns
from model.encoders.parts.blocks import Blocks, Norm
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import Keys
from model.encoders.parts.preprocessing import Preprocessing, read_patch_count
from model.encoders.parts.tensors import (
    ACTIVATIONS,
    Shapes,
    activation_weights,
    hidden_act,
    linear_shapes,
    norm_shapes,
    patch_weight,
    renamed,
)
from model.encoders.parts.tower import EncoderConfig, EncoderOutput, LanguagePositions, Setup, Tower, segment_means
from model.encoders.parts.windows import window_order
from model.errors import CheckpointError
from model.kernels.attention import Segments
from model.kernels.linear import pad_rows
from model.kernels.positions import PositionTable
from model.kernels.rotary import RotaryGrids, paired_halves
from model.pack import PackedBatch

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "patch_size": 14,
    "pos_emb_height": 64,
    "pos_emb_width": 64,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "hidden_act": "gelu_pytorch_tanh",
    "merge_kernel_size": [2, 2],
}
_EPS = 1e-5

KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*?)(?:encoder\.)?patch_embed\.proj\.weight"),
    prefixes=("vision_tower.",),
    bare=re.compile(r"(patch_embed|layers|encoder|final_layernorm)\."),
    # What is computed from the time of a frame, and the rotation.
    ignored=re.compile(r"patch_embed\.pos_emb\.time_.*|(encoder\.)?(rope_2d|rotary_emb)\..*"),
)


@dataclass(frozen=True, slots=True, eq=False)
class KimiArrangement(Arrangement):
    """positions: float32 `[R, d]`, the rotation of each row's heads. added: float32 `[T, D]`, the table's positions.
    order: int64 `[T]`, the rows of the sequence, those of one token consecutive.
    """

    added: Tensor
    order: Tensor


class KimiEncoder(Tower):
    """From packed patches to tokens of `merge` × `merge` patches each, and the mean of all patches for each image."""

    def __init__(self, config: "KimiConfig", setup: Setup) -> None:
        """Raises `CheckpointError` for `features_after`."""
        super().__init__(config, setup)
        if setup.features_after is not None:
            raise CheckpointError("feature_layer is set; the token vectors of this family are merged behind its layers")
        activation = ACTIVATIONS[config.hidden_act]
        self.blocks = Blocks(config, attention=setup.attention, kernel=setup.kernel, activation=activation)
        self.norm = Norm(config.width, eps=config.eps)
        assert isinstance(setup.positions, RotatedPositions)
        assert setup.positions.table
        self._rotary, self._table = setup.positions.rotary, setup.positions.table
        self._merge = config.merge

    def arrange(self, batch: PackedBatch) -> KimiArrangement:
        device = self._rotary.device
        starts = batch.cu_seqlens[:-1].tolist()
        order = [window_order(grid, self._merge)[0] + start for grid, start in zip(batch.grids, starts, strict=True)]
        return KimiArrangement(
            segments=Segments.at(batch.cu_seqlens, batch.max_seqlen, device),
            positions=pad_rows(self._rotary.gather(batch), self._row_multiple),
            added=self._table.gather(batch),
            order=torch.from_numpy(np.concatenate(order)).to(device),
        )

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, KimiArrangement)
        x = self.patch(pad_rows(patches, self._row_multiple)).float()
        x[: arrangement.rows] += arrangement.added
        self.blocks(x, arrangement.segments, arrangement.positions)
        normed = self.norm.in_float32(x[: arrangement.rows])
        return EncoderOutput(
            tokens=normed.index_select(0, arrangement.order).view(-1, self._merge**2 * normed.shape[1]),
            pooled=segment_means(normed, arrangement.segments.offsets),
            filler_rows=len(x) - arrangement.rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiConfig(EncoderConfig):
    """hidden_act: Transformers' name. theta: of the rotation. merge: patches a side that become one token. table_side:
    of the learned positions, in patches.

    published: the tensors have the names of the published checkpoint, where pairs of neighbours are rotated.
    Transformers gives whole models those names again when it saves them, but for the patch embedding: patch_name.
    """

    hidden_act: str
    theta: float
    merge: int
    table_side: int
    published: bool = False
    patch_name: str = "patch_embed.proj"

    encoder_type: ClassVar = KimiEncoder

    @property
    def token_width(self) -> int:
        return self.width * self.merge**2

    @property
    def language_positions(self) -> LanguagePositions:
        return "sequence"

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_patch_count(fields, patch_size=self.patch_size, factor=self.merge)

    def checkpoint_shapes(self) -> Shapes:
        d, p = self.width, self.patch_size
        shapes: Shapes = {f"{self.patch_name}.weight": (d, 3, p, p), f"{self.patch_name}.bias": (d,)}
        shapes |= {self._table_name: (self.table_side, self.table_side, d)} | norm_shapes(self._norm_name, d)
        for _, theirs in self._blocks():
            if self.published:
                shapes |= linear_shapes(f"{theirs}.wqkv", 3 * d, d)
            else:
                shapes |= {
                    name: size for x in "qkv" for name, size in linear_shapes(f"{theirs}.attn.{x}_proj", d, d).items()
                }
            out, norm1, norm2, first, second = self._layer_names(theirs)
            shapes |= linear_shapes(out, d, d) | norm_shapes(norm1, d) | norm_shapes(norm2, d)
            shapes |= linear_shapes(first, self.mlp_width, d) | linear_shapes(second, d, self.mlp_width)
        return shapes

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {
            "patch.weight": patch_weight(tensors[f"{self.patch_name}.weight"]),
            "patch.bias": tensors[f"{self.patch_name}.bias"],
        } | renamed(tensors, {"norm": self._norm_name})
        for ours, theirs in self._blocks():
            layers = ("out", "norm1", "norm2", "mlp.0", "mlp.1")
            names = zip(layers, self._layer_names(theirs), strict=True)
            weights |= renamed(tensors, {f"{ours}.{layer}": name for layer, name in names})
            for part in ("weight", "bias"):
                weights[f"{ours}.qkv.{part}"] = torch.cat(self._qkv(tensors, theirs, part))
        return activation_weights(weights, self.depth, self.hidden_act)

    def _qkv(self, tensors: Mapping[str, Tensor], block: str, part: str) -> list[Tensor]:
        if not self.published:
            return [tensors[f"{block}.attn.{x}_proj.{part}"] for x in "qkv"]
        q, k, v = tensors[f"{block}.wqkv.{part}"].chunk(3)
        return [paired_halves(q, self.heads), paired_halves(k, self.heads), v]

    def _blocks(self) -> Iterator[tuple[str, str]]:
        """Our name and the checkpoint's of each block."""
        for i in range(self.depth):
            yield f"blocks.{i}", f"encoder.blocks.{i}" if self.published else f"layers.{i}"

    def _layer_names(self, block: str) -> list[str]:
        """A checkpoint's names of a block's output projection, its norms and its MLP's layers."""
        if self.published:
            return [f"{block}.{name}" for name in ("wo", "norm0", "norm1", "mlp.fc0", "mlp.fc1")]
        return [f"{block}.{name}" for name in ("attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2")]

    @property
    def _norm_name(self) -> str:
        return "encoder.final_layernorm" if self.published else "final_layernorm"

    @property
    def _table_name(self) -> str:
        return "patch_embed.pos_emb." + ("weight" if self.published else "position_embeddings")

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> RotatedPositions:
        table = PositionTable(tensors[self._table_name], mode="bicubic", antialias=False, device=device)
        return RotatedPositions(RotaryGrids(self._angles, head_width=self.head_width, device=device), table)

    def _angles(self, grid: tuple[int, int]) -> Tensor:
        """float32 `[h*w, d/2]`: each frequency times the column, then times the row."""
        half = self.head_width // 2
        frequencies = 1.0 / self.theta ** (torch.arange(0, half, 2, dtype=torch.float32) / half)
        rows, columns = rows_and_columns(grid)
        return torch.stack([columns * frequencies, rows * frequencies], dim=2).flatten(1)


def read_config(fields: Fields, names: Collection[str]) -> KimiConfig:
    """From a config.json of model_type `kimi_k25` or `kimi_k25_vision`."""
    vision = (fields.section("vision_config") if "vision_config" in fields else fields).over(DEFAULTS)
    merge = vision.get("merge_kernel_size")
    if not isinstance(merge, list) or len(merge) != 2 or type(merge[0]) is not int or not 0 < merge[0] == merge[1]:
        raise vision.error("merge_kernel_size", "it is the same number of patches twice")
    side = vision.count("pos_emb_height")
    if vision.get("pos_emb_width") != side:
        raise vision.error("pos_emb_width", f"the table of positions is a square, and pos_emb_height is {side}")
    patch_names = [name for name in names if name.endswith("patch_embed.proj.weight")]
    return KimiConfig(
        **axial_shape_fields(vision, eps=_EPS),
        hidden_act=hidden_act(vision),
        theta=axial_theta(vision),
        merge=merge[0],
        table_side=side,
        published=any(name.endswith("wqkv.weight") for name in names),
        patch_name=patch_names[0].removesuffix(".weight") if patch_names else "patch_embed.proj",
    )
