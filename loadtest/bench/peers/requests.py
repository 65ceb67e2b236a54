"""The arrays of one call of a NaFlex model, as its processor makes them. NumPy alone.

pixel_values: float32 `[B, N, 3*P*P]`. pixel_attention_mask: int64 `[B, N]`, 1 where there is a patch. spatial_shapes:
int64 `[B, 2]`, the grids.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[Any]]

NAMES = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


def load_inputs(path: str) -> Inputs:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def unpadded(inputs: Inputs) -> list[Inputs]:
    """Each image in a call of its own, without its padding."""
    lengths = inputs["pixel_attention_mask"].sum(axis=1).tolist()
    return [
        {
            "pixel_values": np.ascontiguousarray(inputs["pixel_values"][index : index + 1, :length]),
            "pixel_attention_mask": inputs["pixel_attention_mask"][index : index + 1, :length].copy(),
            "spatial_shapes": inputs["spatial_shapes"][index : index + 1],
        }
        for index, length in enumerate(lengths)
    ]


def divided(inputs: Inputs, most: int) -> list[Inputs]:
    """At most `most` calls of one size, in order: as many as divide the images evenly."""
    images = len(inputs["pixel_values"])
    count = max(number for number in range(1, most + 1) if images % number == 0)
    parts = {name: np.split(array, count) for name, array in inputs.items()}
    return [{name: parts[name][index] for name in inputs} for index in range(count)]


def computed_rows(requests: Sequence[Inputs]) -> int:
    """Patches and padding of all calls."""
    return sum(each["pixel_attention_mask"].size for each in requests)
