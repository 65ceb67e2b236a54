"""DINOv3 ViT-B, beside Transformers' model."""

from pathlib import Path

from transformers import DINOv3ViTConfig, DINOv3ViTModel

from loadtest.bench.encoders.dino import REFERENCES

__all__ = ["LAYERS", "MULTIPLE", "PATCH", "REFERENCES", "SHAPE", "save"]

SHAPE, LAYERS, PATCH, MULTIPLE = "ViT-B", 12, 16, 1


def save(folder: Path, layers: int) -> None:
    shape = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_register_tokens": 4}
    DINOv3ViTModel(DINOv3ViTConfig(**shape, num_hidden_layers=layers)).save_pretrained(folder)
