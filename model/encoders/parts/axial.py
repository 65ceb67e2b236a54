"""What towers share whose heads are rotated by the row and the column of a patch."""

from typing import Any

import torch
from torch import Tensor

from model.encoders.parts.fields import Fields
from model.encoders.parts.tower import shape_fields


def axial_shape_fields(vision: Fields, *, eps: float) -> dict[str, Any]:
    """The fields of `EncoderConfig` for a tower that rotates heads by row and column. eps: that of
    Transformers' class, which reads none."""
    shape = shape_fields(vision.over({"layer_norm_eps": eps})) | {"eps": eps}
    vision.require({"head_dim": shape["width"] // shape["heads"]})
    if shape["width"] % (4 * shape["heads"]):
        raise vision.error("num_attention_heads", f"the width, {shape['width']}, is not a multiple of 4 for each head")
    return shape


def axial_rope(vision: Fields, *, theta: float = 10_000.0) -> Fields:
    """The parameters of the rotation, `rope_theta` always among them: that of the class, `theta`, if no file says it.

    Older files call the only kind `default`, the object `rope_scaling`, or have the base beside the other keys.
    """
    rope = vision.section("rope_scaling" if vision.get("rope_scaling") else "rope_parameters")
    key = "type" if "type" in rope and "rope_type" not in rope else "rope_type"
    if rope.get(key) != "default":
        rope.require({key: "axial"})
    return rope.over({"rope_theta": vision.get("rope_theta") or theta})


def axial_theta(vision: Fields) -> float:
    """The base of the frequencies."""
    return axial_rope(vision).positive("rope_theta")


def rows_and_columns(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """int64 `[h*w, 1]` each, row-major over the grid."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return rows.reshape(-1, 1), columns.reshape(-1, 1)
