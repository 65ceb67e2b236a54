"""Pixtral's vision tower, beside Transformers' model: it packs images under a dense mask, or takes them one by one."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PixtralVisionConfig, PixtralVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from loadtest.bench.forwards.rounds import Forward
from model.pack import PackedBatch

SHAPE, LAYERS, PATCH, MULTIPLE = "Pixtral 12B", 24, 16, 1


def save(folder: Path, layers: int) -> None:
    PixtralVisionModel(PixtralVisionConfig(num_hidden_layers=layers, hidden_act="silu")).save_pretrained(folder)


def packed(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model, pictures = _model(folder, dtype), _pictures(batch, dtype)
    sizes = [(picture.shape[1], picture.shape[2]) for picture in pictures]
    values = torch.zeros(len(sizes), 3, max(h for h, _ in sizes), max(w for _, w in sizes), dtype=dtype)
    for canvas, picture in zip(values, pictures, strict=True):
        canvas[:, : picture.shape[1], : picture.shape[2]] = picture
    spans = list(pairwise(batch.cu_seqlens.tolist()))

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        tokens = model(values, image_sizes=sizes).last_hidden_state[0]
        means: NDArray[np.float32] = torch.stack([tokens[start:end].float().mean(0) for start, end in spans]).numpy()
        return means

    return forward


def one_by_one(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model, pictures = _model(folder, dtype), _pictures(batch, dtype)

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        outputs = [model(picture[None]).last_hidden_state[0] for picture in pictures]
        means: NDArray[np.float32] = torch.stack([tokens.float().mean(0) for tokens in outputs]).numpy()
        return means

    return forward


def _model(folder: Path, dtype: torch.dtype) -> Any:
    return PixtralVisionModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()


def _pictures(batch: PackedBatch, dtype: torch.dtype) -> list[torch.Tensor]:
    """`[3, height, width]` each, normalised."""
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    values = torch.from_numpy(batch.rows).float().div(255).view(-1, PATCH, PATCH, 3).sub(mean).div(std)
    return [
        values[start:end].view(h, w, PATCH, PATCH, 3).permute(4, 0, 2, 1, 3).reshape(3, h * PATCH, w * PATCH).to(dtype)
        for (start, end), (h, w) in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True)
    ]


REFERENCES = {"packed": packed, "one_by_one": one_by_one}
