"""Backgrounds of scenes: sky and land, water, rooms, soft lights, grounds seen from above, foliage, studios.

Knows nothing of what stands in front of them.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.drawing.chance import Rng, Size, between, happens, integer, log_between, pick
from training.drawing.leaves import LEAF_BASE, outline, placed
from training.drawing.noise import Field, levels, natural_tile, painted, tile, window
from training.drawing.palette import Colour, Palette, hsv, mixed, near, scaled
from training.drawing.paper import perspective
from training.drawing.texture import surface

Backdrop = tuple[Image.Image, int]
"""An RGB image, and the row of pixels of its horizon. Things stand below it."""


def any_backdrop(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Returns a backdrop of a random kind: most often land, least often a studio."""
    ways: tuple[Callable[[Rng, Size, Palette], Backdrop], ...] = (_land, _room, _haze, _ground, _foliage, _studio)
    return pick(rng, ways, (5, 3, 2, 2, 2, 1))(rng, size, palette)


def _sloped(top: Colour, bottom: Colour, size: Size) -> Image.Image:
    """Returns an RGB gradient from `top` down to `bottom`."""
    share = np.linspace(0, 1, 64)[:, None, None]
    column = np.array(top)[None, None] * (1 - share) + np.array(bottom)[None, None] * share
    return Image.fromarray(np.repeat(column, 2, axis=1).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _sky(rng: Rng, size: Size) -> Image.Image:
    hue = pick(rng, (between(rng, 0.55, 0.62), between(rng, 0, 0.1), between(rng, 0.5, 0.75)), (5, 1, 2))
    deep = hsv(hue, between(rng, 0.05, 0.7), between(rng, 0.3, 0.95))
    pale = mixed(deep, pick(rng, ((240, 240, 240), (250, 220, 180))), between(rng, 0.3, 0.95))
    sky = _sloped(deep, pale, size)
    if happens(rng, 0.7):
        cloud = window(rng, tile(rng, between(rng, 1.3, 1.9), 0.0, log_between(rng, 1, 5)), size, 1.2)
        mask = Image.fromarray(levels(cloud, between(rng, 30, 120), between(rng, -20, 130)))
        grey = integer(rng, 190, 255)
        sky.paste((grey, grey, min(255, grey + 4)), (0, 0), mask)
    return sky


def _floor(rng: Rng, size: Size, palette: Palette, *, made: bool) -> Image.Image:
    """Returns RGB: a ground that recedes.

    made: always one that people made (tiles, planks). Otherwise seven in ten are grass, earth or the like.
    """
    width, height = size
    flat: Size = (min(width, 360), min(240, max(60, height)))
    if made or happens(rng, 0.3):
        image = surface(rng, flat, palette, pick(rng, ("tiles", "planks", "checks", "bricks", "fibres", "stripes")))
    else:
        hue = pick(rng, (between(rng, 0.2, 0.35), between(rng, 0.05, 0.13), between(rng, 0.5, 0.6)), (4, 3, 1))
        tint = hsv(hue, between(rng, 0.1, 0.7), between(rng, 0.25, 0.8))
        field = window(rng, tile(rng, between(rng, 0.6, 1.3), math.pi / 2, log_between(rng, 1, 6)), flat)
        image = painted(rng, field, [scaled(tint, 0.35), tint, near(rng, scaled(tint, 1.4), 0.2)], between(rng, 25, 55))
    far = between(rng, 0.5, 2.5)
    targets = [(0.0, 0.0), (float(width), 0.0), (width * (1 + far), float(height)), (-width * far, float(height))]
    how = perspective(targets, flat)
    return image.transform(size, Image.Transform.PERSPECTIVE, how, Image.Resampling.BILINEAR)


def _land(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Draws sky, ridges behind each other in the haze, and open ground or water."""
    width, height = size
    horizon = round(height * between(rng, 0.15, 0.75))
    image = _sky(rng, size)
    haze = image.getpixel((width // 2, max(0, horizon - 1)))
    assert isinstance(haze, tuple)
    haze_colour: Colour = (haze[0], haze[1], haze[2])
    ridges = integer(rng, 0, 4)
    hue = pick(rng, (between(rng, 0.2, 0.4), between(rng, 0.03, 0.12)), (3, 1))
    near_colour = hsv(hue, between(rng, 0.2, 0.7), between(rng, 0.15, 0.5))
    smoothness, woods = between(rng, 0.6, 1.6), tile(rng, between(rng, 0.5, 1.2))
    for index in range(ridges):
        nearness = (index + 1) / ridges
        line = _profile(rng, width, smoothness)
        base = horizon - height * between(rng, 0.02, 0.2) * (1 - nearness * 0.7)
        tops = base - line * height * between(rng, 0.01, 0.06)
        points = [(float(x), float(tops[min(x, width - 1)])) for x in range(0, width + 3, 3)]
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon([(0.0, float(horizon + 2)), *points, (width + 3.0, float(horizon + 2))], fill=255)
        tint = mixed(haze_colour, near_colour, 0.2 + 0.75 * nearness)
        skin = painted(
            rng, window(rng, woods, (width, 96)), [scaled(tint, 0.65), tint, scaled(tint, 1.25)], 10 + 45 * nearness
        )
        image.paste(skin.resize(size), (0, 0), mask)
    if height - horizon > 8:
        if happens(rng, 0.2):
            _flood(rng, image, horizon)
        else:
            image.paste(_floor(rng, (width, height - horizon), palette, made=False), (0, horizon))
    return image, horizon


def _profile(rng: Rng, width: int, smoothness: float) -> Field:
    """Returns a skyline, float32 `[width]` of deviation 1. A higher `smoothness` gives a smoother one."""
    steps = np.arange(129, dtype=np.float32)
    steps[0] = np.inf
    phases = np.exp(2j * math.pi * rng.random(129)) / steps**smoothness
    line = np.fft.irfft(phases, n=256)[: integer(rng, 90, 256)]
    at = np.linspace(0, len(line) - 1, width)
    return np.asarray(np.interp(at, np.arange(len(line)), line / line.std()), dtype=np.float32)


def _flood(rng: Rng, image: Image.Image, horizon: int) -> None:
    """Paints water below the horizon: a mirror image of what is above, broken by ripples."""
    width, height = image.size
    deep = height - horizon
    above = image.crop((0, max(0, horizon - deep), width, horizon)).resize((width, deep))
    water = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    tint = hsv(between(rng, 0.3, 0.65), between(rng, 0.2, 0.6), between(rng, 0.15, 0.6))
    ripples = window(rng, tile(rng, between(rng, 0.7, 1.3), 0.0, log_between(rng, 4, 16)), (width, deep))
    mask = Image.fromarray(levels(ripples, between(rng, 20, 70), between(rng, 60, 150)))
    water.paste(tint, (0, 0), mask)
    image.paste(water, (0, horizon))


def _room(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Draws a wall, what hangs on it, and a floor or a table top."""
    width, height = size
    line = round(height * between(rng, 0.35, 0.85))
    paint = pick(rng, palette)
    if happens(rng, 0.35):
        image = surface(rng, size, palette)
    else:
        image = _sloped(scaled(paint, between(rng, 0.7, 1.2)), scaled(paint, between(rng, 0.5, 1.0)), size)
    pen, print_tile = ImageDraw.Draw(image), natural_tile(rng)
    for _ in range(integer(rng, 0, 6)):
        w, h = width * between(rng, 0.05, 0.35), height * between(rng, 0.08, 0.45)
        x, y = between(rng, -0.1, 1) * width, between(rng, -0.1, 0.5) * height
        pen.rectangle(
            (x, y, x + w, y + h),
            fill=near(rng, pick(rng, palette), 0.3),
            outline=scaled(paint, 0.4),
            width=integer(rng, 1, 5),
        )
        if happens(rng, 0.5):
            inner = painted(rng, window(rng, print_tile, (max(4, round(w * 0.8)), max(4, round(h * 0.8)))), palette)
            image.paste(inner, (round(x + w * 0.1), round(y + h * 0.1)))
    if happens(rng, 0.5):
        shelf = round(line - height * between(rng, 0.15, 0.5))
        x = round(between(rng, -0.1, 0.3) * width)
        while x < width * between(rng, 0.6, 1.1):
            w, h = width * between(rng, 0.01, 0.05), height * between(rng, 0.05, 0.14)
            pen.rectangle((x, shelf - h, x + w, shelf), fill=near(rng, pick(rng, palette), 0.5))
            x += round(w) + 1
        pen.rectangle((0, shelf, width, shelf + 4), fill=scaled(paint, 0.5))
    image.paste(_floor(rng, (width, height - line), palette, made=True), (0, line))
    return image, line


def _haze(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Draws a ground out of focus: soft blots and disks of light."""
    small = (size[0] // 3 + 1, size[1] // 3 + 1)
    order = [palette[at] for at in rng.permutation(len(palette))[: integer(rng, 2, 4)]]
    image = painted(rng, window(rng, tile(rng, between(rng, 1.2, 2.2)), small), order, between(rng, 20, 70))
    pen = ImageDraw.Draw(image)
    for _ in range(integer(rng, 0, 40)):
        x, y, radius = between(rng, 0, small[0]), between(rng, 0, small[1]), log_between(rng, 0.01, 0.2) * small[0]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=near(rng, pick(rng, palette), 0.4))
    image = image.filter(ImageFilter.BoxBlur(log_between(rng, 1, 9)))
    return image.resize(size, Image.Resampling.BILINEAR), round(size[1] * between(rng, 0.3, 0.9))


def _ground(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Draws a ground seen from above: sand, leaves, cloth, stones."""
    if happens(rng, 0.5):
        return surface(rng, size, palette), 0
    order = [palette[at] for at in sorted(rng.permutation(len(palette))[:3].tolist())]
    return painted(rng, window(rng, tile(rng, between(rng, 0.5, 1.4)), size), order, between(rng, 15, 50)), 0


def _foliage(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Draws layers of leaves or stalks, dark behind and light in front: hedges, forests, reeds, flower beds."""
    width, height = size
    hue = between(rng, 0.17, 0.4) if happens(rng, 0.75) else between(rng, 0, 0.16)
    tint = hsv(hue, between(rng, 0.2, 0.8), between(rng, 0.3, 0.75))
    skin = window(rng, tile(rng, between(rng, 0.6, 1.2)), size)
    image = painted(rng, skin, [scaled(tint, 0.1), scaled(tint, 0.3), scaled(tint, 0.55)], 45)
    pen, count = ImageDraw.Draw(image), integer(rng, 120, 450)
    shape, radius = pick(rng, ("leaf", "leaf", "ellipse", "bar", "blob")), log_between(rng, 0.012, 0.1) * max(size)
    kinds = [outline(rng, shape) for _ in range(12)]
    bloom = pick(rng, palette) if happens(rng, 0.4) else tint
    for index in range(count):
        lit = 0.3 + 0.9 * index / count + between(rng, -0.2, 0.2)
        colour = near(rng, scaled(bloom if happens(rng, 0.12) else tint, lit), 0.2)
        at = (between(rng, 0, width), between(rng, 0, height))
        points = placed(kinds[index % 12], at, radius * between(rng, 0.4, 1.3))
        pen.polygon(points, fill=colour)
        if shape == "leaf" and radius > 9:
            pen.line((points[0], points[LEAF_BASE]), fill=scaled(colour, 1.25))
    return image, round(height * between(rng, 0.4, 1.0))


def _studio(rng: Rng, size: Size, palette: Palette) -> Backdrop:
    """Draws plain paper, as in photographs of products."""
    light = pick(rng, ((255, 255, 255), (235, 235, 235), pick(rng, palette), (12, 12, 14)), (4, 2, 2, 1))
    return _sloped(light, scaled(light, between(rng, 0.75, 1.0)), size), round(size[1] * between(rng, 0.2, 0.7))
