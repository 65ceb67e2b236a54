"""A checkpoint of the base shape (12 layers of width 768, 86 million parameters) with random weights, in a folder."""

import json
from pathlib import Path

from safetensors.torch import save_file

from model.checkpoint import tiny
from model.encoders.siglip.naflex import NaFlexConfig

BASE = NaFlexConfig(width=768, depth=12, heads=12, mlp_width=3072)


def write_base_model(folder: Path) -> None:
    """As `save_pretrained` would lay it out. What the configuration leaves out is the base shape."""
    save_file(tiny.seeded_tensors(BASE), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip2_vision_model"}), encoding="utf-8")
