"""Dead leaves: shapes of every size, each textured and lit, dropped on top of each other.

Such pictures have the statistics of nature: edges, occlusion, and the same look at every scale. Knows nothing of
scenes.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.drawing.camera import develop
from training.drawing.chance import Rng, Size, between, happens, integer, log_between, photo_size, pick
from training.drawing.noise import natural_tile, painted, window
from training.drawing.palette import Colour, Palette, make_palette, near

Point = tuple[float, float]
Outline = list[Point]
"""Corners around the origin. A box's are up to 1.3 away from it, those of other shapes up to about 1."""

SHAPES = ("disk", "ellipse", "polygon", "blob", "box", "star", "bar", "leaf")

_CORNERS = 26
"""Number of corners, except for polygons, boxes and bars. The first corner of a leaf is its tip."""

LEAF_BASE = _CORNERS // 2
"""Index of the corner opposite to a leaf's tip."""


def outline(rng: Rng, shape: str) -> Outline:
    """Returns one of `SHAPES`, rotated at random. Any other word gives a disk."""
    turn = between(rng, 0, 2 * math.pi)
    if shape == "box":
        flat = log_between(rng, 0.25, 1)
        return _turned([(-0.9, -0.9 * flat), (0.9, -0.9 * flat), (0.9, 0.9 * flat), (-0.9, 0.9 * flat)], turn)
    if shape == "bar":
        flat = log_between(rng, 0.02, 0.2)
        return _turned([(-1, -flat), (1, -flat), (1, flat), (-1, flat)], turn)
    count = integer(rng, 3, 7) if shape == "polygon" else _CORNERS
    angles: NDArray[np.float64] = np.arange(count, dtype=np.float64) * (2 * math.pi / count)
    radii = np.ones(count)
    if shape == "polygon":
        angles = angles + rng.uniform(-0.4, 0.4, count)
    elif shape == "blob":
        radii = _lobes(rng, angles)
    elif shape == "star":
        radii = 1 - between(rng, 0.2, 0.7) * (0.5 + 0.5 * np.cos(angles * integer(rng, 3, 8)))
    flat = log_between(rng, 0.3, 1) if shape in ("ellipse", "blob") else 1.0
    x, y = np.cos(angles) * radii, np.sin(angles) * radii * flat
    if shape == "leaf":
        y = np.sin(angles) * np.abs(np.sin(angles / 2)) * between(rng, 0.3, 0.7)
    return _turned(list(zip(x.tolist(), y.tolist(), strict=True)), turn)


def _lobes(rng: Rng, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the radii of a smooth lump."""
    radii = np.ones(len(angles))
    for lobes in range(2, 6):
        radii = radii + between(rng, -0.5, 0.5) / lobes * np.cos(angles * lobes + between(rng, 0, 6.3))
    return np.asarray(radii / radii.max())


def _turned(points: Outline, angle: float) -> Outline:
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def textures(rng: Rng, size: Size, palette: Palette, count: int) -> list[Image.Image]:
    """Returns RGB images of `size`, each with its own pattern in two or three colours of the palette."""
    tiles = [natural_tile(rng) for _ in range(min(count, 3))]
    bank = []
    for index in range(count):
        first = palette[integer(rng, 0, len(palette) - 1)]
        colours = [near(rng, first, 0.5), first, palette[integer(rng, 0, len(palette) - 1)]][: integer(rng, 2, 3)]
        field = window(rng, tiles[index % len(tiles)], size, log_between(rng, 0.5, 3))
        bank.append(painted(rng, field, colours, log_between(rng, 10, 70)))
    return bank


class _Litter:
    """A canvas on which textured shapes fall.

    image: RGB, painted in place. bank: textures of the canvas's size.
    light: direction of the light in radians, the same for all shapes.
    """

    def __init__(self, image: Image.Image, bank: list[Image.Image], light: float) -> None:
        self.image = image
        self.bank = bank
        self._slopes: dict[int, Image.Image] = {}
        self._light = (math.cos(light), math.sin(light))

    def drop(self, rng: Rng, points: Outline, tint: Colour | None, shadow: float) -> None:
        """Fills the outline, in pixels of the canvas, with the tint or a texture. Adds shading and a shadow.

        shadow: 0 (none) to 1 (black).
        """
        box = _bounds(points, self.image.size)
        if box is None:
            return
        mask = _mask_of(points, box)
        side = max(mask.size)
        if shadow > 0 and side > 5:
            off = max(1, round(side * 0.04))
            dark = Image.blend(Image.new("L", mask.size), mask, shadow)
            if side > 32:
                dark = dark.filter(ImageFilter.BoxBlur(off))
            self.image.paste(
                (8, 8, 12), (box[0] - round(self._light[0] * off), box[1] - round(self._light[1] * off)), dark
            )
        if tint is not None and (side < 12 or happens(rng, 0.4)):
            self.image.paste(tint, box[:2], mask)
        else:
            self.image.paste(self._patch(rng, mask.size, tint), box[:2], mask)

    def _slope(self, size: Size) -> Image.Image:
        """Returns an RGB overlay, lighter towards the light: the middle of one of a few cached sizes."""
        side = 1 << (max(size) - 1).bit_length()
        if side not in self._slopes:
            y, x = np.mgrid[-1:1:16j, -1:1:16j]
            grey = np.clip(128 + 85 * (x * self._light[0] + y * self._light[1]), 0, 255).astype(np.uint8)
            slope = Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR)
            self._slopes[side] = Image.merge("RGB", (slope, slope, slope))
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        return self._slopes[side].crop((left, top, left + size[0], top + size[1]))

    def _patch(self, rng: Rng, size: Size, tint: Colour | None) -> Image.Image:
        texture = pick(rng, self.bank)
        left = integer(rng, 0, texture.width - size[0])
        top = integer(rng, 0, texture.height - size[1])
        patch = texture.crop((left, top, left + size[0], top + size[1]))
        if tint is not None:
            patch = Image.blend(patch, Image.new("RGB", size, tint), between(rng, 0.3, 0.8))
        if min(size) > 16:
            patch = ImageChops.overlay(patch, self._slope(size))
        return patch


def _bounds(points: Outline, size: Size) -> tuple[int, int, int, int] | None:
    """Returns the part of the canvas that the outline spans, or None if there is none."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right, bottom = min(size[0], math.ceil(max(xs)) + 1), min(size[1], math.ceil(max(ys)) + 1)
    return (left, top, right, bottom) if right > left and bottom > top else None


def _mask_of(points: Outline, box: tuple[int, int, int, int]) -> Image.Image:
    """Returns a mask of mode L and of the box's size: 255 inside the outline, with smooth edges unless it is large."""
    width, height = box[2] - box[0], box[3] - box[1]
    times = 2 if max(width, height) < 100 else 1
    mask = Image.new("L", (width * times, height * times))
    ImageDraw.Draw(mask).polygon([((x - box[0]) * times, (y - box[1]) * times) for x, y in points], fill=255)
    return mask.reduce(times) if times > 1 else mask


def placed(points: Outline, at: Point, radius: float) -> Outline:
    """Returns the outline in pixels, around `at` and `radius` large."""
    return [(at[0] + x * radius, at[1] + y * radius) for x, y in points]


def draw_leaves(rng: Rng) -> Image.Image:
    size = photo_size(rng)
    palette = make_palette(rng, integer(rng, 4, 9))
    bank = textures(rng, size, palette, integer(rng, 2, 4))
    litter = _Litter(bank[0].copy(), bank, between(rng, 0, 2 * math.pi))
    shapes = [pick(rng, SHAPES) for _ in range(integer(rng, 1, 3))]
    shadow = 0.0 if happens(rng, 0.3) else between(rng, 0.1, 0.7)
    longest, slope = max(size), between(rng, 0.4, 1.6)
    low, high = log_between(rng, 0.006, 0.04) * longest, log_between(rng, 0.12, 0.5) * longest
    count = integer(rng, 25, 85)
    radii = low * (high / low) ** (rng.random(count) ** slope)
    order = np.sort(radii)[::-1] if happens(rng, 0.5) else radii
    for radius in order.tolist():
        at = (between(rng, 0, size[0]), between(rng, 0, size[1]))
        tint = near(rng, pick(rng, palette), 0.3) if happens(rng, 0.7) else None
        litter.drop(rng, placed(outline(rng, pick(rng, shapes)), at, radius), tint, shadow)
    return develop(rng, litter.image)
