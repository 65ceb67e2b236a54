"""Reads the config.json of timm's `naflexvit_*` checkpoints, as its `save_for_hf` writes it.

The arguments of a model are those that timm registers with its architecture, overridden by the file's own.
"""

from collections.abc import Collection, Mapping
from typing import Any

from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import mean_and_std
from model.encoders.timm.navit import NavitConfig
from model.kernels.linear import Activation
from model.sizing.geometry import Resample

# The defaults of timm's NaFlexVitCfg.
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
# The arguments that timm registers with each architecture. Its others, C-RADIO's, pool by a class token.
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
# Arguments that are supported with timm's default only.
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
# Arguments without effect here: they concern training, other inputs or the classifier.
_WITHOUT_EFFECT = {"drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"}
_WITHOUT_EFFECT |= {"drop_path_rate", "weight_init", "fix_init", "img_size", "dynamic_img_pad", "num_classes"}
_WITHOUT_EFFECT |= {"enable_patch_interpolator", "use_key_only_attn_mask", "qkv_fused"}

_ACTIVATIONS: dict[str | None, Activation] = {None: "gelu", "gelu": "gelu", "gelu_tanh": "gelu_tanh"}
# Named alike by timm and Pillow.
_RESAMPLE: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def read_config(fields: Fields, names: Collection[str]) -> NavitConfig:
    """From a config.json. Raises `CheckpointError`."""
    architecture = fields.get("architecture")
    if architecture not in ARCHITECTURES:
        raise fields.error("architecture", f"timm's architectures that are read are {', '.join(ARCHITECTURES)}")
    # timm treats an argument that is null as left out.
    given = fields.section("model_args").given()
    args = given.over(ARCHITECTURES[architecture]).over(DEFAULTS)
    for key in args:
        if key not in {*DEFAULTS, *_SUPPORTED, *_WITHOUT_EFFECT, "fc_norm"}:
            raise args.error(key, "this argument of the model is not supported")
    args.require(_SUPPORTED)
    pooling = _one_of(args, "global_pool", ("avg", "map"))
    args.require({"fc_norm": pooling == "avg"})
    # Old files describe pictures beside the architecture itself.
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
