"""Kimi K2.5's vision tower, beside Transformers' model: it packs images, or takes them one by one."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.kimi_k25.configuration_kimi_k25 import Kimi_K25VisionConfig
from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25VisionModel

from loadtest.bench.forwards.rounds import Forward
from model.pack import PackedBatch

SHAPE, LAYERS, PATCH, MULTIPLE = "Kimi K2.5", 27, 14, 2


def save(folder: Path, layers: int) -> None:
    Kimi_K25VisionModel(Kimi_K25VisionConfig(num_hidden_layers=layers)).save_pretrained(folder)


def packed(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model, values = _model(folder, dtype), _values(batch, dtype)
    grids = torch.tensor([[1, *grid] for grid in batch.grids])
    spans = list(pairwise(batch.cu_seqlens.tolist()))

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        tokens = model(values, grid_thw=grids).last_hidden_state
        means: NDArray[np.float32] = torch.stack([tokens[start:end].float().mean(0) for start, end in spans]).numpy()
        return means

    return forward


def one_by_one(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model, values = _model(folder, dtype), _values(batch, dtype)
    spans = pairwise(batch.cu_seqlens.tolist())
    pictures = [
        (values[start:end], torch.tensor([[1, *grid]])) for (start, end), grid in zip(spans, batch.grids, strict=True)
    ]

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        outputs = [model(some, grid_thw=grid).last_hidden_state for some, grid in pictures]
        means: NDArray[np.float32] = torch.stack([tokens.float().mean(0) for tokens in outputs]).numpy()
        return means

    return forward


def _model(folder: Path, dtype: torch.dtype) -> Any:
    return Kimi_K25VisionModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()


def _values(batch: PackedBatch, dtype: torch.dtype) -> torch.Tensor:
    """`[T, 3, P, P]`."""
    values = torch.from_numpy(batch.rows).float().sub(127.5).div(127.5)
    return values.view(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2).to(dtype)


REFERENCES = {"packed": packed, "one_by_one": one_by_one}
