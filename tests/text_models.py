"""Folders with both towers and a tokenizer, of random weights: what a user names to have texts served."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests.reference import SMALL, randomised, whole_model
from tests.vocabularies import write_clip, write_gemma

FAMILIES = ("siglip2", "clip")
# `SMALL` with one grid of 4 × 4 patches, for CLIP.
_FIXED = SMALL | {"image_size": 64, "patch_size": 16}


def save_whole(folder: Path, family: str) -> Any:
    """Writes the folder, and returns Transformers' model."""
    if family == "siglip2":
        write_gemma(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = SMALL | {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
        model = whole_model("siglip2", SMALL, text)
    else:
        write_clip(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = SMALL | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
        config = CLIPConfig(vision_config=_FIXED, text_config=text, projection_dim=40)
        model = randomised(lambda: CLIPModel(config))
    model.save_pretrained(folder)
    return model


def load_whole(folder: Path, family: str) -> tuple[Runner, ModelFacts]:
    """Writes the folder, and loads it in float32 as `random-siglip2` or `random-clip`."""
    save_whole(folder, family)
    runner, facts = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    return runner, replace(facts, name=f"random-{family}")


@torch.no_grad()
def text_vector(folder: Path, model: Any, text: str) -> NDArray[Any]:
    """float32 `[E]` of length 1, as Transformers makes it of a text, padded as the family was trained."""
    padding = {"padding": "max_length", "max_length": 64} if model.config.model_type == "siglip2" else {}
    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=True, return_tensors="pt", **padding)["input_ids"]
    vector = model.get_text_features(input_ids=ids).pooler_output[0]
    return (vector / vector.norm()).numpy()  # type: ignore[no-any-return]
