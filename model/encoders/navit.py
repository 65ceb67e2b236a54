"""NaViT as timm builds it (`naflexvit_*`): learned or factorised positions, register tokens, pooling by mean or by MAP.

Equal to timm's `NaFlexVit` (naflexvit.py, 1.0.31) on the same weights, without its padding: tokens as its
`forward_features` gives them, embeddings as `forward_head(pre_logits=True)` does. Class and register tokens are rows of
the sequence before each segment's own, and no image tokens. Knows nothing of images, devices or checkpoint files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from model.encoders.parts.blocks import Blocks, MapHead, Norm
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing, mean_and_std
from model.encoders.parts.tensors import Shapes, linear_shapes, norm_shapes, projected_probe, renamed
from model.encoders.parts.tower import (
    Arrangement,
    EncoderConfig,
    EncoderOutput,
    PrefixedArrangement,
    Setup,
    Tower,
    prefixed_arrangement,
)
from model.kernels.linear import Activation, pad_rows
from model.kernels.positions import FactorisedTable, GridPositions, PositionTable
from model.pack import PackedBatch
from model.sizing.geometry import Geometry, Resample

# What timm's NaFlexVitCfg takes for an argument that neither an architecture nor config.json gives.
DEFAULTS: dict[str, Any] = {
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "init_values": None,
    "class_token": False,
    "reg_tokens": 0,
    "pos_embed": "learned",
    "pos_embed_grid_size": [16, 16],
    "pos_embed_interp_mode": "bicubic",
    "pos_embed_ar_preserving": False,
    "global_pool": "map",
    "act_layer": None,
}
_GAP = {"init_values": 1e-5, "global_pool": "avg", "reg_tokens": 4, "fc_norm": True}
_SO150M2 = {"embed_dim": 832, "depth": 21, "num_heads": 13, "mlp_ratio": 34 / 13, "init_values": 1e-5}
_SO150M2 |= {"qkv_bias": False, "reg_tokens": 1}
_SIGLIP = {"act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"}
_SO400M = {"embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 3.7362}
# The arguments that timm registers with each; its others, C-RADIO's, pool by a class token.
ARCHITECTURES: Mapping[str, dict[str, Any]] = {
    "naflexvit_base_patch16_gap": _GAP,
    "naflexvit_base_patch16_par_gap": _GAP | {"pos_embed_ar_preserving": True},
    "naflexvit_base_patch16_parfac_gap": _GAP | {"pos_embed_ar_preserving": True, "pos_embed": "factorized"},
    "naflexvit_base_patch16_map": {"init_values": 1e-5, "reg_tokens": 1},
    "naflexvit_so150m2_patch16_reg1_gap": _SO150M2 | {"global_pool": "avg", "fc_norm": True},
    "naflexvit_so150m2_patch16_reg1_map": _SO150M2,
    "naflexvit_base_patch16_siglip": _SIGLIP,
    "naflexvit_so400m_patch16_siglip": _SIGLIP | _SO400M,
}
# Arguments that are supported with one value alone, timm's default.
_SUPPORTED: dict[str, Any] = {
    "in_chans": 3,
    "proj_bias": True,
    "final_norm": True,
    "embed_proj_type": "linear",
    "patchify_channels_last": True,
    "pos_embed_antialias": True,
    "attn_type": "standard",
    "rope_type": "",
}
_SUPPORTED |= dict.fromkeys(("pos_embed_align_corners", "pos_embed_use_grid_sample", "pre_norm", "qk_norm"), False)
_SUPPORTED |= dict.fromkeys(("scale_mlp_norm", "scale_attn_inner_norm", "attn_gated", "swiglu_mlp"), False)
_SUPPORTED |= dict.fromkeys(("attn_only_layer_scale", "pool_include_prefix"), False)
# Arguments that change nothing of what is computed here: of training, of other inputs, of the classifier.
_WITHOUT_EFFECT = {"drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"}
_WITHOUT_EFFECT |= {"drop_path_rate", "weight_init", "fix_init", "img_size", "dynamic_img_pad", "num_classes"}
_WITHOUT_EFFECT |= {"enable_patch_interpolator", "use_key_only_attn_mask", "qkv_fused"}

_ACTIVATIONS: dict[str | None, Activation] = {None: "gelu", "gelu": "gelu", "gelu_tanh": "gelu_tanh"}
# By the names of both timm and Pillow.
_RESAMPLE: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
# Of timm's evaluation, whatever a checkpoint was trained on.
_DEFAULT_MAX_TOKENS = 576


class NavitEncoder(Tower):
    """Packed patches to tokens, without the final norm where it comes after the mean, and a pooled vector a segment."""

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
        """The residual stream is float32 in every dtype: bfloat16 sums would cost more accuracy than all products."""
        assert isinstance(arrangement, PrefixedArrangement)
        embedded = self.patch(pad_rows(patches, self._row_multiple))[: len(patches)].float()
        positions = pad_rows(arrangement.positions, self._row_multiple)
        x = torch.zeros_like(positions).index_copy_(0, arrangement.token_rows, embedded) + positions
        features = self.blocks(x, arrangement.segments)
        tokens = x.index_select(0, arrangement.token_rows)
        if self.head is None:
            # One mean a segment: the bits of a sum over a part of the pack could depend on where the part lies in it.
            spans = pairwise(arrangement.images.offsets)
            pooled = self.norm.in_float32(torch.stack([tokens[start:end].mean(0) for start, end in spans]))
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
    """prefix_tokens: a class token first, if there is one, then registers. scaled: whether blocks have a layer scale.

    table_grid: of the learned positions. mean, std, resample: of the pictures, which timm says in the same file.
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
        return self.has_class_token + self.registers

    @property
    def final_norm(self) -> str:
        """The norm's name in timm, which says where it stands: a mean is normed after it is taken."""
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
        """A layer scale goes into the layer before it, and a bias that is not there is zeros."""
        names = {"norm1": "norm1", "norm2": "norm2", "mlp.0": "mlp.fc1", "mlp.1": "mlp.fc2", "out": "attn.proj"}
        weights = renamed(tensors, {f"{block}.{ours}": f"{block}.{theirs}" for ours, theirs in names.items()})
        qkv = weights[f"{block}.qkv.weight"] = tensors[f"{block}.attn.qkv.weight"]
        weights[f"{block}.qkv.bias"] = (
            tensors[f"{block}.attn.qkv.bias"] if self.qkv_bias else torch.zeros(len(qkv), dtype=qkv.dtype)
        )
        if self.scaled:
            for layer, scale in (("out", "ls1"), ("mlp.1", "ls2")):
                gamma = tensors[f"{block}.{scale}.gamma"].float()
                weights[f"{block}.{layer}.weight"] = weights[f"{block}.{layer}.weight"].float() * gamma.unsqueeze(1)
                weights[f"{block}.{layer}.bias"] = weights[f"{block}.{layer}.bias"].float() * gamma
        return weights

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> GridPositions:
        """Class and register tokens have none, and stand in their place."""
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


def read_config(fields: Fields, names: Collection[str]) -> NavitConfig:
    """From a config.json as timm's `save_for_hf` writes it."""
    architecture = fields.get("architecture")
    if architecture not in ARCHITECTURES:
        raise fields.error("architecture", f"of timm's, those that are read are {', '.join(ARCHITECTURES)}")
    # timm leaves out an argument that is null.
    given = fields.section("model_args").given()
    args = given.over(ARCHITECTURES[architecture]).over(DEFAULTS)
    for key in args:
        if key not in {*DEFAULTS, *_SUPPORTED, *_WITHOUT_EFFECT, "fc_norm"}:
            raise args.error(key, "this argument of the model is not supported")
    args.require(_SUPPORTED)
    pooling = _one_of(args, "global_pool", ("avg", "map"))
    args.require({"fc_norm": pooling == "avg"})
    # In old files pictures are spoken of beside the architecture itself.
    pictures = fields if fields.get("pretrained_cfg") is None else fields.section("pretrained_cfg")
    pictures = pictures.given().over({"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"})
    mean, std = mean_and_std(pictures, "mean", "std")
    return NavitConfig(
        **_shape_fields(args),
        activation=_ACTIVATIONS[_one_of(args, "act_layer", tuple(_ACTIVATIONS))],
        qkv_bias=bool(args.get("qkv_bias")),
        scaled=bool(args.get("init_values")),
        has_class_token=bool(args.get("class_token")),
        registers=args.count("reg_tokens") if args.get("reg_tokens") else 0,
        table=_one_of(args, "pos_embed", ("learned", "factorized")),
        table_grid=_grid(args),
        table_mode=_one_of(args, "pos_embed_interp_mode", ("bilinear", "bicubic")),
        keeps_aspect=bool(args.get("pos_embed_ar_preserving")),
        pooling=pooling,
        mean=mean,
        std=std,
        resample=_one_of(pictures, "interpolation", _RESAMPLE),
    )


def _shape_fields(args: Fields) -> dict[str, Any]:
    width, heads = args.count("embed_dim"), args.count("num_heads")
    if width % heads:
        raise args.error("embed_dim", f"it is not a multiple of num_heads, {heads}")
    return {
        "width": width,
        "depth": args.count("depth"),
        "heads": heads,
        "mlp_width": int(width * args.positive("mlp_ratio")),
        "patch_size": args.count("patch_size"),
        "eps": 1e-6,
    }


def _one_of(fields: Fields, key: str, values: tuple[Any, ...]) -> Any:
    value = fields.get(key)
    if isinstance(value, list | dict) or value not in values:
        raise fields.error(key, f"it is one of {', '.join(map(str, values))}")
    return value


def _grid(args: Fields) -> tuple[int, int]:
    grid = args.get("pos_embed_grid_size")
    if not isinstance(grid, list) or len(grid) != 2 or not all(type(side) is int and side >= 1 for side in grid):
        raise args.error("pos_embed_grid_size", "it is a list of two positive whole numbers")
    return grid[0], grid[1]
