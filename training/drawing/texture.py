"""Surfaces that repeat with variation: bricks, tiles, weaves, checks, stripes, scales, pebbles, planks, dots, fibres.

Half of the pictures show them in perspective. Other modules cover walls and floors with `surface`. Knows nothing of
scenes.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from training.drawing.camera import develop
from training.drawing.chance import Rng, Size, between, happens, integer, log_between, photo_size, pick
from training.drawing.noise import Field, levels, natural_tile, painted, tile, window
from training.drawing.palette import Palette, make_palette
from training.drawing.paper import Corners, perspective

WAYS = ("bricks", "tiles", "weave", "checks", "stripes", "scales", "pebbles", "planks", "dots", "fibres")


def draw_texture(rng: Rng) -> Image.Image:
    size = photo_size(rng)
    image = surface(rng, size, make_palette(rng))
    if happens(rng, 0.5):
        image = _aslant(rng, image)
    return develop(rng, image)


def surface(rng: Rng, size: Size, palette: Palette, way: str | None = None) -> Image.Image:
    """Returns an RGB image of the size in two to four colours of the palette."""
    cells, relief = _cells(rng, size, way or pick(rng, WAYS))
    rough = window(rng, natural_tile(rng), size, log_between(rng, 1, 2))
    mix = cells * np.float32(between(rng, 0.2, 1.3)) + rough * np.float32(between(rng, 0.1, 0.6))
    order = rng.permutation(len(palette))[: integer(rng, 2, 4)]
    image = painted(rng, mix, [palette[at] for at in order], between(rng, 25, 70))
    shade = Image.fromarray(levels(relief, 50, 120)).convert("RGB")
    return ImageChops.overlay(image, shade)


def _grid(rng: Rng, size: Size) -> tuple[Field, Field]:
    """Returns coordinates in cells, float32 `[height, width]` each, rotated and wavy."""
    width, height = size
    scale = np.float32(log_between(rng, 4, 40) / max(size))
    turn = pick(rng, (0.0, math.pi / 4, between(rng, 0, math.pi)), (3, 1, 2))
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    x = np.arange(width, dtype=np.float32)[None, :] * scale
    y = np.arange(height, dtype=np.float32)[:, None] * scale
    u, v = x * cos - y * sin + 100, x * sin + y * cos + 100
    if happens(rng, 0.7):
        bend = window(rng, tile(rng, between(rng, 1.6, 2.4)), size) * np.float32(log_between(rng, 0.02, 0.4))
        u, v = u + bend, v - bend
    return u, v


def _chance_of(rng: Rng, row: NDArray[np.int32], column: NDArray[np.int32]) -> Field:
    """Returns a random value for each cell, about -1 to 1."""
    table = (rng.random((64, 64), dtype=np.float32) * 2 - 1).astype(np.float32)
    return np.asarray(table[row & 63, column & 63])


def _cells(rng: Rng, size: Size, way: str) -> tuple[Field, Field]:
    """Returns each pixel's value, constant over a cell, and relief, low in joints: float32 `[height, width]` each."""
    u, v = _grid(rng, size)
    if way in ("pebbles", "scales", "dots"):
        return _round_cells(rng, u, v, way)
    if way in ("weave", "stripes", "fibres"):
        return _threads(rng, size, u, v, way)
    row = np.floor(v).astype(np.int32)
    long = {"bricks": between(rng, 1.6, 3), "planks": between(rng, 4, 14)}.get(way, 1.0)
    shift = np.float32(pick(rng, (0.5, 0.33, 0.37)) if way in ("bricks", "planks") else 0)
    along = u / np.float32(long) + row * shift
    column = np.floor(along).astype(np.int32)
    if way == "checks":
        values = ((row + column) & 1).astype(np.float32) * 2 - 1
        return values, window(rng, tile(rng, 1.2), size) * np.float32(0.2)
    inside = np.minimum(_to_edge(along) * np.float32(long), _to_edge(v))
    joint = np.float32(log_between(rng, 0.02, 0.12))
    relief = np.minimum(inside / joint, 1) * np.float32(2) - np.float32(1.7)
    return _chance_of(rng, row, column), relief


def _to_edge(along: Field) -> Field:
    """Returns the distance to the nearest whole number, 0 to 0.5."""
    return np.abs(along - np.round(along))


def _round_cells(rng: Rng, u: Field, v: Field, way: str) -> tuple[Field, Field]:
    """Returns values and relief of cells: jittered (pebbles), in overlapping rows (scales), or apart (dots)."""
    row = np.floor(v).astype(np.int32)
    if way == "scales":
        u = u + (row & 1) * np.float32(0.5)
    column = np.floor(u).astype(np.int32)
    values = _chance_of(rng, row, column)
    x, y = u - column - np.float32(0.5), v - row - np.float32(0.5)
    if way == "scales":
        far = np.sqrt(x * x + (y + np.float32(0.5)) ** 2)
        return values, np.float32(1.2) - far * np.float32(2)
    if way == "pebbles":
        x = x + _chance_of(rng, row, column) * np.float32(0.2)
        y = y + _chance_of(rng, row, column) * np.float32(0.2)
    far = np.sqrt(x * x * np.float32(log_between(rng, 0.7, 1.4)) + y * y)
    radius = np.float32(between(rng, 0.28, 0.48))
    inside = np.clip((radius - far) * np.float32(12), 0, 1)
    return values * inside - (1 - inside), inside * (np.float32(1.2) - far * np.float32(3)) - (1 - inside) * np.float32(
        0.6
    )


def _threads(rng: Rng, size: Size, u: Field, v: Field, way: str) -> tuple[Field, Field]:
    """Returns values and relief of cloth, of stripes of unequal width, or of fibres in about one direction."""
    if way == "weave":
        over = ((np.floor(u) + np.floor(v)).astype(np.int32) // integer(rng, 1, 3)) & 1
        relief = np.where(over == 1, _to_edge(u), _to_edge(v)) * np.float32(3) - np.float32(0.9)
        return over.astype(np.float32) * 2 - 1, relief
    if way == "stripes":
        table = rng.random(64, dtype=np.float32) * 2 - 1
        table = np.repeat(table, rng.integers(1, 5, 64))[:128]
        values = table[np.floor(u * 3).astype(np.int32) % len(table)]
        return np.asarray(values), window(rng, tile(rng, 1.0), size) * np.float32(0.3)
    field = tile(rng, between(rng, 0.7, 1.1), between(rng, 0, math.pi), log_between(rng, 6, 40), 3)
    blades = window(rng, field, size)
    return blades, blades * np.float32(0.7)


def _aslant(rng: Rng, image: Image.Image) -> Image.Image:
    """Returns the image in perspective, cut so that it fills the picture."""
    width, height = image.size
    far = between(rng, 0.15, 0.9)
    targets: Corners = [
        (-width * far, -height * 0.05),
        (width * (1 + far), -height * 0.05),
        (width * 1.02, height * 1.02),
        (-width * 0.02, height * 1.02),
    ]
    if happens(rng, 0.6):
        targets = targets[2:] + targets[:2]
    how = perspective(targets, image.size)
    return image.transform(image.size, Image.Transform.PERSPECTIVE, how, Image.Resampling.BILINEAR)
