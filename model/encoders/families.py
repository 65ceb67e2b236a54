"""Finds the family of a checkpoint from its config.json: by `model_type`, or by timm's `architecture`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from model.encoders import kimi, pixtral
from model.encoders.clip import text as clip_text
from model.encoders.clip import vision as clip
from model.encoders.dino import dinov2, dinov3
from model.encoders.gemma import embedding_gemma2
from model.encoders.gemma.config import KEYS as GEMMA_KEYS
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import VISION, Keys
from model.encoders.parts.text_tower import TextConfig
from model.encoders.parts.tower import EncoderConfig
from model.encoders.qwen import qwen2_5_vl, qwen2_vl, qwen3_vl
from model.encoders.qwen.family import KEYS as QWEN_KEYS
from model.encoders.radio import config as radio
from model.encoders.radio.names import KEYS as RADIO_KEYS
from model.encoders.siglip import fixed, naflex
from model.encoders.siglip import text as siglip_text
from model.encoders.timm import config as timm
from model.encoders.timm.architectures import EVA
from model.encoders.timm.names import KEYS as TIMM_KEYS


@dataclass(frozen=True, slots=True)
class Family:
    """read_config: from the fields of a config.json and the names of the tensors stored beside it to a configuration;
    raises `CheckpointError` for a field. keys: of its tensors.
    """

    read_config: Callable[[Fields, Collection[str]], EncoderConfig]
    keys: Keys = VISION


# SigLIP 2 checkpoints of a fixed resolution call themselves siglip.
FAMILIES: Mapping[str, Family] = {
    "siglip2": Family(naflex.read_config),
    "siglip2_vision_model": Family(naflex.read_config),
    "siglip": Family(fixed.read_config),
    "siglip_vision_model": Family(fixed.read_config),
    "clip": Family(clip.read_config),
    "clip_vision_model": Family(clip.read_config),
    "qwen2_vl": Family(qwen2_vl.read_config, QWEN_KEYS),
    "qwen2_vl_vision": Family(qwen2_vl.read_config, QWEN_KEYS),
    "qwen2_5_vl": Family(qwen2_5_vl.read_config, QWEN_KEYS),
    "qwen2_5_vl_vision": Family(qwen2_5_vl.read_config, QWEN_KEYS),
    "qwen3_vl": Family(qwen3_vl.read_config, QWEN_KEYS),
    "qwen3_vl_vision": Family(qwen3_vl.read_config, QWEN_KEYS),
    "radio": Family(radio.read_config, RADIO_KEYS),
    "dinov2": Family(dinov2.read_config, dinov2.KEYS),
    "dinov2_with_registers": Family(dinov2.read_config_with_registers, dinov2.KEYS),
    "dinov3_vit": Family(dinov3.read_config, dinov3.KEYS),
    "pixtral": Family(pixtral.read_config, pixtral.KEYS),
    "kimi_k25": Family(kimi.read_config, kimi.KEYS),
    "kimi_k25_vision": Family(kimi.read_config, kimi.KEYS),
    "embedding_gemma2": Family(embedding_gemma2.read_config, GEMMA_KEYS),
}
# Whole models whose tower may be of several families: the types of the model and of its vision_config.
WHOLE: Collection[tuple[str, str]] = {("llava", "pixtral"), ("mistral3", "pixtral")}

# For models with a text tower.
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


def find_family(fields: Fields) -> Family:
    """The family of a config.json. Raises `CheckpointError` for one that is not read."""
    # As texts: a list or an object, which a file may have there, is in no mapping.
    model_type, architecture = str(fields.get("model_type")), str(fields.get("architecture"))
    if fields.get("model_type") is None and (architecture.startswith("naflexvit_") or architecture in EVA):
        return Family(timm.read_config, TIMM_KEYS)
    if model_type in TEXT_ALONE_READERS:
        raise fields.error(
            "model_type", "a text tower alone is not served: name the whole model, which sees pictures too"
        )
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    vision = fields.get("vision_config")
    tower = str(vision.get("model_type")) if isinstance(vision, dict) else ""
    if (model_type, tower) in WHOLE:
        return FAMILIES[tower]
    alone = f"; its vision tower, a {tower}, is read if save_pretrained saves it alone" if tower in FAMILIES else ""
    raise fields.error(
        "model_type",
        f"types that are read are {', '.join(FAMILIES)}, and timm's naflexvit_*, vit_pe_*, vit_*_dinov3* and "
        f"vit_*_rope_224{alone}",
    )


def read_text_config(fields: Fields, names: Collection[str]) -> TextConfig:
    """Reads the text tower's part of a config.json. names: of its tensors. Raises `CheckpointError`."""
    readers = {**TEXT_READERS, **TEXT_ALONE_READERS}
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in readers:
        raise fields.error("model_type", f"types with a text tower are {', '.join(readers)}")
    return readers[model_type](fields, names)
