"""Draws training pictures from seeds: photo-like ones, documents, charts and screens.

Each picture has its own colours, textures, shapes, words and layout, so a crop of one is never a crop of another.
Receipts of one shop share their header, letters and layout. This module chooses the family that draws a picture. The
family's module knows what the picture looks like.
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
"""How often `draw` picks each kind by itself: photo-like ones half of the time, receipts a fifth."""

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
    """Returns the picture of a seed (0 or more) in mode RGB. `kind` is by default that of `kind_of(seed)`.

    The picture is the same on every machine with the same numpy and Pillow. Photo-like kinds have 0.10 to 0.16
    megapixels, the others 0.25 to 0.45. The longer side is at most four times the shorter.
    """
    kind = kind or kind_of(seed)
    return _DRAWERS[kind](np.random.Generator(np.random.PCG64([seed, KINDS.index(kind)])))


def edition() -> str:
    """Returns eight hexadecimal digits that identify the drawing source.

    Pictures of one seed may differ between editions.
    """
    here = Path(__file__)
    source = b"".join(path.read_bytes() for path in (here, *sorted(here.with_name("drawing").rglob("*.py"))))
    return sha256(source).hexdigest()[:8]


def kind_of(seed: int) -> Kind:
    """Returns the kind that `draw` picks for the seed by itself, with the probabilities of `WEIGHTS`."""
    return pick(np.random.Generator(np.random.PCG64([seed, len(KINDS)])), KINDS, [WEIGHTS[kind] for kind in KINDS])
