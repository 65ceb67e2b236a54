"""A stage for things that look solid: any silhouette, textured, shaded by the stage's light, with its shadow.

Knows nothing of what the silhouettes are.
"""

import math
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.drawing.chance import Rng, Size, between, happens, integer, log_between, pick
from training.drawing.leaves import textures
from training.drawing.palette import Colour, Palette, any_colour, make_palette, mixed

_RELIEF_SIDE = 56
"""Pixels of the longer side at which relief is computed. It is smooth, so few are enough."""


class Stage:
    """image: RGB, painted in place. bank: textures of its size. rng: makes all random choices here.

    palette: the colours of all things here. Some things have further colours of their own.
    light: direction of the light in radians, always from above. hard: depth of relief and shadows, 0.2 to 1.
    """

    def __init__(self, rng: Rng, image: Image.Image, palette: Palette) -> None:
        self.rng = rng
        self.image = image
        self.palette = palette
        self.bank = textures(rng, image.size, make_palette(rng) if happens(rng, 0.5) else palette, 2)
        self.light = between(rng, -math.pi * 0.95, -math.pi * 0.05)
        self.hard = between(rng, 0.2, 1.0)

    @property
    def size(self) -> Size:
        return self.image.size

    def colour(self) -> Colour:
        """Returns a colour of the palette, or one time in four any colour."""
        return any_colour(self.rng) if happens(self.rng, 0.25) else pick(self.rng, self.palette)

    def put(
        self, mask: Image.Image, left: int, top: int, tint: Colour, *, rough: float = 0.4, relief: float = 1.0
    ) -> None:
        """Paints the mask (mode L) with its corner at `left` and `top`. Parts off the stage are left out.

        rough: how much of a texture shows in the tint, 0 to 1. relief: how round it looks, 0 for flat.
        """
        box = (max(0, -left), max(0, -top), min(mask.width, self.size[0] - left), min(mask.height, self.size[1] - top))
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            return
        shade = _relief(mask, self.light, 90 * relief * self.hard) if relief > 0 and min(mask.size) > 9 else None
        if box != (0, 0, *mask.size):
            mask, shade = mask.crop(box), shade and shade.crop(box)
        patch = self.patch(mask.size, tint, rough)
        if shade is not None:
            patch = ImageChops.overlay(patch, Image.merge("RGB", (shade, shade, shade)))
        self.image.paste(patch, (left + box[0], top + box[1]), mask)

    def patch(self, size: Size, tint: Colour, rough: float) -> Image.Image:
        """Returns RGB of the size, which is at most the stage's: the tint with a share `rough` of a texture."""
        if rough <= 0.02 or min(size) < 5:
            return Image.new("RGB", size, tint)
        texture = pick(self.rng, self.bank)
        left, top = integer(self.rng, 0, texture.width - size[0]), integer(self.rng, 0, texture.height - size[1])
        patch = texture.crop((left, top, left + size[0], top + size[1]))
        return Image.blend(Image.new("RGB", size, tint), patch, min(1.0, rough))

    def shadow(self, left: float, right: float, foot: float) -> None:
        """Paints a soft dark ellipse on the ground, a quarter wider than `left` to `right`, away from the light."""
        wide = max(4, round((right - left) * 1.25))
        high = max(3, round(wide * 0.16))
        soft = _soft_disk().resize((wide, high))
        soft = Image.blend(Image.new("L", soft.size), soft, 0.6 * self.hard)
        shift = round(-math.cos(self.light) * wide * 0.12)
        self.image.paste((6, 6, 10), (round((left + right - wide) / 2) + shift, round(foot - high * 0.6)), soft)

    def polygon(
        self, points: list[tuple[float, float]], tint: Colour, *, rough: float = 0.3, relief: float = 0.0
    ) -> None:
        """Paints the polygon of the points (in pixels of the stage) as `put` paints a mask, but flat by default."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        left, top = max(-200, math.floor(min(xs))), max(-200, math.floor(min(ys)))
        right, bottom = min(self.size[0] + 200, math.ceil(max(xs)) + 1), min(self.size[1] + 200, math.ceil(max(ys)) + 1)
        if right - left < 2 or bottom - top < 2:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=255)
        self.put(mask, left, top, tint, rough=rough, relief=relief)


def _relief(mask: Image.Image, light: float, strength: float) -> Image.Image:
    """Returns mode L of the mask's size: the shading of the silhouette as if inflated and lit from `light`.

    Flat parts are 132. As an overlay, this lightens them slightly.
    """
    scale = min(1.0, _RELIEF_SIDE / max(mask.size))
    small = mask.resize((max(4, round(mask.width * scale)), max(4, round(mask.height * scale))), reducing_gap=1.0)
    radius = max(1.0, min(small.size) * 0.12)
    padded = Image.new("L", (small.width + 2, small.height + 2))
    padded.paste(small, (1, 1))
    soft = padded.filter(ImageFilter.BoxBlur(radius))
    height = np.asarray(soft, dtype=np.float32)
    dx, dy = height[1:-1, 2:] - height[1:-1, :-2], height[2:, 1:-1] - height[:-2, 1:-1]
    slope = (dx * np.float32(-math.cos(light)) + dy * np.float32(-math.sin(light))) * np.float32(
        radius * strength / 255
    )
    shade = Image.fromarray(np.clip(slope + 132, 0, 255).astype(np.uint8))
    return shade.resize(mask.size, Image.Resampling.BILINEAR)


@cache
def _soft_disk() -> Image.Image:
    """Returns mode L: 255 in the middle, falling to 0 at the edge."""
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    return Image.fromarray((np.clip(1 - np.sqrt(x * x + y * y), 0, 1) * 255).astype(np.uint8))


def shaded_ball(stage: Stage, at: tuple[float, float], radius: float, tint: Colour) -> None:
    """Draws a ball, light on one side and dark on the other. Half of the balls have a highlight."""
    rng = stage.rng
    side = max(4, round(radius * 2))
    n = min(64, side)
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    lit = x * math.cos(stage.light) * 0.7 + y * math.sin(stage.light) * 0.7 + z * 0.7
    shade = 128 + (lit - 0.45) * 130 * stage.hard
    if happens(rng, 0.5):
        shade += 110 * np.clip(lit, 0, 1) ** log_between(rng, 10, 60)
    grey = Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    left, top = round(at[0] - radius), round(at[1] - radius)
    size = (min(side, stage.size[0]), min(side, stage.size[1]))
    patch = stage.patch(size, tint, between(rng, 0, 0.5)).resize((side, side))
    stage.image.paste(ImageChops.overlay(patch, Image.merge("RGB", (grey, grey, grey))), (left, top), mask)


def darker(colour: Colour, by: float) -> Colour:
    """Returns the colour with the share `by` (0 to 1) of a near black."""
    return mixed(colour, (8, 8, 14), by)
