"""What the vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: all but their norms, their MLPs and their names.

Patches become tokens of a language model, `merge` × `merge` of them one. Blocks go through the patches in the order in
which they are merged, and in windows where a family has any, so that a merged token is some rows side by side, and a
window a segment; what comes out is in rows again. Knows nothing of images, devices or checkpoint files.

Axes: T patches of a pack, R rows of the sequence (filler included), N = T / merge**2 merged tokens, S images, D width,
E width of a merged token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.parts.blocks import Block, GatedMlp, Mlp, Norm, RmsNorm
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing, read_merging
from model.encoders.parts.tensors import ACTIVATIONS, Shapes, activation_weights, hidden_act, patch_weight
from model.encoders.parts.tower import Arrangement, EncoderConfig, EncoderOutput, Setup, Tower
from model.encoders.parts.windows import merge_order
from model.errors import CheckpointError
from model.kernels.attention import Segments
from model.kernels.linear import Linear, LinearKernel, pad_rows
from model.kernels.positions import PositionTable, RotaryTable
from model.pack import PackedBatch

# What Transformers' configuration classes all take for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {"num_heads": 16, "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2}
_EPS = 1e-6
_SUPPORTED = {"in_channels": 3, "in_chans": 3}
_ROPE = {"rope_theta": 10_000.0, "rope_type": "axial"}
_PREPROCESSING: dict[str, Any] = {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@dataclass(frozen=True, slots=True)
class QwenPositions:
    """rotary: of the heads in every block. table: of what is added to the patches before, where a family has one."""

    rotary: RotaryTable
    table: PositionTable | None = None

    @property
    def device(self) -> torch.device:
        return self.rotary.device

    def gather(self, batch: PackedBatch) -> Tensor:
        """float32 `[T, d]`: the rotation of heads."""
        return self.rotary.gather(batch)


@dataclass(frozen=True, slots=True, eq=False)
class QwenArrangement(Arrangement):
    """The sequence of the blocks. positions: float32 `[R, d]`, by which each row's heads are turned.

    order: int64 `[R]`, which row of the pack each row of the sequence is, filler its own. windows: the same sequence in
    smaller segments. merged_order: int64 `[N]`, which merged token of the sequence comes out where. added: float32
    `[T, D]` in the order of the pack, what a family adds to its patches, or None.
    """

    order: Tensor
    windows: Segments
    merged_order: Tensor
    added: Tensor | None


class QwenEncoder(Tower):
    """Packed patches to merged tokens, and the mean of those of each image."""

    def __init__(self, config: "QwenConfig", setup: Setup) -> None:
        """Raises `CheckpointError` for `features_after`."""
        super().__init__(config, setup, patch_bias=config.has_patch_bias)
        if setup.features_after is not None:
            raise CheckpointError("feature_layer is set; the token vectors of this family are merged behind its layers")
        assert isinstance(setup.positions, QwenPositions)
        attention, kernel, activation = setup.attention, setup.kernel, ACTIVATIONS[config.hidden_act]
        self.blocks = nn.ModuleList(
            Block(config, attention, kernel, activation, norm=config.norm, mlp=config.mlp) for _ in range(config.depth)
        )
        self.merger = Merger(config, config.width, kernel)
        self.deepstack = nn.ModuleList(Merger(config, config.block_width, kernel) for _ in config.deepstack_layers)
        self._config = config
        self._positions: QwenPositions = setup.positions

    def arrange(self, batch: PackedBatch) -> QwenArrangement:
        device, config, table = self._positions.device, self._config, self._positions.table
        filler = np.arange(batch.tokens, batch.tokens + -batch.tokens % self._row_multiple)
        parts = [merge_order(grid, config.merge, config.window) for grid in batch.grids]
        orders, lengths, merged_orders = zip(*parts, strict=True)
        starts = batch.cu_seqlens[:-1].astype(np.int64)
        order = torch.from_numpy(np.concatenate([*_shifted(orders, starts), filler])).to(device)
        merged_order = np.concatenate(_shifted(merged_orders, starts // config.merge**2))
        segments = Segments.at(batch.cu_seqlens, batch.max_seqlen, device)
        return QwenArrangement(
            segments=segments,
            positions=pad_rows(self._positions.gather(batch), self._row_multiple).index_select(0, order),
            order=order,
            windows=segments if config.window is None else _windows(np.concatenate(lengths), device),
            merged_order=torch.from_numpy(merged_order).to(device),
            added=table.gather(batch) if table else None,
        )

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        """The residual stream is float32 in every dtype: bfloat16 sums would cost more accuracy than all products."""
        assert isinstance(arrangement, QwenArrangement)
        x = self.patch(pad_rows(patches, self._row_multiple)).float()
        if arrangement.added is not None:
            x[: arrangement.rows] += arrangement.added
        x = x.index_select(0, arrangement.order)
        deepstack: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            segments = arrangement.segments if i in self._config.full_layers else arrangement.windows
            block(x, segments, arrangement.positions)
            if i in self._config.deepstack_layers:
                deepstack.append(self.deepstack[len(deepstack)](x[: arrangement.rows]))
        merged = torch.cat([self.merger(x[: arrangement.rows]), *deepstack], dim=1)
        tokens = merged.index_select(0, arrangement.merged_order)
        return EncoderOutput(
            tokens=tokens, pooled=self._pool(tokens, arrangement), filler_rows=len(x) - arrangement.rows
        )

    def _pool(self, tokens: Tensor, arrangement: Arrangement) -> Tensor:
        """tokens: `[N, ...]`. Returns float32 `[S, E]`, the mean of each image's."""
        merged = tokens[:, : self._config.out_width].float()
        offsets = [offset // self._config.merge**2 for offset in arrangement.segments.offsets]
        return torch.stack([merged[start:end].mean(0) for start, end in pairwise(offsets)])


class Merger(nn.Module):
    """The patches of a token, side by side in one row, through an MLP; normalised each alone, or as that row."""

    def __init__(self, config: "QwenConfig", norm_width: int, kernel: LinearKernel) -> None:
        super().__init__()
        self.norm = config.norm(norm_width, eps=config.eps)
        self.first = Linear(config.block_width, config.block_width, kernel=kernel, activation="gelu")
        self.second = Linear(config.block_width, config.out_width, kernel=kernel)
        self._norm_width, self._row_multiple = norm_width, kernel.row_multiple

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 `[T, D]`, in the order of merging. Returns `[N, E]`."""
        blocks = self.norm(x.reshape(-1, self._norm_width)).view(-1, self.first.weight.shape[1])
        return self.second(self.first(pad_rows(blocks, self._row_multiple)))[: len(blocks)]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenConfig(EncoderConfig):
    """hidden_act: as Transformers names it. out_width: E. merge: patches a side that become one token. frames: of a
    patch, which all show the same picture. window: merged tokens a side of a window of attention, None without windows;
    full_layers: blocks that attend to the whole image all the same. deepstack_layers: blocks after which tokens are
    merged as well, for the first layers of the language model.

    mlp_names, merger_names: what a checkpoint calls the layers of an MLP, and of a merger (norm, then two linear ones).
    """

    hidden_act: str
    out_width: int
    merge: int
    frames: int
    window: int | None = None
    full_layers: tuple[int, ...] = ()
    deepstack_layers: tuple[int, ...] = ()

    encoder_type: ClassVar = QwenEncoder
    norm: ClassVar[type[Norm] | type[RmsNorm]] = Norm
    mlp: ClassVar[type[Mlp] | type[GatedMlp]] = Mlp
    mlp_names: ClassVar[Mapping[str, str]] = {"0": "fc1", "1": "fc2"}
    merger_names: ClassVar[tuple[str, str, str]] = ("ln_q", "mlp.0", "mlp.2")
    has_patch_bias: ClassVar[bool] = False
    preprocessing_defaults: ClassVar[Mapping[str, Any]] = _PREPROCESSING

    @property
    def embedding_width(self) -> int:
        return self.out_width

    @property
    def token_width(self) -> int:
        """The merged token, and behind it what its patches were merged into after each of the `deepstack_layers`."""
        return self.out_width * (1 + len(self.deepstack_layers))

    @property
    def block_width(self) -> int:
        """Values of the patches that are merged into one token."""
        return self.width * self.merge**2

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_merging(fields, self.preprocessing_defaults, patch_size=self.patch_size, factor=self.merge)

    def checkpoint_shapes(self) -> Shapes:
        shapes: Shapes = {"patch_embed.proj.weight": (self.width, 3, self.frames, self.patch_size, self.patch_size)}
        if self.has_patch_bias:
            shapes["patch_embed.proj.bias"] = (self.width,)
        return shapes | {theirs: shape for _, theirs, shape in self._layer_tensors()}

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {ours: tensors[theirs] for ours, theirs, _ in self._layer_tensors()}
        # One picture is all frames of a patch: their kernels add up.
        weights["patch.weight"] = patch_weight(tensors["patch_embed.proj.weight"].float().sum(2))
        if self.has_patch_bias:
            weights["patch.bias"] = tensors["patch_embed.proj.bias"]
        return activation_weights(weights, self.depth, self.hidden_act)

    def _layer_tensors(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Our name, the checkpoint's and the shape of every tensor of the blocks and mergers."""
        for ours, theirs, shape in self._layers():
            yield f"{ours}.weight", f"{theirs}.weight", shape
            if len(shape) > 1 or self.norm is Norm:
                yield f"{ours}.bias", f"{theirs}.bias", shape[:1]

    def _layers(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        d, wide = self.width, self.block_width
        for block in (f"blocks.{i}" for i in range(self.depth)):
            yield f"{block}.norm1", f"{block}.norm1", (d,)
            yield f"{block}.qkv", f"{block}.attn.qkv", (3 * d, d)
            yield f"{block}.out", f"{block}.attn.proj", (d, d)
            yield f"{block}.norm2", f"{block}.norm2", (d,)
            *inner, last = self.mlp_names
            for ours in inner:
                yield f"{block}.mlp.{ours}", f"{block}.mlp.{self.mlp_names[ours]}", (self.mlp_width, d)
            yield f"{block}.mlp.{last}", f"{block}.mlp.{self.mlp_names[last]}", (d, self.mlp_width)
        norm, first, second = self.merger_names
        mergers = [("merger", "merger", d)]
        mergers += [(f"deepstack.{k}", f"deepstack_merger_list.{k}", wide) for k in range(len(self.deepstack_layers))]
        for ours, theirs, norm_width in mergers:
            yield f"{ours}.norm", f"{theirs}.{norm}", (norm_width,)
            yield f"{ours}.first", f"{theirs}.{first}", (wide, wide)
            yield f"{ours}.second", f"{theirs}.{second}", (self.out_width, wide)

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> QwenPositions:
        return QwenPositions(RotaryTable(self.width // self.heads, device=device))


def shape_fields(vision: Fields, width: int) -> dict[str, Any]:
    """The fields that all three read alike; `vision` is over `DEFAULTS`."""
    vision.require(_SUPPORTED)
    vision.section("rope_parameters").require(_ROPE)
    heads = vision.count("num_heads")
    if width % (4 * heads):
        raise vision.error("num_heads", f"heads share the width, {width}, in multiples of 4")
    return {
        "width": width,
        "depth": vision.count("depth"),
        "heads": heads,
        "patch_size": vision.count("patch_size"),
        "merge": vision.count("spatial_merge_size"),
        "frames": vision.count("temporal_patch_size"),
        "hidden_act": hidden_act(vision),
        "eps": _EPS,
    }


def vision_fields(fields: Fields, defaults: Mapping[str, Any]) -> Fields:
    """Of a whole model its vision_config, of a tower alone all of it; over the defaults."""
    vision = fields if str(fields.get("model_type")).endswith("_vision") else fields.section("vision_config")
    return vision.over(defaults)


def _shifted(orders: Sequence[NDArray[np.int64]], starts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [order + start for order, start in zip(orders, starts, strict=True)]


def _windows(lengths: NDArray[np.int64], device: torch.device) -> Segments:
    return Segments.at(np.cumsum([0, *lengths], dtype=np.int32), int(lengths.max()), device)
