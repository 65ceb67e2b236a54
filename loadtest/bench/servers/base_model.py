"""Checkpoints with random weights, in a folder as `save_pretrained` would lay it out."""

import json
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from model.checkpoint import tiny
from model.encoders.siglip.naflex import NaFlexConfig

BASE = NaFlexConfig(width=768, depth=12, heads=12, mlp_width=3072)
"""12 layers of width 768, 86 million parameters."""


def write_base_model(folder: Path, layers: int = BASE.depth) -> None:
    write_model(folder, replace(BASE, depth=layers))


def write_model(folder: Path, config: NaFlexConfig) -> None:
    """A vision tower that other programs can read too."""
    save_file(tiny.seeded_tensors(config), folder / "model.safetensors", {"format": "pt"})
    shape = {
        "model_type": "siglip2_vision_model",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
    }
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")
