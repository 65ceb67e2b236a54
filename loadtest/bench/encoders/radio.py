"""C-RADIOv4-H, beside Transformers' model: it packs images, or takes them one by one."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import RadioConfig, RadioModel

from loadtest.bench.forwards.rounds import Forward
from model.pack import PackedBatch

SHAPE, LAYERS, PATCH, MULTIPLE = "C-RADIOv4-H", 32, 16, 1


def save(folder: Path, layers: int) -> None:
    RadioModel(RadioConfig(num_hidden_layers=layers)).save_pretrained(folder)


def packed(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model = _model(folder, dtype)
    values, grids = _values(batch).flatten(1).to(dtype), torch.tensor(batch.grids)

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        summary: NDArray[np.float32] = model(values, image_grid_hw=grids).summary.float().numpy()
        return summary

    return forward


def one_by_one(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model = _model(folder, dtype)
    values, pictures = _values(batch), []
    for (start, end), (h, w) in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
        cut = values[start:end].view(h, w, 3, PATCH, PATCH).permute(2, 0, 3, 1, 4)
        pictures.append(cut.reshape(1, 3, h * PATCH, w * PATCH).to(dtype))

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        summaries: NDArray[np.float32] = torch.cat([model(each).summary for each in pictures]).float().numpy()
        return summaries

    return forward


def _model(folder: Path, dtype: torch.dtype) -> Any:
    return RadioModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()


def _values(batch: PackedBatch) -> torch.Tensor:
    """From 0 to 1, `[T, 3, P, P]`."""
    return torch.from_numpy(batch.rows).float().div(255).view(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2)


REFERENCES = {"packed": packed, "one_by_one": one_by_one}
