"""Paper under a scanner or a camera: its tone, its creases, its position, and how dark the ink is.

Turns a mask of ink into an RGB picture. Knows nothing of what is written.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.drawing.camera import develop
from training.drawing.chance import Rng, Size, between, happens, integer, log_between, pick
from training.drawing.ink import Sheet
from training.drawing.noise import Field, natural_tile, painted, tile, window
from training.drawing.palette import Colour, hsv, make_palette, vivid

Grey = NDArray[np.uint8]
Corners = list[tuple[float, float]]
"""Four points in pixels, clockwise from the top left, or none."""

# Share of scans on plain white paper, as copiers leave it, so that neither tone nor creases tell two of them apart.
_CLEAN = 0.5


@dataclass(frozen=True)
class Splash:
    """Ink of another colour: a logo, a stamp, a signature. layer: uint8, of the sheet's shape."""

    layer: Grey
    colour: Colour


def scanned(
    rng: Rng,
    sheet: Sheet,
    splashes: tuple[Splash, ...],
    *,
    thermal: bool = False,
    photographed_share: float = 0.28,
) -> Image.Image:
    """Returns the sheet as a picture of its size, on a scanner's glass or on a desk.

    thermal: faint and streaky, as small printers print. photographed_share: how often the sheet is on a desk.
    """
    on_a_desk = happens(rng, photographed_share)
    size, (paper, whiteness) = (sheet.width, sheet.height), _any_paper(rng, photographed=on_a_desk)
    light = _light(rng, size, whiteness)
    if not on_a_desk and happens(rng, _CLEAN):
        paper, light = (255, 255, 255), np.ones((1, 1), dtype=np.float32)
    bilevel = not on_a_desk and happens(rng, 0.2)
    grey = Image.fromarray(_printed(rng, sheet.ink, light, thermal=thermal, bilevel=bilevel))
    layers = [Image.fromarray(spot.layer) for spot in splashes]
    corners = _on_a_desk(rng, size) if on_a_desk else _on_glass(rng, size)
    if corners:
        how, lid = perspective(corners, size), pick(rng, (255, 250, 235, 60, 10), (6, 2, 1, 1, 2))
        grey = _moved(grey, how, lid)
        layers = [_moved(layer, how, 0) for layer in layers]
    image = _toned(rng, grey, paper)
    for spot, layer in zip(splashes, layers, strict=True):
        image.paste(spot.colour, (0, 0), layer)
    if on_a_desk:
        return develop(rng, _with_desk(rng, image, corners))
    return image.filter(ImageFilter.BoxBlur(log_between(rng, 0.2, 0.8))) if happens(rng, 0.2) else image


def _moved(layer: Image.Image, how: list[float], fill: int) -> Image.Image:
    """Returns the layer (mode L) in perspective. Moving it after it has three channels takes three times as long."""
    return layer.transform(layer.size, Image.Transform.PERSPECTIVE, how, Image.Resampling.BILINEAR, fillcolor=fill)


def _printed(rng: Rng, ink: Grey, light: Field, *, thermal: bool, bilevel: bool) -> Grey:
    """Returns how light each pixel is, 255 for white: ink as dark as the printer makes it, on lit paper."""
    darkness = between(rng, 0.25, 0.8) if thermal and happens(rng, 0.6) else between(rng, 0.7, 1.0)
    strength = np.full((ink.shape[0], 1), darkness, dtype=np.float32)
    if thermal or happens(rng, 0.3):
        strength = strength * _streaks(rng, ink.shape[0])[:, None]
    grey = (np.float32(255) - ink * strength) * light
    if happens(rng, 0.45):
        grey += rng.integers(-16, 16, ink.shape, dtype=np.int8) * np.float32(log_between(rng, 0.1, 1))
    if bilevel:
        dark = 255 * np.median(light) * (1 - darkness * between(rng, 0.3, 0.6))
        grey = np.where(grey > dark, np.float32(255), np.float32(0))
    return np.asarray(np.clip(grey, 0, 255), dtype=np.uint8)


def _light(rng: Rng, size: Size, whiteness: float) -> Field:
    """Returns float32 that broadcasts to `[height, width]`, 1 for white: paper with texture, creases and shadows."""
    light = np.full((1, 1), whiteness, dtype=np.float32)
    if happens(rng, 0.6):
        light = light + window(rng, tile(rng, between(rng, 1.5, 2.2)), size, 3) * np.float32(
            log_between(rng, 0.004, 0.04)
        )
    if happens(rng, 0.3):
        light = light * (1 + _creases(rng, size))
    if happens(rng, 0.35):
        light = light * _shadow(rng, size)
    return light


def _streaks(rng: Rng, count: int) -> Field:
    """Returns the share of the ink that each of `count` rows prints, 0 to 1."""
    smooth = np.interp(np.arange(count), np.linspace(0, count, 12), rng.uniform(0.6, 1, 12))
    return (smooth * rng.uniform(between(rng, 0.5, 1), 1, count)).astype(np.float32)


def _creases(rng: Rng, size: Size) -> Field:
    """Returns float32 `[height, width]` around 0: folds, lighter on one side than on the other."""
    width, height = size
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    total = np.zeros((height, width), dtype=np.float32)
    for _ in range(integer(rng, 1, 4)):
        angle = pick(rng, (0.0, math.pi / 2, between(rng, 0, math.pi))) + between(rng, -0.06, 0.06)
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        far = (x - np.float32(between(rng, 0, width))) * cos + (y - np.float32(between(rng, 0, height))) * sin
        far /= np.float32(log_between(rng, 3, 40))
        total += far / (1 + far * far) * np.float32(log_between(rng, 0.02, 0.25))
    return total


def _shadow(rng: Rng, size: Size) -> Field:
    """Returns float32 that broadcasts to `[height, width]`: dark along an edge, or fading across the sheet."""
    along = integer(rng, 0, 1)
    ramp = np.linspace(0, 1, size[along], dtype=np.float32)
    ramp = ramp[::-1] if happens(rng, 0.5) else ramp
    deep = np.float32(between(rng, 0.05, 0.5))
    shade = 1 - deep * ramp ** np.float32(log_between(rng, 1, 30))
    return np.asarray(shade[None, :] if along == 0 else shade[:, None])


def _any_paper(rng: Rng, *, photographed: bool) -> tuple[Colour, float]:
    """Returns the paper's colour in full light, and how light the paper is, 0 to 1.

    It is white or greyish. About one in five is yellowed, and one in ten has another colour.
    """
    way = pick(rng, ("white", "grey", "warm", "colour"), (3, 3 + 3 * photographed, 2, 1))
    if way == "white":
        return (255, 255, 255), 1.0
    if way == "grey":
        return hsv(between(rng, 0, 1), between(rng, 0, 0.03), 1), between(rng, 0.72, 0.98)
    if way == "warm":
        return hsv(between(rng, 0.07, 0.16), between(rng, 0.03, 0.25), 1), between(rng, 0.8, 1)
    return hsv(between(rng, 0, 1), between(rng, 0.1, 0.4), 1), between(rng, 0.75, 1)


def _toned(rng: Rng, grey: Image.Image, paper: Colour) -> Image.Image:
    """Returns RGB: white becomes the paper's colour, and black the ink's, which is rarely quite black."""
    ink = hsv(pick(rng, (0.65, 0.6, 0.05, 0.8)), between(rng, 0, 0.5) ** 2, between(rng, 0, 0.3))
    share = np.arange(256) / 255
    tables = [np.round(ink[c] + (paper[c] - ink[c]) * share).astype(int).tolist() for c in range(3)]
    return Image.merge("RGB", [grey.point(table) for table in tables])


def _on_glass(rng: Rng, size: Size) -> Corners:
    """Returns the sheet's corners under a scanner's lid, a little askew, or none if the sheet is straight."""
    if happens(rng, 0.35):
        return []
    tilt = between(rng, -2, 2) if happens(rng, 0.8) else between(rng, -8, 8)
    return _turned(size, tilt, 1 / between(rng, 1.0, 1.1))


def _on_a_desk(rng: Rng, size: Size) -> Corners:
    """Returns the sheet's corners in front of a camera: rotated, and not quite a rectangle."""
    corners = _turned(size, between(rng, -12, 12), between(rng, 0.72, 0.92))
    return [(x + between(rng, -0.03, 0.03) * size[0], y + between(rng, -0.03, 0.03) * size[1]) for x, y in corners]


def _turned(size: Size, degrees: float, scale: float) -> Corners:
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    corners = []
    for x, y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        x, y = x * size[0], y * size[1]
        corners.append((x * cos - y * sin + size[0] / 2, x * sin + y * cos + size[1] / 2))
    return corners


def _with_desk(rng: Rng, image: Image.Image, corners: Corners) -> Image.Image:
    """Returns the image with a desk or a cloth outside the corners, and the sheet's shadow on it."""
    half = (image.width // 2, image.height // 2)
    field = window(rng, natural_tile(rng), half)
    small = painted(rng, field, make_palette(rng)[:3], between(rng, 8, 40))
    off = between(rng, -4, 4), between(rng, 0.5, 5)
    shadow = Image.new("L", half)
    ImageDraw.Draw(shadow).polygon([(x / 2 + off[0], y / 2 + off[1]) for x, y in corners], fill=integer(rng, 60, 160))
    small.paste((0, 0, 0), (0, 0), shadow.filter(ImageFilter.BoxBlur(log_between(rng, 1, 8))))
    desk = small.resize(image.size, Image.Resampling.BILINEAR)
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    desk.paste(image, (0, 0), mask)
    return desk


def perspective(targets: Corners, size: Size) -> list[float]:
    """Returns coefficients for Pillow that move the corners of a picture of `size` to the targets.

    Corners go clockwise from the top left.
    """
    width, height = size
    sources = ((0, 0), (width, 0), (width, height), (0, height))
    rows, values = [], []
    for (x, y), (u, v) in zip(targets, sources, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(values))]


def splash(sheet: Sheet, mask: Grey, left: int, top: int, colour: Colour, strength: float = 1.0) -> Splash:
    """Returns a mask on a layer of the sheet's size."""
    layer = Sheet((sheet.width, sheet.height))
    layer.put(mask, left, top, strength)
    return Splash(layer.ink, colour)


def pen_colour(rng: Rng) -> Colour:
    """Returns blue, black, red, green, or a vivid colour like a stamp's."""
    return pick(rng, ((25, 40, 130), (20, 20, 25), (180, 30, 40), (30, 110, 60), vivid(rng)), (5, 3, 3, 1, 1))
