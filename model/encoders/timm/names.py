"""How timm's tensors are named: as a `NaFlexVit` has them, or as the model that it was made from."""

import re

from model.encoders.parts.keys import Keys

KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)(?:embeds|patch_embed)\.proj\.weight"),
    bare=re.compile(
        r"(embeds|patch_embed|blocks|norm|norm_pre|fc_norm|attn_pool|rope|head)\.|cls_token|reg_token|pos_embed"
    ),
    # A classifier, and frequencies that follow from the configuration.
    ignored=re.compile(r"head\.(weight|bias)|rope\.(bands|periods)"),
)
PATCH, CLASS, REGISTERS, TABLE = "embeds.proj", "embeds.cls_token", "embeds.reg_token", "embeds.pos_embed"
CLASSIC = {PATCH: "patch_embed.proj", CLASS: "cls_token", REGISTERS: "reg_token", TABLE: "pos_embed"}
"""The names of a model that is not a `NaFlexVit`, by that one's."""
