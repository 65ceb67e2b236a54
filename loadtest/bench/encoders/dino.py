"""What DINOv2 and DINOv3 share: Transformers takes images of one size in a call, and has no way to pad."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from loadtest.bench.forwards.rounds import Forward
from model.pack import PackedBatch


def one_by_one(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    return _called(folder, dtype, [([index], picture[None]) for index, picture in enumerate(_pictures(batch, dtype))])


def by_size(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    """One call for all images of a size, as a caller who sorts them would make it."""
    places: dict[tuple[int, int], list[int]] = {}
    for index, grid in enumerate(batch.grids):
        places.setdefault(grid, []).append(index)
    pictures = _pictures(batch, dtype)
    return _called(folder, dtype, [(some, torch.stack([pictures[i] for i in some])) for some in places.values()])


def _called(folder: Path, dtype: torch.dtype, calls: Iterable[tuple[list[int], Tensor]]) -> Forward:
    """calls: the images of each by their numbers, and their pixels `[n, 3, height, width]`."""
    model: Any = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    places, pixels = zip(*calls, strict=True)
    order = np.argsort(np.concatenate(places))

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        pooled: NDArray[np.float32] = torch.cat([model(each).pooler_output for each in pixels]).float().numpy()
        return pooled[order]

    return forward


def _pictures(batch: PackedBatch, dtype: torch.dtype) -> list[Tensor]:
    """Normalised, `[3, height, width]` each."""
    mean, std = (torch.tensor(values).mul(255) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    patch = round((batch.rows.shape[1] / 3) ** 0.5)
    values = torch.from_numpy(batch.rows).view(-1, patch, patch, 3).float().sub(mean).div(std)
    return [
        values[start:end].view(h, w, patch, patch, 3).permute(4, 0, 2, 1, 3).reshape(3, h * patch, w * patch).to(dtype)
        for (start, end), (h, w) in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True)
    ]


REFERENCES = {"one_by_one": one_by_one, "by_size": by_size}
