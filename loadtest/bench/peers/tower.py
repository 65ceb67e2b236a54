"""A checkpoint as Transformers loads it, in the form from which other engines make theirs."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Siglip2VisionModel

# Padded, and of two images: exporting with whole masks or with one image would settle them for good.
_EXAMPLE_GRIDS = ((8, 8), (6, 9))
_EXAMPLE_LENGTH = 64


class PooledTower(nn.Module):
    """The vision tower from a processor's arrays to pooled vectors `[B, D]`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tower = Siglip2VisionModel.from_pretrained(folder, attn_implementation="sdpa")
        self.eval()
        self.patch_width = self.tower.config.num_channels * self.tower.config.patch_size**2

    def forward(self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor) -> Tensor:
        output = self.tower(
            pixel_values=pixel_values, pixel_attention_mask=pixel_attention_mask, spatial_shapes=spatial_shapes
        )
        pooled: Tensor = output.pooler_output
        return pooled

    def example(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `forward` to export it with."""
        lengths = torch.tensor([h * w for h, w in _EXAMPLE_GRIDS])
        mask = (torch.arange(_EXAMPLE_LENGTH)[None, :] < lengths[:, None]).long()
        return torch.randn(len(lengths), _EXAMPLE_LENGTH, self.patch_width), mask, torch.tensor(_EXAMPLE_GRIDS)
