"""Checkpoints and numbers of the reference implementation, Transformers' SigLIP 2, with random weights."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from model.pack import PackedBatch, pack

SMALL = {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2, "num_attention_heads": 3}
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
# The widths of so400m, which no power of two divides: heads of 72, an MLP of 4304. Two layers of its 27.
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 2, "num_attention_heads": 16}


def random_tower(shape: dict[str, Any], *, seed: int = 0) -> Any:
    """A vision tower whose every parameter is random, biases and norms too, so that none can be mixed up unseen."""
    tower = Siglip2VisionModel(Siglip2VisionConfig(**shape)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(0.1 * noise + float("norm" in name and name.endswith("weight")))
    return tower


def save_tower(folder: Path, shape: dict[str, Any], *, seed: int = 0) -> Any:
    tower = random_tower(shape, seed=seed)
    tower.save_pretrained(folder)
    return tower


def random_pack(grids: Sequence[tuple[int, int]], *, seed: int = 0, patch_size: int = 16) -> PackedBatch:
    random = np.random.default_rng(seed)
    rows = [random.integers(0, 256, (h * w, 3 * patch_size**2), dtype=np.uint8) for h, w in grids]
    return pack(rows, grids)


@torch.no_grad()
def reference_outputs(
    tower: Any, batch: PackedBatch, *, padded_to: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled `[S, D]` and tokens `[T, D]`: each segment alone, padded and masked to `padded_to` tokens where given."""
    pooled, tokens = [], []
    for (start, end), grid in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
        length = end - start
        values = torch.zeros(1, padded_to or length, batch.rows.shape[1])
        values[0, :length] = normalised(batch.rows[start:end])
        mask = (torch.arange(values.shape[1]) < length).int().unsqueeze(0)
        output = tower(pixel_values=values, pixel_attention_mask=mask, spatial_shapes=torch.tensor([grid]))
        pooled.append(output.pooler_output.numpy())
        tokens.append(output.last_hidden_state[0, :length].numpy())
    return np.concatenate(pooled), np.concatenate(tokens)


def normalised(rows: NDArray[np.uint8]) -> Tensor:
    """As the reference's processor does: rescaled in float64, cast, then shifted and scaled."""
    return (torch.from_numpy((rows * (1 / 255)).astype(np.float32)) - 0.5) / 0.5
