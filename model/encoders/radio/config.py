"""Reads the config.json of C-RADIO, as Transformers' `RadioModel` writes it."""

from collections.abc import Collection
from typing import Any

from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import CLIP_NORMALISATION, mean_and_std
from model.encoders.parts.tensors import hidden_act
from model.encoders.radio.encoder import RadioConfig
from model.encoders.radio.names import MEAN, MODULES, STD, STORED, SUMMARY

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "mlp_ratio": 4.0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": False,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "num_channels": 3,
    "patch_size": 16,
    "image_size": 224,
    "max_img_size": 2048,
    "num_cls_tokens": 3,
    "num_registers": 7,
    "summary_idxs": [0, 1],
    "norm_mean": CLIP_NORMALISATION["image_mean"],
    "norm_std": CLIP_NORMALISATION["image_std"],
}


def read_config(fields: Fields, names: Collection[str]) -> RadioConfig:
    """From a config.json of model_type `radio`, and the names of the stored tensors."""
    given = fields.given().over(DEFAULTS)
    width, heads = given.count("hidden_size"), given.count("num_attention_heads")
    if width % heads:
        raise given.error("hidden_size", f"it is not a multiple of num_attention_heads, {heads}")
    given.require({"num_channels": 3, "head_dim": width // heads})
    gated = given.get("use_swiglu_ffn") is True
    mlp_width = int(width * given.positive("mlp_ratio"))
    class_tokens, patch_size = given.count("num_cls_tokens"), given.count("patch_size")
    table_side = given.count("max_img_size") // patch_size
    if not table_side:
        raise given.error("max_img_size", f"it holds no patch of {patch_size} pixels a side")
    mean, std = mean_and_std(given, "norm_mean", "norm_std")
    summary = given.indices("summary_idxs", below=class_tokens)
    if not summary:
        raise given.error("summary_idxs", "it names one class token at least")
    stored = STORED if f"{STORED.patch}.weight" in names else MODULES
    return RadioConfig(
        width=width,
        depth=given.count("num_hidden_layers"),
        heads=heads,
        # Two thirds of the width, up to a multiple of 8.
        mlp_width=(int(mlp_width * 2 / 3) + 7) // 8 * 8 if gated else mlp_width,
        patch_size=patch_size,
        eps=given.positive("layer_norm_eps"),
        hidden_act="silu" if gated else hidden_act(given),
        gated=gated,
        has_qkv_bias=given.get("qkv_bias") is True,
        layer_scale=(
            None if f"{stored.blocks}.0.layer_scale1.lambda1" in names else given.positive("layerscale_value")
        ),
        class_tokens=class_tokens,
        registers=given.count("num_registers") if given.get("num_registers") else 0,
        summary=summary,
        table_side=table_side,
        image_side=given.count("image_size"),
        mean=mean,
        std=std,
        names=stored,
        buffers=tuple(name for name in (MEAN, STD, SUMMARY) if name in names),
    )
