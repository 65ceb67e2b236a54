"""Pictures that a script draws for itself from a seed, to train on: photo-like ones, documents, charts and screens.

Each has colours, textures, shapes, words and a layout of its own, so that a crop of one is a crop of no other; but
receipts of one shop have their head, their letters and their layout in common. This module knows which family draws a
picture; what it looks like is known to the family's module.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from training.drawing.chance import Rng, pick
from training.drawing.documents.chart import draw_chart
from training.drawing.documents.page import draw_page
from training.drawing.documents.receipt import draw_receipt
from training.drawing.documents.table import draw_table
from training.drawing.leaves import draw_leaves
from training.drawing.noise import draw_noise
from training.drawing.scenes.scene import draw_scene
from training.drawing.screens.screenshot import draw_screenshot
from training.drawing.texture import draw_texture

Kind = Literal["scene", "leaves", "texture", "noise", "receipt", "page", "table", "screenshot", "chart"]

KINDS: tuple[Kind, ...] = get_args(Kind)

WEIGHTS: dict[Kind, float] = {
    "scene": 0.28,
    "leaves": 0.12,
    "texture": 0.10,
    "noise": 0.04,
    "receipt": 0.22,
    "page": 0.08,
    "table": 0.05,
    "screenshot": 0.07,
    "chart": 0.04,
}
"""How often each kind is drawn where none is named: photo-like ones half the time, receipts a fifth."""

_DRAWERS: dict[Kind, Callable[[Rng], Image.Image]] = {
    "scene": draw_scene,
    "leaves": draw_leaves,
    "texture": draw_texture,
    "noise": draw_noise,
    "receipt": draw_receipt,
    "page": draw_page,
    "table": draw_table,
    "screenshot": draw_screenshot,
    "chart": draw_chart,
}


def draw(seed: int, kind: Kind | None = None) -> Image.Image:
    """The picture of the seed (0 or more), RGB: of the `kind`, or of the one that `kind_of` answers.

    The same on every machine that has the same numpy and Pillow. Photo-like kinds are of 0.10 to 0.16 megapixels, the
    others of 0.25 to 0.45; sides are as 1 to 4 at most.
    """
    kind = kind or kind_of(seed)
    return _DRAWERS[kind](np.random.Generator(np.random.PCG64([seed, KINDS.index(kind)])))


def edition() -> str:
    """Eight hexadecimal digits of the source that draws: pictures of one seed and two editions may differ."""
    here = Path(__file__)
    source = b"".join(path.read_bytes() for path in (here, *sorted(here.with_name("drawing").rglob("*.py"))))
    return sha256(source).hexdigest()[:8]


def kind_of(seed: int) -> Kind:
    """The kind that `draw` draws for the seed where none is named: by `WEIGHTS`."""
    return pick(np.random.Generator(np.random.PCG64([seed, len(KINDS)])), KINDS, [WEIGHTS[kind] for kind in KINDS])
