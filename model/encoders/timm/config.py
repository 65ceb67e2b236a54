"""Reads the config.json of timm's vision transformers, as its `save_for_hf` writes it.

The arguments of a model are those that timm registers with its architecture, overridden by the file's own.
"""

from collections.abc import Collection
from typing import Any

from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import mean_and_std
from model.encoders.timm.architectures import ARCHITECTURES, DEFAULTS, EVA, as_naflex
from model.encoders.timm.block import StoredBlock
from model.encoders.timm.names import CLASSIC, PATCH
from model.encoders.timm.navit import NavitConfig, PoolShape
from model.encoders.timm.rotary import Rotary
from model.kernels.activations import Activation
from model.sizing.geometry import Resample

# Arguments that are supported with timm's default only.
_SUPPORTED: dict[str, Any] = {
    "in_chans": 3,
    "proj_bias": True,
    "embed_proj_type": "linear",
    "patchify_channels_last": True,
}
_SUPPORTED |= dict.fromkeys(("pos_embed_use_grid_sample", "qk_norm", "attn_gated", "attn_only_layer_scale"), False)
_SUPPORTED |= dict.fromkeys(("scale_mlp_norm", "scale_attn_inner_norm", "use_post_norm"), False)
# Arguments without effect here: they concern training, other inputs or the classifier.
_WITHOUT_EFFECT = {"drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"}
_WITHOUT_EFFECT |= {"drop_path_rate", "weight_init", "fix_init", "img_size", "dynamic_img_pad", "num_classes"}
_WITHOUT_EFFECT |= {"enable_patch_interpolator", "use_key_only_attn_mask", "dynamic_img_size", "no_embed_class"}
_WITHOUT_EFFECT |= {"rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"}

_ACTIVATIONS: dict[str | None, Activation] = {None: "gelu", "gelu": "gelu", "gelu_tanh": "gelu_tanh"}
# Named alike by timm and Pillow.
_RESAMPLE: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
# timm evaluates a `naflexvit_*` with this, whatever it was trained with.
_NAFLEX_MAX_TOKENS = 576


def read_config(fields: Fields, names: Collection[str]) -> NavitConfig:
    """From a config.json, and the names of the stored tensors. Raises `CheckpointError`."""
    architecture = fields.get("architecture")
    if architecture not in ARCHITECTURES:
        raise fields.error("architecture", f"timm's architectures that are read are {', '.join(ARCHITECTURES)}")
    # timm treats an argument that is null as left out.
    own = fields.section("model_args").given().over(ARCHITECTURES[architecture])
    args = Fields(fields.path, as_naflex({key: own.get(key) for key in own})) if architecture in EVA else own
    args = args.over(DEFAULTS)
    for key in args:
        if key not in {*DEFAULTS, *_SUPPORTED, *_WITHOUT_EFFECT}:
            raise args.error(key, "this argument of the model is not supported")
    args.require(_SUPPORTED)
    # Old files describe pictures beside the architecture itself.
    pictures = fields if fields.get("pretrained_cfg") is None else fields.section("pretrained_cfg")
    halves = {} if architecture in EVA else {"mean": [0.5] * 3, "std": [0.5] * 3}
    pictures = pictures.given().over({"interpolation": "bicubic"} | halves)
    mean, std = mean_and_std(pictures, "mean", "std")
    grid = _grid(args, pictures)
    pooling = _one_of(args, "global_pool", ("avg", "map", "token"))
    classic = f"{CLASSIC[PATCH]}.weight" in names
    shape = _shape_fields(args)
    return NavitConfig(
        **shape,
        activation=_ACTIVATIONS[_one_of(args, "act_layer", tuple(_ACTIVATIONS))],
        block=_block(args),
        pre_norm=args.flag("pre_norm"),
        final_norm=_final_norm(args, pooling),
        has_class_token=args.flag("class_token"),
        registers=args.count("reg_tokens") if args.get("reg_tokens") else 0,
        table=_one_of(args, "pos_embed", ("learned", "factorized", "none")),
        table_grid=grid,
        table_mode=_one_of(args, "pos_embed_interp_mode", ("bilinear", "bicubic")),
        keeps_aspect=args.flag("pos_embed_ar_preserving"),
        antialias=args.flag("pos_embed_antialias"),
        align_corners=args.flag("pos_embed_align_corners"),
        rotary=_rotary(args),
        pooling=pooling,
        pools_prefix=args.flag("pool_include_prefix"),
        pool=_pool(args, shape),
        classic=classic,
        class_has_position=classic and args.flag("class_token") and not args.get("no_embed_class"),
        mean=mean,
        std=std,
        resample=_one_of(pictures, "interpolation", _RESAMPLE),
        default_max_tokens=grid[0] * grid[1] if architecture in EVA else _NAFLEX_MAX_TOKENS,
    )


def _shape_fields(args: Fields) -> dict[str, Any]:
    width, heads = args.count("embed_dim"), args.count("num_heads")
    if width % heads:
        raise args.error("embed_dim", f"it is not a multiple of num_heads, {heads}")
    mlp_width = int(width * args.positive("mlp_ratio"))
    if args.get("swiglu_mlp") and args.get("swiglu_align_to"):
        mlp_width += -mlp_width % args.count("swiglu_align_to")
    return {
        "width": width,
        "depth": args.count("depth"),
        "heads": heads,
        "mlp_width": mlp_width,
        "patch_size": args.count("patch_size"),
        "eps": args.positive("norm_eps"),
    }


def _block(args: Fields) -> StoredBlock:
    """As timm's `get_block_fn` chooses among its classes of blocks and of attention."""
    attention, gated = _one_of(args, "attn_type", ("standard", "eva", "rope")), args.flag("swiglu_mlp")
    rotary = args.get("rope_type") not in ("", "none")
    is_eva = attention != "standard" or rotary or gated
    scales = ("gamma_1", "gamma_2") if is_eva else ("ls1.gamma", "ls2.gamma")
    has_scales = args.get("init_values") is not None if is_eva else bool(args.get("init_values"))
    return StoredBlock(
        bias=args.flag("qkv_bias"),
        biased_keys=not is_eva or attention == "rope" or (attention == "standard" and rotary),
        fused=not is_eva or args.flag("qkv_fused"),
        scales=scales if has_scales else None,
        mlp=("split" if args.get("swiglu_align_to") else "packed") if gated else "plain",
        neighbours=rotary and not args.flag("rope_rotate_half"),
    )


def _final_norm(args: Fields, pooling: str) -> Any:
    if not args.flag("final_norm"):
        return None
    after = pooling == "avg" if args.get("fc_norm") is None else args.flag("fc_norm")
    return "after" if after else "before"


def _rotary(args: Fields) -> Rotary | None:
    kind = _one_of(args, "rope_type", ("", "none", "axial", "dinov3"))
    if kind in ("", "none"):
        return None
    width, heads = args.count("embed_dim"), args.count("num_heads")
    if width // heads % 4:
        raise args.error("num_heads", f"the width, {width}, is not a multiple of 4 for each head")
    reference = args.get("rope_ref_feat_shape")
    return Rotary(
        kind=kind,
        temperature=args.positive("rope_temperature"),
        reference=None if reference is None or kind == "dinov3" else _pair(args, "rope_ref_feat_shape"),
        offset=args.number("rope_grid_offset"),
        column_first=_one_of(args, "rope_grid_indexing", ("ij", "xy")) == "xy",
        halves=args.flag("rope_rotate_half"),
    )


def _pool(args: Fields, shape: dict[str, Any]) -> PoolShape:
    width, eps = shape["width"], shape["eps"]
    heads = args.count("attn_pool_num_heads") if args.get("attn_pool_num_heads") else shape["heads"]
    if width % heads:
        raise args.error("attn_pool_num_heads", f"it does not divide the width, {width}")
    ratio = args.positive("attn_pool_mlp_ratio" if args.get("attn_pool_mlp_ratio") else "mlp_ratio")
    return PoolShape(width, heads, int(width * ratio), eps)


def _one_of(fields: Fields, key: str, values: tuple[Any, ...]) -> Any:
    value = fields.get(key)
    if isinstance(value, list | dict) or value not in values:
        raise fields.error(key, f"it is one of {', '.join(map(str, values))}")
    return value


def _grid(args: Fields, pictures: Fields) -> tuple[int, int]:
    """The grid of the position table. timm falls back on the size of the pictures that the model was trained with."""
    if args.get("pos_embed_grid_size") is not None:
        return _pair(args, "pos_embed_grid_size")
    if args.get("img_size") is not None:
        side = args.get("img_size")
        height, width = (side, side) if isinstance(side, int) else _pair(args, "img_size")
    else:
        size = pictures.get("input_size")
        if not isinstance(size, list) or len(size) != 3 or not all(type(side) is int for side in size):
            raise pictures.error("input_size", "it is a list of channels, height and width")
        height, width = size[1:]
    patch = args.count("patch_size")
    if min(height, width) < patch:
        raise args.error("img_size", f"it holds no patch of {patch} pixels a side")
    return height // patch, width // patch


def _pair(args: Fields, key: str) -> tuple[int, int]:
    pair = args.get(key)
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(side) is int and side >= 1 for side in pair):
        raise args.error(key, "it is a list of two positive whole numbers")
    return pair[0], pair[1]
