#!/usr/bin/env bash
# Transformers: a Kimi K2.5 that was loaded and saved again has tensors under names that the published weights never had.
#
# Versions: transformers 5.24.0, torch 2.13.0 (CPU), safetensors 0.8.0. Seen on 2026-11-30.
# Behaviour: on loading, names of the published checkpoint are turned into those of the modules, and on saving they are
#   turned back by the same rules in reverse. A rule that is meant for the vision tower (`blocks` for `layers`) also
#   renames the layers of the language model, and the patch embedding moves into `encoder`, where it never was. The
#   numbers are right, and Transformers reads them all again.
# Output seen:
#   language_model.model.blocks.0.input_layernorm.weight (published: language_model.model.layers.0.…)
#   vision_tower.encoder.patch_embed.proj.weight (published: vision_tower.patch_embed.proj.weight)
#   missing or unexpected when Transformers loads it again: 0
# Why it matters: servers that read the published names find neither the language model's layers nor the first layer of
#   the tower in a checkpoint that somebody tuned, cut or converted and saved. Read a tower by both spellings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 safetensors==0.8.0
venv/bin/python - <<'PYTHON'
import sys

from safetensors import safe_open
from transformers import Kimi_K25Config, Kimi_K25ForConditionalGeneration

sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
text = sizes | {
    "model_type": "deepseek_v3", "num_key_value_heads": 2, "moe_intermediate_size": 8, "n_routed_experts": 2,
    "num_experts_per_tok": 1, "first_k_dense_replace": 1, "vocab_size": 99, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4, "n_group": 1, "topk_group": 1,
}
vision = sizes | {"pos_emb_height": 4, "pos_emb_width": 4}
tokens = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
config = Kimi_K25Config(text_config=text, vision_config=vision, projection_hidden_size=32, **tokens)
Kimi_K25ForConditionalGeneration(config).save_pretrained("saved")
with safe_open("saved/model.safetensors", "pt") as file:
    names = {*file.keys()}
saved = ["language_model.model.blocks.0.input_layernorm.weight", "vision_tower.encoder.patch_embed.proj.weight"]
published = ["language_model.model.layers.0.…", "vision_tower.patch_embed.proj.weight"]
for name, other in zip(saved, published, strict=True):
    print(f"{name if name in names else 'no such tensor'} (published: {other})")
_, report = Kimi_K25ForConditionalGeneration.from_pretrained("saved", output_loading_info=True)
lost = len(report["missing_keys"]) + len(report["unexpected_keys"])
print(f"missing or unexpected when Transformers loads it again: {lost}")
sys.exit(0 if names.issuperset(saved) and not lost else "the behaviour has changed")
PYTHON
