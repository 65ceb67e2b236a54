"""Parity with Transformers' own model and processor, where they are installed and know the model."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from model.checkpoint import tiny
from service.canary.files import Recording
from service.canary.jobs import CanaryPicture, canary_pictures
from service.cli.check.findings import Report
from service.engine.canary.rule import Vectors, cosine, distance
from service.limits import Limits, ModelFacts
from service.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Embed = Callable[[CanaryPicture], Vectors]

# Two ways to add the same float32 numbers.
_ALLOWED = 1e-3


def add_reference(report: Report, settings: Settings, model: ModelFacts, recording: Recording, limits: Limits) -> None:
    """Compares what this CPU computes in float32. Told and not judged if there is nothing to compare with."""
    pictures = canary_pictures(model.geometry, limits.max_image_tokens)
    try:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            embed = _tiny() if settings.model == tiny.NAME else _published(settings)
            theirs = {picture.name: embed(picture) for picture in pictures}
    except ImportError as error:
        report.add("reference", None, f"not compared: {error.name or 'Transformers'} is not installed")
        return
    except Exception as error:
        # Other libraries raise anything for what they do not know.
        first = str(error).strip().partition("\n")[0].partition(". ")[0][:120]
        report.add("reference", None, f"not compared: Transformers {transformers.__version__} says: {first}")
        return
    ours = {name: recording.vectors[name] for name in theirs}
    if any(ours[name].shape != theirs[name].shape for name in theirs):
        report.add("reference", None, "not compared: it makes other vectors of this model")
        return
    apart = max(distance(ours[name], theirs[name]) for name in theirs)
    near = min(cosine(ours[name], theirs[name]) for name in theirs)
    words = f"Transformers {transformers.__version__} in float32: cosine {near:.7f}, distance {apart:.1g} at most"
    report.add("reference", apart <= _ALLOWED, words)


def _tiny() -> "Embed":
    """The bundled model as Transformers' class of its family."""
    from safetensors.torch import load_file
    from transformers import Siglip2VisionConfig, Siglip2VisionModel

    config = tiny.CONFIG
    model = Siglip2VisionModel(
        Siglip2VisionConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width,
        )  # fmt: skip
    ).eval()
    tensors = load_file(tiny.FOLDER / "model.safetensors")
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in model.state_dict()) else ""
    model.load_state_dict({prefix + name.removeprefix("vision_model."): each for name, each in tensors.items()})
    from transformers.models.siglip2 import image_processing_pil_siglip2 as pil

    return _embedding(model, pil.Siglip2ImageProcessorPil())


def _published(settings: Settings) -> "Embed":
    from transformers import AutoImageProcessor, AutoModel

    named = {"revision": settings.revision} if settings.revision else {}
    model = AutoModel.from_pretrained(settings.model, dtype="float32", **named).eval()
    return _embedding(model, AutoImageProcessor.from_pretrained(settings.model, use_fast=False, **named))


def _embedding(model: Any, processor: Any) -> "Embed":
    import torch

    def embed(picture: CanaryPicture) -> Vectors:
        bound = {"max_num_patches": picture.plan.tokens} if hasattr(processor, "max_num_patches") else {}
        with torch.no_grad():
            inputs = processor(images=[Image.fromarray(picture.pixels)], return_tensors="pt", **bound)
            output = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
        pooled = getattr(output, "pooler_output", output)
        return np.asarray(pooled.float().numpy(), np.float32)

    return embed
