"""What towers share that rotate their heads by the row and the column of a patch."""

from typing import Any

import torch
from torch import Tensor

from model.encoders.parts.fields import Fields
from model.encoders.parts.tower import shape_fields


def axial_shape_fields(vision: Fields, *, eps: float) -> dict[str, Any]:
    """The fields of `EncoderConfig` for a tower that rotates heads by row and column. eps: of the class, which reads
    none."""
    shape = shape_fields(vision.over({"layer_norm_eps": eps})) | {"eps": eps}
    if shape["width"] % (4 * shape["heads"]):
        raise vision.error("num_attention_heads", f"the width, {shape['width']}, is not a multiple of 4 for each head")
    return shape


def axial_theta(vision: Fields) -> float:
    """The base of the frequencies. Older files have it beside the other keys."""
    rope = vision.section("rope_parameters")
    rope.require({"rope_type": "axial"})
    return rope.over({"rope_theta": vision.get("rope_theta") or 10_000.0}).positive("rope_theta")


def rows_and_columns(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """int64 `[h*w, 1]` each, row-major over the grid."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return rows.reshape(-1, 1), columns.reshape(-1, 1)
