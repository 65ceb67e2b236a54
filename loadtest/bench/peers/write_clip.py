"""Writes a CLIP model into a folder: a vision tower of the base shape at 256 tokens with random weights, the smallest
of text towers, and the tokenizer that infinity will not start without.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

_SIDE, _PATCH = 256, 16
_TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32, "vocab_size": 6}
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": _SIDE, "patch_size": _PATCH,
}  # fmt: skip


def main(folder: Path) -> None:
    torch.manual_seed(0)
    tokens = ["a", "b", "a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPConfig(vision_config=_VISION, text_config=_TEXT, projection_dim=512)
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(
        size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}, do_convert_rgb=True
    )
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
