"""SigLIP 2 NaFlex base, beside Transformers' model, which pads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from loadtest.bench.forwards.rounds import Forward
from model.pack import PackedBatch

SHAPE, LAYERS, PATCH, MULTIPLE = "base", 12, 16, 1


def save(folder: Path, layers: int) -> None:
    Siglip2VisionModel(Siglip2VisionConfig(num_hidden_layers=layers)).save_pretrained(folder)


def padded(folder: Path, dtype: torch.dtype, batch: PackedBatch) -> Forward:
    model: Any = Siglip2VisionModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    values = torch.zeros(len(batch.grids), batch.max_seqlen, batch.rows.shape[1])
    for image, rows in zip(values, np.split(batch.rows, batch.cu_seqlens[1:-1]), strict=True):
        image[: len(rows)] = torch.from_numpy(rows).float().sub(127.5).div(127.5)
    values = values.to(dtype)
    lengths = torch.from_numpy(np.diff(batch.cu_seqlens))
    mask = (torch.arange(batch.max_seqlen)[None, :] < lengths[:, None]).int()
    grids = torch.tensor(batch.grids)

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        output = model(pixel_values=values, pixel_attention_mask=mask, spatial_shapes=grids)
        pooled: NDArray[np.float32] = output.pooler_output.float().numpy()
        return pooled

    return forward


REFERENCES = {"padded": padded}
