"""Checkpoints and numbers of Transformers' C-RADIO, with random weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPImageProcessorPil, RadioConfig, RadioModel

from model.pack import PackedBatch
from tests.reference import randomised

# Widths that are no power of two, and a table that is no power of two, cropped from both sides.
SMALL: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 2.1, "max_img_size": 320,
}  # fmt: skip
# As published for C-RADIOv4-H, but for its depth.
PUBLISHED: dict[str, Any] = {"num_hidden_layers": 1}

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


def save_model(folder: Path, shape: dict[str, Any], *, processor: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """processor: what C-RADIO's processor of CLIP's class is given; None for no file."""
    model = randomised(lambda: RadioModel(RadioConfig(**shape)), seed=seed)
    model.save_pretrained(folder)
    if processor is not None:
        processor_of(**processor).save_pretrained(folder)
    return model


def processor_of(**options: Any) -> CLIPImageProcessorPil:
    """As the model's documentation makes it: a square, without a crop, values from 0 to 1."""
    size = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "do_normalize": False}
    return CLIPImageProcessorPil(**size | options)


@torch.no_grad()
def packed_outputs(model: Any, batch: PackedBatch) -> Outputs:
    """Summaries `[S, E]` and features `[T, D]`, all images in one call."""
    values = values_of(batch).permute(0, 3, 1, 2).flatten(1)
    output = model(values, image_grid_hw=torch.tensor(batch.grids))
    return output.summary.numpy(), output.features.numpy()


@torch.no_grad()
def outputs_one_by_one(model: Any, batch: PackedBatch) -> Outputs:
    """The same, each image as a picture in a call of its own."""
    values, outputs = values_of(batch), []
    for (start, end), (h, w) in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
        patch = values.shape[1]
        picture = values[start:end].view(h, w, patch, patch, 3).permute(4, 0, 2, 1, 3)
        outputs.append(model(picture.reshape(1, 3, h * patch, w * patch)))
    summaries = torch.cat([output.summary for output in outputs])
    return summaries.numpy(), torch.cat([output.features[0] for output in outputs]).numpy()


def values_of(batch: PackedBatch) -> Tensor:
    """From 0 to 1, `[T, P, P, 3]`."""
    patch = round((batch.rows.shape[1] // 3) ** 0.5)
    return torch.from_numpy((batch.rows * (1 / 255)).astype(np.float32)).view(-1, patch, patch, 3)
