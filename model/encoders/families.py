"""Finds the family of a checkpoint from its config.json: by `model_type`, or by timm's `architecture`."""

from collections.abc import Callable, Collection, Mapping

from model.encoders import clip, naflex, qwen2_5_vl, qwen2_vl, qwen3_vl, siglip, timm_config
from model.encoders.parts.fields import Fields
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


def find_reader(fields: Fields) -> Reader:
    """What reads a config.json: from its fields and the names of the tensors stored beside it to a configuration.

    Raises `CheckpointError` for a family that is not read. So does the reader, for a field.
    """
    model_type = fields.get("model_type")
    if model_type is None and str(fields.get("architecture")).startswith("naflexvit_"):
        return timm_config.read_config
    if isinstance(model_type, str) and model_type in READERS:
        return READERS[model_type]
    vision = fields.get("vision_config")
    tower = vision.get("model_type") if isinstance(vision, dict) else None
    alone = f"; its vision tower, a {tower}, is read if save_pretrained saves it alone" if tower in READERS else ""
    raise fields.error("model_type", f"types that are read are {', '.join(READERS)}, and timm's naflexvit_*{alone}")
