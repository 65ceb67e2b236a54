"""DINOv2 base with registers, beside Transformers' model."""

from pathlib import Path

from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from loadtest.bench.encoders.dino import REFERENCES

__all__ = ["LAYERS", "MULTIPLE", "PATCH", "REFERENCES", "SHAPE", "save"]

SHAPE, LAYERS, PATCH, MULTIPLE = "base with registers", 12, 14, 1


def save(folder: Path, layers: int) -> None:
    config = Dinov2WithRegistersConfig(image_size=518, patch_size=PATCH, num_hidden_layers=layers)
    Dinov2WithRegistersModel(config).save_pretrained(folder)
