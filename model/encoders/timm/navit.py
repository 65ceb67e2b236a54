"""NaViT as timm builds it (`naflexvit_*`): learned or factorised positions, register tokens, pooling by mean or by MAP.

Equal to timm's `NaFlexVit` (naflexvit.py, 1.0.31) on the same weights, without its padding: tokens as its
`forward_features` gives them, embeddings as `forward_head(pre_logits=True)` does. Class and register tokens are rows of
the sequence before those of each segment, and not image tokens. Knows nothing of images, devices or checkpoint files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from model.encoders.parts.blocks import Blocks, MapHead, Norm
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tensors import Shapes, linear_shapes, norm_shapes, projected_probe, renamed, scaled
from model.encoders.parts.tower import (
    Arrangement,
    EncoderConfig,
    EncoderOutput,
    PrefixedArrangement,
    Setup,
    Tower,
    prefixed_arrangement,
    segment_means,
)
from model.kernels.linear import Activation, pad_rows
from model.kernels.positions import FactorisedTable, GridPositions, PositionTable
from model.pack import PackedBatch
from model.sizing.geometry import Geometry, Resample

# timm evaluates with this, whatever a checkpoint was trained with.
_DEFAULT_MAX_TOKENS = 576


class NavitEncoder(Tower):
    """From packed patches to tokens and a pooled vector a segment. Tokens lack a final norm that follows the mean."""

    def __init__(self, config: "NavitConfig", setup: Setup) -> None:
        super().__init__(config, setup)
        attention, kernel, activation = setup.attention, setup.kernel, config.activation
        self.blocks = Blocks(
            config, attention=attention, kernel=kernel, activation=activation, features_after=setup.features_after
        )
        self.norm = Norm(config.width, eps=config.eps)
        self.head = MapHead(config, attention, kernel, activation) if config.pooling == "map" else None
        self._prefix_tokens = config.prefix_tokens

    def arrange(self, batch: PackedBatch) -> PrefixedArrangement:
        return prefixed_arrangement(batch, self._positions, self._prefix_tokens)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, PrefixedArrangement)
        x = self.with_prefix(patches, arrangement)
        features = self.blocks(x, arrangement.segments)
        tokens = x.index_select(0, arrangement.token_rows)
        if self.head is None:
            pooled = self.norm.in_float32(segment_means(tokens, arrangement.images.offsets))
        else:
            tokens = self.norm(tokens)
            pooled = self.head(pad_rows(tokens, self._row_multiple), arrangement.images)
        return EncoderOutput(
            tokens=tokens if features is None else features.index_select(0, arrangement.token_rows),
            pooled=pooled,
            filler_rows=len(x) - arrangement.rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NavitConfig(EncoderConfig):
    """scaled: whether blocks have a layer scale. table_grid: of the learned positions. mean, std, resample: of the
    pictures, which timm gives in the same file.
    """

    activation: Activation
    qkv_bias: bool
    scaled: bool
    has_class_token: bool
    registers: int
    table: Literal["learned", "factorized"]
    table_grid: tuple[int, int]
    table_mode: Literal["bilinear", "bicubic"]
    keeps_aspect: bool
    pooling: Literal["avg", "map"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample

    encoder_type: ClassVar = NavitEncoder

    @property
    def prefix_tokens(self) -> int:
        """Rows before the tokens of a segment: a class token, if there is one, then registers."""
        return self.has_class_token + self.registers

    @property
    def final_norm(self) -> str:
        """timm's name of the final norm: `fc_norm` if it follows the mean."""
        return "fc_norm" if self.pooling == "avg" else "norm"

    def preprocessing(self, fields: Fields) -> Preprocessing:
        """timm writes no preprocessor_config.json."""
        geometry = Geometry.for_naflex(self.patch_size, _DEFAULT_MAX_TOKENS, resample=self.resample)
        return Preprocessing(self.mean, self.std, geometry, _DEFAULT_MAX_TOKENS)

    def checkpoint_shapes(self) -> Shapes:
        d, m = self.width, self.mlp_width
        shapes = linear_shapes("embeds.proj", d, self.patch_width) | self._embedding_shapes()
        for i in range(self.depth):
            block = f"blocks.{i}"
            shapes |= linear_shapes(f"{block}.attn.qkv", 3 * d, d) | linear_shapes(f"{block}.attn.proj", d, d)
            shapes |= norm_shapes(f"{block}.norm1", d) | norm_shapes(f"{block}.norm2", d)
            shapes |= linear_shapes(f"{block}.mlp.fc1", m, d) | linear_shapes(f"{block}.mlp.fc2", d, m)
            if self.scaled:
                shapes |= {f"{block}.ls{part}.gamma": (d,) for part in (1, 2)}
            if not self.qkv_bias:
                del shapes[f"{block}.attn.qkv.bias"]
        shapes |= norm_shapes(self.final_norm, d)
        return shapes | (self._map_head_shapes() if self.pooling == "map" else {})

    def _embedding_shapes(self) -> Shapes:
        d, (height, width) = self.width, self.table_grid
        shapes: Shapes = {"embeds.cls_token": (1, 1, d)} if self.has_class_token else {}
        if self.registers:
            shapes["embeds.reg_token"] = (1, self.registers, d)
        if self.table == "learned":
            return shapes | {"embeds.pos_embed": (1, height, width, d)}
        return shapes | {"embeds.pos_embed_y": (1, height, d), "embeds.pos_embed_x": (1, width, d)}

    def _map_head_shapes(self) -> Shapes:
        d, m, pool = self.width, self.mlp_width, "attn_pool"
        shapes: Shapes = {f"{pool}.latent": (1, 1, d)} | linear_shapes(f"{pool}.q", d, d)
        shapes |= linear_shapes(f"{pool}.kv", 2 * d, d) | linear_shapes(f"{pool}.proj", d, d)
        shapes |= norm_shapes(f"{pool}.norm", d)
        return shapes | linear_shapes(f"{pool}.mlp.fc1", m, d) | linear_shapes(f"{pool}.mlp.fc2", d, m)

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = renamed(tensors, {"patch": "embeds.proj", "norm": self.final_norm})
        for i in range(self.depth):
            weights |= self._block_weights(tensors, f"blocks.{i}")
        if self.pooling == "map":
            pool = "attn_pool"
            names = {"kv": "kv", "out": "proj", "norm": "norm", "mlp.0": "mlp.fc1", "mlp.1": "mlp.fc2"}
            weights |= renamed(tensors, {f"head.{ours}": f"{pool}.{theirs}" for ours, theirs in names.items()})
            probe = (tensors[f"{pool}.{name}"] for name in ("latent", "q.weight", "q.bias"))
            weights["head.query"] = projected_probe(*probe)
        return weights

    def _block_weights(self, tensors: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
        """Multiplies a layer scale into the layer before it, and takes zeros for a missing bias."""
        names = {"norm1": "norm1", "norm2": "norm2", "mlp.0": "mlp.fc1", "mlp.1": "mlp.fc2", "out": "attn.proj"}
        weights = renamed(tensors, {f"{block}.{ours}": f"{block}.{theirs}" for ours, theirs in names.items()})
        qkv = weights[f"{block}.qkv.weight"] = tensors[f"{block}.attn.qkv.weight"]
        weights[f"{block}.qkv.bias"] = (
            tensors[f"{block}.attn.qkv.bias"] if self.qkv_bias else torch.zeros(len(qkv), dtype=qkv.dtype)
        )
        if self.scaled:
            for layer, scale in (("out", "ls1"), ("mlp.1", "ls2")):
                weights |= scaled(weights, f"{block}.{layer}", tensors[f"{block}.{scale}.gamma"])
        return weights

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> GridPositions:
        """Class and register tokens have no positions; their own values take that place."""
        prefix = [tensors[name][0] for name in ("embeds.cls_token", "embeds.reg_token") if name in tensors]
        before = torch.cat(prefix) if prefix else None
        if self.table == "factorized":
            rows, columns = tensors["embeds.pos_embed_y"][0], tensors["embeds.pos_embed_x"][0]
            return FactorisedTable(rows, columns, keeps_aspect=self.keeps_aspect, before=before, device=device)
        return PositionTable(
            tensors["embeds.pos_embed"][0],
            mode=self.table_mode,
            keeps_aspect=self.keeps_aspect,
            before=before,
            device=device,
        )
