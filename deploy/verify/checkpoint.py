"""Writes the tensors of packlight-tiny as a checkpoint that a hub would carry. Run in the image: `- FOLDER`."""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from model.checkpoint.load import load_checkpoint
from model.checkpoint.tiny import CONFIG, NAME


def main() -> None:
    folder = Path(sys.argv[1])
    config = {
        "model_type": "siglip2_vision_model",
        "hidden_size": CONFIG.width,
        "intermediate_size": CONFIG.mlp_width,
        "num_hidden_layers": CONFIG.depth,
        "num_attention_heads": CONFIG.heads,
        "patch_size": CONFIG.patch_size,
        "num_patches": CONFIG.table_side**2,
        "layer_norm_eps": CONFIG.eps,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_checkpoint(NAME).tensors
    save_file({f"vision_model.{name}": value for name, value in tensors.items()}, folder / "model.safetensors")


if __name__ == "__main__":
    main()
