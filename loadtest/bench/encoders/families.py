"""The families that `python -m loadtest.bench encoders` knows: a module each, imported where it runs."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

import torch

from loadtest.bench.forwards.rounds import Forward
from model.pack import PackedBatch

FAMILIES: Mapping[str, str] = {
    "siglip2": "loadtest.bench.encoders.siglip2",
    "radio": "loadtest.bench.encoders.radio",
    "pixtral": "loadtest.bench.encoders.pixtral",
    "kimi": "loadtest.bench.encoders.kimi",
    "gemma": "loadtest.bench.encoders.gemma",
    "dinov2": "loadtest.bench.encoders.dinov2",
    "dinov3": "loadtest.bench.encoders.dinov3",
}
"""The first is the one that others' cost is relative to."""

Reference = Callable[[Path, torch.dtype, PackedBatch], Forward]


class Family(Protocol):
    """What a family's module holds.

    SHAPE: the published model whose widths it has. LAYERS: that model's blocks. PATCH: pixels a side. MULTIPLE: both
    sides of a grid are multiples of it. REFERENCES: its own implementation, by what it does with images of many sizes:
    `padded` (to the longest of the pack), `packed`, `one_by_one`, `by_size` (all of one size in a call). Each computes
    the vectors that we do from a folder that `save` wrote, with pixels prepared before the clock runs. A module whose
    packs hold more than images also has a function `ours`, which takes the place of the encoder's forward.
    """

    SHAPE: str
    LAYERS: int
    PATCH: int
    MULTIPLE: int
    REFERENCES: Mapping[str, Reference]

    def save(self, folder: Path, layers: int) -> None:
        """Writes a checkpoint with random weights and that many blocks, as `save_pretrained` does."""


def family_of(name: str) -> Family:
    return cast(Family, importlib.import_module(FAMILIES[name]))
