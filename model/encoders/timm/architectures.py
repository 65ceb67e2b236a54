"""The arguments that timm 1.0.31 registers with its architectures, by the names that the constructors take.

`NAFLEX` are those of `NaFlexVit`. `EVA` are those of `Eva`, which timm builds as a `NaFlexVit` with `use_naflex=True`;
`as_naflex` translates them. `norm_eps` is ours: timm passes a function there.
"""

from collections.abc import Mapping
from typing import Any

# The defaults of timm's NaFlexVitCfg.
DEFAULTS: dict[str, Any] = {
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "qkv_fused": True,
    "attn_type": "standard",
    "init_values": None,
    "class_token": False,
    "reg_tokens": 0,
    "pos_embed": "learned",
    "pos_embed_grid_size": [16, 16],
    "pos_embed_interp_mode": "bicubic",
    "pos_embed_ar_preserving": False,
    "pos_embed_antialias": True,
    "pos_embed_align_corners": False,
    "rope_type": "",
    "rope_temperature": 10_000.0,
    "rope_ref_feat_shape": None,
    "rope_grid_offset": 0.0,
    "rope_grid_indexing": "ij",
    "rope_rotate_half": False,
    "pre_norm": False,
    "final_norm": True,
    "fc_norm": None,
    "global_pool": "map",
    "pool_include_prefix": False,
    "attn_pool_num_heads": None,
    "attn_pool_mlp_ratio": None,
    "swiglu_mlp": False,
    "swiglu_align_to": 0,
    "act_layer": None,
    "norm_eps": 1e-6,
}
_GAP = {"init_values": 1e-5, "global_pool": "avg", "reg_tokens": 4, "fc_norm": True}
_SO150M2 = {"embed_dim": 832, "depth": 21, "num_heads": 13, "mlp_ratio": 34 / 13, "init_values": 1e-5}
_SO150M2 |= {"qkv_bias": False, "reg_tokens": 1}
_SIGLIP = {"act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"}
_SO400M = {"embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 3.7362}
# The table is resized as C-RADIO does it. Its class tokens but the first count as registers.
_RADIO = {"class_token": True, "global_pool": "token", "final_norm": False, "pos_embed_grid_size": [128, 128]}
_RADIO |= {"pos_embed_interp_mode": "bilinear", "pos_embed_ar_preserving": True, "pos_embed_antialias": False}
_RADIO_3, _RADIO_4 = _RADIO | {"reg_tokens": 7}, _RADIO | {"reg_tokens": 9}
_CORNERS = {"pos_embed_align_corners": True}
_LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
_GIANT = {"embed_dim": 1536, "depth": 40, "num_heads": 24}
NAFLEX: Mapping[str, dict[str, Any]] = {
    "naflexvit_base_patch16_gap": _GAP,
    "naflexvit_base_patch16_par_gap": _GAP | {"pos_embed_ar_preserving": True},
    "naflexvit_base_patch16_parfac_gap": _GAP | {"pos_embed_ar_preserving": True, "pos_embed": "factorized"},
    "naflexvit_base_patch16_map": {"init_values": 1e-5, "reg_tokens": 1},
    "naflexvit_so150m2_patch16_reg1_gap": _SO150M2 | {"global_pool": "avg", "fc_norm": True},
    "naflexvit_so150m2_patch16_reg1_map": _SO150M2,
    "naflexvit_base_patch16_siglip": _SIGLIP,
    "naflexvit_so400m_patch16_siglip": _SIGLIP | _SO400M,
    "naflexvit_base_patch16_radio_v3": _RADIO_3 | _CORNERS | {"init_values": 1e-5},
    "naflexvit_large_patch16_radio_v3": _RADIO_3 | _LARGE | {"init_values": 1e-5},
    "naflexvit_huge_patch16_radio_v3": _RADIO_3 | _HUGE | _CORNERS,
    "naflexvit_giant_patch16_radio_v3": _RADIO_3 | _GIANT,
    "naflexvit_so400m_patch16_radio_v4": _RADIO_4 | _SO400M | {"mlp_ratio": 4304 / 1152},
    "naflexvit_huge_patch16_radio_v4": _RADIO_4 | _HUGE,
}

# Perception Encoder: rotary positions from 1 on, the column first.
_PE = {"attn_type": "rope", "use_pre_transformer_norm": True, "use_rot_pos_emb": True, "rope_grid_indexing": "xy"}
_PE |= {"norm_eps": 1e-5}
_CLASS = {"rope_grid_offset": 1.0}
_CORE = _PE | {"global_pool": "map", "attn_pool_num_heads": 8, "attn_pool_mlp_ratio": 4.0}
_BARE = _PE | {"use_post_transformer_norm": False, "use_fc_norm": False, "ref_feat_shape": [32, 32]}
_TINY, _SMALL = {"embed_dim": 192, "num_heads": 3}, {"embed_dim": 384, "num_heads": 6}
_PE_LARGE = {"patch_size": 14} | _LARGE
_PE_GIANT = {"patch_size": 14, "embed_dim": 1536, "depth": 50, "num_heads": 16, "mlp_ratio": 8960 / 1536}
_PE_GIANT |= {"class_token": False}
_SCALED = {"init_values": 0.1}
_DINO = {"rope_type": "dinov3", "rope_temperature": 100.0, "rope_rotate_half": True, "use_rot_pos_emb": True}
_DINO |= {"use_abs_pos_emb": False, "num_reg_tokens": 4, "use_fc_norm": False, "init_values": 1e-5, "norm_eps": 1e-5}
_DINO_BIASED, _DINO_PLAIN = _DINO, _DINO | {"qkv_bias": False}
_SWIGLU_8 = {"swiglu_mlp": True, "swiglu_align_to": 8}
_DINO_HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 20} | _SWIGLU_8
_AXIAL = {"attn_type": "rope", "init_values": 1e-5, "global_pool": "token", "use_rot_pos_emb": True}
_AXIAL |= {"use_abs_pos_emb": False, "rope_grid_indexing": "xy", "rope_temperature": 100.0}
EVA: Mapping[str, dict[str, Any]] = {
    "vit_pe_core_tiny_patch16_384": _CORE | _CLASS | _TINY | {"ref_feat_shape": [24, 24]},
    "vit_pe_core_small_patch16_384": _CORE | _CLASS | _SMALL | {"ref_feat_shape": [24, 24]},
    "vit_pe_core_base_patch16_224": _CORE | _CLASS | {"ref_feat_shape": [14, 14]},
    "vit_pe_core_large_patch14_336": _CORE | _CLASS | _PE_LARGE | {"ref_feat_shape": [24, 24]},
    "vit_pe_core_gigantic_patch14_448": _CORE | _PE_GIANT | {"ref_feat_shape": [32, 32]},
    "vit_pe_lang_large_patch14_448": _BARE | _CLASS | _PE_LARGE | _SCALED | {"depth": 23},
    "vit_pe_lang_gigantic_patch14_448": _BARE | _PE_GIANT | _SCALED | {"depth": 47},
    "vit_pe_spatial_tiny_patch16_512": _BARE | _CLASS | _TINY,
    "vit_pe_spatial_small_patch16_512": _BARE | _CLASS | _SMALL,
    "vit_pe_spatial_base_patch16_512": _BARE | _CLASS,
    "vit_pe_spatial_large_patch14_448": _BARE | _CLASS | _PE_LARGE,
    "vit_pe_spatial_gigantic_patch14_448": _BARE | _PE_GIANT | _SCALED,
    "vit_tiny_patch16_dinov3_qkvb": _DINO_BIASED | _TINY,
    "vit_small_patch16_dinov3": _DINO_PLAIN | _SMALL,
    "vit_small_patch16_dinov3_qkvb": _DINO_BIASED | _SMALL,
    "vit_small_plus_patch16_dinov3": _DINO_PLAIN | _SMALL | _SWIGLU_8,
    "vit_small_plus_patch16_dinov3_qkvb": _DINO_BIASED | _SMALL | _SWIGLU_8,
    "vit_base_patch16_dinov3": _DINO_PLAIN,
    "vit_base_patch16_dinov3_qkvb": _DINO_BIASED,
    "vit_large_patch16_dinov3": _DINO_PLAIN | _LARGE,
    "vit_large_patch16_dinov3_qkvb": _DINO_BIASED | _LARGE,
    "vit_huge_plus_patch16_dinov3": _DINO_PLAIN | _DINO_HUGE,
    "vit_huge_plus_patch16_dinov3_qkvb": _DINO_BIASED | _DINO_HUGE,
    "vit_small_patch16_rope_224": _AXIAL | _SMALL,
    "vit_base_patch16_rope_224": _AXIAL | {"use_fc_norm": False},
    "vit_large_patch16_rope_224": _AXIAL | _LARGE,
}
ARCHITECTURES: Mapping[str, dict[str, Any]] = {**NAFLEX, **EVA}

# What `Eva` calls an argument of `NaFlexVit`.
_RENAMED = {
    "use_pre_transformer_norm": "pre_norm",
    "num_reg_tokens": "reg_tokens",
    "ref_feat_shape": "rope_ref_feat_shape",
    "scale_mlp": "scale_mlp_norm",
    "scale_attn_inner": "scale_attn_inner_norm",
}
# Arguments of `NaFlexVit` that a file with `use_naflex` may give over what follows from `Eva`'s.
_OWN = (*_RENAMED.values(), "pos_embed", "pos_embed_grid_size", "final_norm", "fc_norm")


def as_naflex(eva: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Eva` as those of `NaFlexVit`, as timm's `_create_naflexvit_from_eva` translates them.

    One thing differs: `Eva` pools by attention over class token and registers too, which `use_naflex=True` leaves
    out. A file that says `use_naflex` gets timm's `NaFlexVit`, any other what its weights were trained as.
    """
    args = {"attn_type": "eva", "class_token": True, "global_pool": "avg"} | dict(eva)
    is_naflex = bool(args.pop("use_naflex", False))
    own = {key: args.pop(key) for key in _OWN if is_naflex and key in args}
    args = {_RENAMED.get(key, key): value for key, value in args.items()}
    args["rope_type"] = _take_rope_type(args, is_naflex=is_naflex)
    args["pos_embed"] = "learned" if args.pop("use_abs_pos_emb", True) else "none"
    after, before = args.pop("use_fc_norm", None), args.pop("use_post_transformer_norm", None)
    after = own.get("fc_norm", args["global_pool"] == "avg" if after is None else after)
    before = not after if before is None else before
    args |= {"fc_norm": after, "final_norm": bool(before or after), "pos_embed_grid_size": None}
    if not is_naflex:
        args["pool_include_prefix"] = args["global_pool"] == "map"
    return args | own


def _take_rope_type(args: dict[str, Any], *, is_naflex: bool) -> Any:
    """From `Eva`'s type and switches, which leave `args`. `Eva` looks at the type only with `use_rot_pos_emb`."""
    stated = args.pop("rope_type", None)
    rotary, mixed = args.pop("use_rot_pos_emb", False), args.pop("rope_mixed_mode", False)
    if stated in (None, "", "none"):
        return ("mixed" if mixed else "axial") if rotary else ""
    return stated if rotary or is_naflex else ""
