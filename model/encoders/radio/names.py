"""How C-RADIO's tensors are named: as NVIDIA published them, or as the modules of Transformers have them."""

import re
from dataclasses import dataclass

from model.encoders.parts.keys import Keys

MEAN, STD, SUMMARY = "input_conditioner.norm_mean", "input_conditioner.norm_std", "summary_idxs"
"""Tensors that repeat what config.json says. Not every file has them."""


@dataclass(frozen=True, slots=True)
class Names:
    """How a checkpoint names what a tower holds. qkv: one layer, or one each for queries, keys and values."""

    patch: str
    table: str
    prefix: str
    blocks: str
    qkv: tuple[str, ...]
    out: str


# NVIDIA's names, which Transformers writes too, and those that its own modules have.
STORED = Names(
    patch="model.patch_generator.embedder",
    table="model.patch_generator.pos_embed",
    prefix="model.patch_generator.cls_token.token",
    blocks="model.blocks",
    qkv=("attn.qkv",),
    out="attn.proj",
)
MODULES = Names(
    patch="embeddings.patch_projection",
    table="embeddings.position_embedding",
    prefix="embeddings.cls_register_token",
    blocks="encoder.layer",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    out="attention.o_proj",
)
KEYS = Keys(
    anchor=re.compile(rf"((?:[^.]+\.)*)(?:{re.escape(STORED.patch)}|{re.escape(MODULES.patch)})\.weight"),
    prefixes=("radio_model.",),
    bare=re.compile(r"(model|embeddings|encoder|input_conditioner)\.|summary_idxs"),
    # Patches of several frames of a video have a projection of their own.
    ignored=re.compile(r"(model\.patch_generator\.video_embedder|embeddings\.video_patch_projection)\.weight"),
)
