"""Finds the family of a checkpoint from its config.json: by `model_type`, or by timm's `architecture`."""

from collections.abc import Callable, Collection, Mapping

from model.encoders import (
    clip,
    clip_text,
    naflex,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_vl,
    siglip,
    siglip_text,
    timm_config,
)
from model.encoders.parts.fields import Fields
from model.encoders.parts.text_tower import TextConfig
from model.encoders.parts.tower import EncoderConfig

Reader = Callable[[Fields, Collection[str]], EncoderConfig]

# SigLIP 2 checkpoints of a fixed resolution call themselves siglip.
READERS: Mapping[str, Reader] = {
    "siglip2": naflex.read_config,
    "siglip2_vision_model": naflex.read_config,
    "siglip": siglip.read_config,
    "siglip_vision_model": siglip.read_config,
    "clip": clip.read_config,
    "clip_vision_model": clip.read_config,
    "qwen2_vl": qwen2_vl.read_config,
    "qwen2_vl_vision": qwen2_vl.read_config,
    "qwen2_5_vl": qwen2_5_vl.read_config,
    "qwen2_5_vl_vision": qwen2_5_vl.read_config,
    "qwen3_vl": qwen3_vl.read_config,
    "qwen3_vl_vision": qwen3_vl.read_config,
}

# Of models with a text tower.
TEXT_READERS: Mapping[str, Callable[[Fields, Collection[str]], TextConfig]] = {
    "siglip2": siglip_text.read_config,
    "siglip": siglip_text.read_config,
    "clip": clip_text.read_config,
}
TEXT_ALONE_READERS: Mapping[str, Callable[[Fields, Collection[str]], TextConfig]] = {
    "siglip2_text_model": siglip_text.read_config,
    "siglip_text_model": siglip_text.read_config,
    "clip_text_model": clip_text.read_config,
}


def find_reader(fields: Fields) -> Reader:
    """What reads a config.json: from its fields and the names of the tensors stored beside it to a configuration.

    Raises `CheckpointError` for a family that is not read. So does the reader, for a field.
    """
    model_type = fields.get("model_type")
    if model_type is None and str(fields.get("architecture")).startswith("naflexvit_"):
        return timm_config.read_config
    if model_type in TEXT_ALONE_READERS:
        raise fields.error(
            "model_type", "a text tower alone is not served: name the whole model, which sees pictures too"
        )
    if isinstance(model_type, str) and model_type in READERS:
        return READERS[model_type]
    vision = fields.get("vision_config")
    tower = vision.get("model_type") if isinstance(vision, dict) else None
    alone = f"; its vision tower, a {tower}, is read if save_pretrained saves it alone" if tower in READERS else ""
    raise fields.error("model_type", f"types that are read are {', '.join(READERS)}, and timm's naflexvit_*{alone}")


def read_text_config(fields: Fields, names: Collection[str]) -> TextConfig:
    """Reads the text tower's part of a config.json. names: of its tensors. Raises `CheckpointError`."""
    readers = {**TEXT_READERS, **TEXT_ALONE_READERS}
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in readers:
        raise fields.error("model_type", f"types with a text tower are {', '.join(readers)}")
    return readers[model_type](fields, names)
