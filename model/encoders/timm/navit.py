"""Vision transformers as timm's `NaFlexVit` builds them: `naflexvit_*`, and EVA's that it makes of classic ones.

Positions are learned, factorised, rotary or none; class and register tokens are rows of the sequence before those of
each segment, and not image tokens; a vector is a mean, a class token, or attention's (MAP). Equal to timm's `NaFlexVit`
(naflexvit.py, 1.0.31) on the same weights, without its padding: tokens as its `forward_features` gives them, embeddings
as `forward_head(pre_logits=True)` does. Knows nothing of images, devices or checkpoint files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement, RotatedArrangement, rotated_arrangement
from model.encoders.parts.blocks import Blocks, GatedMlp, MapHead, Mlp, Norm
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tensors import Shapes, linear_shapes, norm_shapes, patch_weight, projected_probe, renamed
from model.encoders.parts.tower import EncoderConfig, EncoderOutput, Setup, Tower, segment_means
from model.encoders.timm.block import StoredBlock
from model.encoders.timm.names import CLASS, CLASSIC, PATCH, REGISTERS, TABLE
from model.encoders.timm.rotary import Rotary
from model.kernels.activations import Activation
from model.kernels.attention import for_width
from model.kernels.linear import pad_rows
from model.kernels.positions import FactorisedTable, GridPositions, NoTable, PositionTable
from model.kernels.rotary import PrefixedPositions, RotaryGrids
from model.pack import PackedBatch
from model.sizing.geometry import Geometry, Resample

_POOL = "attn_pool"


class NavitEncoder(Tower):
    """From packed patches to tokens and a pooled vector a segment. Tokens lack a norm that follows the pooling."""

    def __init__(self, config: "NavitConfig", setup: Setup) -> None:
        super().__init__(config, setup, patch_bias=not config.pre_norm)
        assert isinstance(setup.positions, PrefixedPositions)
        attention, kernel, activation = setup.attention, setup.kernel, config.activation
        self.pre_norm = Norm(config.width, eps=config.eps) if config.pre_norm else None
        self.blocks = Blocks(
            config,
            attention=attention,
            kernel=kernel,
            activation="silu" if config.block.gated else activation,
            mlp=GatedMlp if config.block.gated else Mlp,
            features_after=setup.features_after,
        )
        self.norm = Norm(config.width, eps=config.eps) if config.final_norm else None
        pool_attention = for_width(attention, config.pool.width // config.pool.heads)
        self.head = MapHead(config.pool, pool_attention, kernel, activation) if config.pooling == "map" else None
        self._config = config
        self._positions: PrefixedPositions = setup.positions

    def arrange(self, batch: PackedBatch) -> RotatedArrangement:
        return rotated_arrangement(batch, self._positions, self._config.prefix_tokens, self._row_multiple)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, RotatedArrangement)
        x = self.with_prefix(patches, arrangement)
        if self.pre_norm is not None:
            x = self.pre_norm.in_float32(x)
        features = self.blocks(x, arrangement.segments, arrangement.rotation)
        normed = x if self.norm is None or self._config.final_norm == "after" else self.norm.in_float32(x)
        pooled = self._pool(normed, arrangement)
        if self.norm is not None and self._config.final_norm == "after":
            pooled = self.norm.in_float32(pooled)
        return EncoderOutput(
            tokens=(normed if features is None else features).index_select(0, arrangement.token_rows),
            pooled=pooled,
            filler_rows=len(x) - arrangement.rows,
        )

    def _pool(self, x: Tensor, arrangement: RotatedArrangement) -> Tensor:
        """x: float32 `[R, D]`. Returns float32 `[S, D]`."""
        if self._config.pooling == "token":
            return x.index_select(0, arrangement.segments.cu_seqlens[:-1])
        if self._config.pools_prefix:
            rows, segments = x, arrangement.segments
        else:
            rows, segments = x.index_select(0, arrangement.token_rows), arrangement.images
        if self.head is not None:
            dtype = self.head.norm.weight.dtype
            return self.head(pad_rows(rows.to(dtype), self._row_multiple), segments)  # type: ignore[no-any-return]
        return segment_means(rows, segments.offsets)


@dataclass(frozen=True, slots=True)
class PoolShape:
    """The sizes of the attention that pools."""

    width: int
    heads: int
    mlp_width: int
    eps: float
    depth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NavitConfig(EncoderConfig):
    """block: how blocks are stored. pre_norm: whether a norm comes before the first block. final_norm: whether it comes
    before or after the pooling; None without one. table_grid: of the learned positions. keeps_aspect, antialias,
    align_corners: as in `PositionTable`. rotary: None without rotary positions. pool: for pooling by MAP. pools_prefix:
    whether class and register tokens are pooled too. classic: whether tensors have the names of a model that is not a
    `NaFlexVit`, whose table may begin with the class token's position. mean, std, resample: of the pictures, which timm
    gives in the same file.
    """

    activation: Activation
    block: StoredBlock
    pre_norm: bool
    final_norm: Literal["before", "after"] | None
    has_class_token: bool
    registers: int
    table: Literal["learned", "factorized", "none"]
    table_grid: tuple[int, int]
    table_mode: Literal["bilinear", "bicubic"]
    keeps_aspect: bool
    antialias: bool
    align_corners: bool
    rotary: Rotary | None
    pooling: Literal["avg", "map", "token"]
    pools_prefix: bool
    pool: PoolShape
    classic: bool
    class_has_position: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample
    default_max_tokens: int

    encoder_type: ClassVar = NavitEncoder

    @property
    def prefix_tokens(self) -> int:
        """Rows before the tokens of a segment: a class token, if there is one, then registers."""
        return self.has_class_token + self.registers

    def preprocessing(self, fields: Fields) -> Preprocessing:
        """timm writes no preprocessor_config.json."""
        geometry = Geometry.for_naflex(self.patch_size, self.default_max_tokens, resample=self.resample)
        return Preprocessing(self.mean, self.std, geometry, self.default_max_tokens)

    def checkpoint_shapes(self) -> Shapes:
        shapes = self._embedding_shapes()
        for i in range(self.depth):
            shapes |= self.block.shapes(f"blocks.{i}", self.width, self.mlp_width)
        for name in self._norms().values():
            shapes |= norm_shapes(name, self.width)
        return shapes | (self._map_head_shapes() if self.pooling == "map" else {})

    def _norms(self) -> dict[str, str]:
        """Ours, and timm's."""
        norms = {"pre_norm": "norm_pre"} if self.pre_norm else {}
        if self.final_norm:
            norms["norm"] = "norm" if self.final_norm == "before" else "fc_norm"
        return norms

    def _name(self, name: str) -> str:
        return CLASSIC[name] if self.classic else name

    def _embedding_shapes(self) -> Shapes:
        d, (height, width) = self.width, self.table_grid
        patch = self._name(PATCH)
        shapes: Shapes = linear_shapes(patch, d, self.patch_width)
        if self.classic:
            shapes[f"{patch}.weight"] = (d, 3, self.patch_size, self.patch_size)
        if self.pre_norm:
            del shapes[f"{patch}.bias"]
        if self.has_class_token:
            shapes[self._name(CLASS)] = (1, 1, d)
        if self.registers:
            shapes[self._name(REGISTERS)] = (1, self.registers, d)
        if self.table == "factorized":
            return shapes | {f"{TABLE}_y": (1, height, d), f"{TABLE}_x": (1, width, d)}
        if self.table == "learned":
            cells = height * width + self.class_has_position
            shapes[self._name(TABLE)] = (1, cells, d) if self.classic else (1, height, width, d)
        return shapes

    def _map_head_shapes(self) -> Shapes:
        d, m = self.width, self.pool.mlp_width
        shapes: Shapes = {f"{_POOL}.latent": (1, 1, d)} | linear_shapes(f"{_POOL}.q", d, d)
        shapes |= linear_shapes(f"{_POOL}.kv", 2 * d, d) | linear_shapes(f"{_POOL}.proj", d, d)
        shapes |= norm_shapes(f"{_POOL}.norm", d)
        return shapes | linear_shapes(f"{_POOL}.mlp.fc1", m, d) | linear_shapes(f"{_POOL}.mlp.fc2", d, m)

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        patch = self._name(PATCH)
        weight = tensors[f"{patch}.weight"]
        weights = renamed(tensors, self._norms()) | {"patch.weight": patch_weight(weight) if self.classic else weight}
        if not self.pre_norm:
            weights["patch.bias"] = tensors[f"{patch}.bias"]
        for i in range(self.depth):
            weights |= self.block.weights(tensors, f"blocks.{i}", self.heads)
        if self.pooling == "map":
            names = {"kv": "kv", "out": "proj", "norm": "norm", "mlp.0": "mlp.fc1", "mlp.1": "mlp.fc2"}
            weights |= renamed(tensors, {f"head.{ours}": f"{_POOL}.{theirs}" for ours, theirs in names.items()})
            probe = (tensors[f"{_POOL}.{name}"] for name in ("latent", "q.weight", "q.bias"))
            weights["head.query"] = projected_probe(*probe)
        return weights

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> PrefixedPositions:
        added = self._added(tensors, device)
        if self.rotary is None:
            return PrefixedPositions(added)
        rotary, head_width = self.rotary, self.head_width
        grids = RotaryGrids(
            lambda grid: rotary.angles(grid, head_width),
            before=self.prefix_tokens,
            head_width=head_width,
            device=device,
        )
        return PrefixedPositions(added, grids)

    def _added(self, tensors: Mapping[str, Tensor], device: torch.device) -> GridPositions:
        """Class and register tokens have no positions; their own values take that place."""
        names = [self._name(name) for name in (CLASS, REGISTERS)]
        before = torch.cat([torch.zeros(0, self.width), *(tensors[name][0] for name in names if name in tensors)])
        if self.table == "none":
            return NoTable(before, device=device)
        if self.table == "factorized":
            rows, columns = tensors[f"{TABLE}_y"][0], tensors[f"{TABLE}_x"][0]
            return FactorisedTable(rows, columns, keeps_aspect=self.keeps_aspect, before=before, device=device)
        table = tensors[self._name(TABLE)].float()
        if self.classic and self.class_has_position:
            before = torch.cat([before[:1] + table[0, :1], before[1:]])
            table = table[:, 1:]
        return PositionTable(
            table.reshape(*self.table_grid, self.width),
            mode=self.table_mode,
            antialias=self.antialias,
            align_corners=self.align_corners,
            keeps_aspect=self.keeps_aspect,
            before=before,
            device=device,
        )
