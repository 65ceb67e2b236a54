"""Scenes as a camera sees them: a backdrop, things in front of it from far to near, and what the lens adds.

Knows nothing of what any backdrop or thing looks like.
"""

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.drawing.camera import develop
from training.drawing.chance import Rng, between, happens, integer, log_between, photo_size, pick
from training.drawing.leaves import outline, placed
from training.drawing.noise import levels, tile, window
from training.drawing.palette import make_palette
from training.drawing.scenes.backdrop import any_backdrop
from training.drawing.scenes.stage import Stage
from training.drawing.scenes.things import THINGS, Thing


def draw_scene(rng: Rng) -> Image.Image:
    size = photo_size(rng)
    palette = make_palette(rng, integer(rng, 4, 7)) + make_palette(rng, integer(rng, 1, 4))
    image, horizon = any_backdrop(rng, size, palette)
    if happens(rng, 0.45):
        image = image.filter(ImageFilter.BoxBlur(log_between(rng, 0.5, 8)))
    stage = Stage(rng, image, palette)
    if happens(rng, 0.5):
        _crowd(stage, horizon, integer(rng, 1, 6))
        _subject(stage, between(rng, 0.4, 0.9))
    elif happens(rng, 0.5):
        _subject(stage, between(rng, 0.6, 1.3))
    else:
        _crowd(stage, horizon, integer(rng, 3, 10))
    if happens(rng, 0.2):
        _foreground(stage)
    return develop(rng, _weathered(rng, stage.image) if happens(rng, 0.6) else stage.image)


def _weathered(rng: Rng, image: Image.Image) -> Image.Image:
    """Returns the image with the fine unevenness of real surfaces, and sometimes with dappled shade."""
    fine = window(rng, tile(rng, between(rng, 0.6, 1.0), lowest=8), image.size)
    grey = fine * np.float32(log_between(rng, 2, 14)) + np.float32(128)
    if happens(rng, 0.2):
        shade = window(rng, tile(rng, between(rng, 1.5, 2.0)), image.size) * np.float32(between(rng, 2, 8))
        grey += np.clip(shade + np.float32(between(rng, -2, 2)), -1, 1) * np.float32(between(rng, 15, 45))
    light = Image.fromarray(levels(grey, 1.0, 0.0))
    return ImageChops.overlay(image, Image.merge("RGB", (light, light, light)))


def _subject(stage: Stage, share: float) -> None:
    """Draws one thing near the middle, `share` of the picture's height."""
    rng, (width, height) = stage.rng, stage.size
    high = share * min(height, width * 1.2)
    foot = (width * between(rng, 0.3, 0.7), height / 2 + high * between(rng, 0.4, 0.6))
    pick(rng, THINGS)(stage, foot, high)


def _crowd(stage: Stage, horizon: int, count: int) -> None:
    """Draws things of one to three kinds from the horizon forward. Nearer things are larger."""
    rng, (width, height) = stage.rng, stage.size
    kinds: list[Thing] = [pick(rng, THINGS) for _ in range(integer(rng, 1, 3))]
    biggest = between(rng, 0.25, 0.8) * height
    order = sorted(rng.random(count).tolist())
    if happens(rng, 0.2):
        order = [order[0]] * count
    for index, nearness in enumerate(order):
        x = (index + between(rng, 0, 1)) * width / count if happens(rng, 0.3) else between(rng, 0, 1) * width
        foot = (x, horizon + (height * 1.05 - horizon) * nearness)
        pick(rng, kinds)(stage, foot, max(12, biggest * (0.2 + 0.8 * nearness) * between(rng, 0.7, 1.2)))


def _foreground(stage: Stage) -> None:
    """Paints blurred shapes in front of the lens, at one edge: leaves, a rail, a shoulder."""
    rng, (width, height) = stage.rng, stage.size
    layer = Image.new("L", (width // 4, height // 4))
    tint = stage.colour()
    pen = ImageDraw.Draw(layer)
    edge = pick(rng, ("left", "right", "bottom", "top"))
    for _ in range(integer(rng, 1, 6)):
        x, y = between(rng, 0, layer.width), between(rng, 0, layer.height)
        if edge in ("left", "right"):
            x = 0 if edge == "left" else layer.width
        else:
            y = 0 if edge == "top" else layer.height
        shape = outline(rng, pick(rng, ("leaf", "blob", "bar", "ellipse")))
        pen.polygon(placed(shape, (x, y), between(rng, 0.1, 0.4) * max(layer.size)), fill=255)
    mask = layer.filter(ImageFilter.BoxBlur(log_between(rng, 0.5, 5))).resize(stage.size, Image.Resampling.BILINEAR)
    stage.image.paste(tint, (0, 0), mask)
