"""Reads the config.json of an EmbeddingGemma 2. An audio tower in the checkpoint is not read.

Equal to Transformers' `EmbeddingGemma2Model` (modeling_embedding_gemma2.py) on the same weights.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from model.encoders.gemma.config import GemmaConfig
from model.encoders.gemma.encoder import GemmaEncoder
from model.encoders.gemma.frame import read_context, read_frame
from model.encoders.gemma.layers import LayerShape
from model.encoders.gemma.text import TextLayer
from model.encoders.gemma.vision import THETA
from model.encoders.parts.arrangement import Positions
from model.encoders.parts.axial import axial_rope
from model.encoders.parts.fields import Fields
from model.encoders.parts.soft_tokens import SOFT_TOKENS
from model.encoders.parts.tower import Setup
from model.kernels.attention import Attention
from model.kernels.linear import LinearKernel

# Transformers' defaults for keys that config.json leaves out.
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "rms_norm_eps": 1e-6,
    "pooling_kernel_size": 3,
    "patch_size": 16,
    "position_embedding_size": 10240,
    "standardize": False,
}
TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "max_position_embeddings": 262_144,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "hidden_size_per_layer_input": 512,
    "embedding_dim": 768,
}
_ROPE: dict[str, Any] = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
CONTROL_IDS = {"bos_token_id": 2, "eos_token_id": 1}
IMAGE_IDS = {"boi_token_id": 255_999, "eoi_token_id": 258_882}
_TYPES = ("sliding_attention", "full_attention")
# The heads of full layers, where `per_layer_config` does not give them.
_GLOBAL = {"head_dim": 512, "num_key_value_heads": 1}
_SUPPORTED = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingGemma2Config(GemmaConfig):
    def encoder(
        self, *, positions: Positions, attention: Attention, kernel: LinearKernel, features_after: int | None
    ) -> GemmaEncoder:
        return GemmaEncoder(self, Setup(positions, attention, kernel, features_after))


def read_config(fields: Fields, names: Collection[str]) -> EmbeddingGemma2Config:
    """From a config.json of model_type `embedding_gemma2`, and the tokenizer beside it."""
    if not isinstance(fields.get("vision_config"), dict):
        raise fields.error("vision_config", "a text encoder alone is not served: it sees no pictures")
    vision = fields.section("vision_config").over(VISION_DEFAULTS)
    vision.require(_SUPPORTED | {"model_type": "gemma4_vision"})
    axial_rope(vision, theta=THETA).require({"rope_theta": THETA})
    pooled, length = vision.count("pooling_kernel_size"), vision.count("position_embedding_size")
    if length < pooled * max(SOFT_TOKENS):
        raise vision.error("position_embedding_size", f"an image may be {pooled * max(SOFT_TOKENS)} patches long")
    shape = replace(_shape(vision), clipped=vision.get("use_clipped_linears") is True)
    text = fields.section("text_config").over(TEXT_DEFAULTS)
    text.require(_SUPPORTED)
    folder = fields.path.parent
    return EmbeddingGemma2Config(
        width=shape.width,
        depth=vision.count("num_hidden_layers"),
        heads=shape.heads,
        mlp_width=shape.mlp_width,
        eps=shape.eps,
        patch_size=vision.count("patch_size"),
        shape=shape,
        pooled=pooled,
        standardised=vision.get("standardize") is True,
        table_length=length,
        text_layers=_text_layers(text),
        vocabulary=text.count("vocab_size"),
        out_width=text.count("embedding_dim"),
        frame=read_frame(folder, fields.over(IMAGE_IDS), text.over(CONTROL_IDS)),
        context=read_context(folder, text.count("max_position_embeddings")),
    )


def _shape(fields: Fields, *, signal_width: int | None = None) -> LayerShape:
    heads, shared, width = (fields.count(key) for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    if heads % shared:
        raise fields.error("num_key_value_heads", f"it does not divide num_attention_heads, {heads}")
    if width % 4:
        raise fields.error("head_dim", "it is a multiple of 4")
    return LayerShape(
        width=fields.count("hidden_size"),
        heads=heads,
        shared_heads=shared,
        head_width=width,
        mlp_width=fields.count("intermediate_size"),
        eps=fields.positive("rms_norm_eps"),
        signal_width=signal_width,
    )


def _text_layers(text: Fields) -> tuple[TextLayer, ...]:
    """By `layer_types`, five sliding ones and a full one by default, and what `per_layer_config` says of each."""
    depth, signal_width = text.count("num_hidden_layers"), text.count("hidden_size_per_layer_input")
    types = text.get("layer_types") or [_TYPES[(i + 1) % 6 == 0] for i in range(depth)]
    if not isinstance(types, list) or len(types) != depth or not {*types} <= {*_TYPES}:
        raise text.error("layer_types", f"it has one of {', '.join(_TYPES)} for each of {depth} layers")
    # Transformers makes the last layer a full one, whatever the file says.
    types = [*types[:-1], _TYPES[True]]
    rope = text.section("rope_parameters").over(_ROPE)
    own = text.over({"per_layer_config": {}}).section("per_layer_config")
    layers = []
    for i, kind in enumerate(types):
        rope.section(kind).require({"rope_type": "default"})
        wide = _GLOBAL if kind == _TYPES[True] and not own else {}
        shape = _shape(
            own.section(str(i)).over({**{key: text.get(key) for key in text}, **wide}), signal_width=signal_width
        )
        window = text.count("sliding_window") if kind == _TYPES[False] else None
        layers.append(TextLayer(shape, window, rope.section(kind).positive("rope_theta")))
    return tuple(layers)
