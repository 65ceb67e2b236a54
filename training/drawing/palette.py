"""Palettes of colours that go together, one for each picture. Knows nothing of what is painted with them."""

import colorsys

import numpy as np
from numpy.typing import NDArray

from training.drawing.chance import Rng, between, integer, pick

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Palette = list[Colour]

_HUES = ((0.01, 0.14), (0.17, 0.38), (0.52, 0.67), (0.0, 1.0))
"""Ranges in turns: earth, wood and skin; leaves; sky and water; and all hues."""


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Returns the colour of a hue in turns (any number), and of a saturation and a value (clipped to 0 to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(red * 255), round(green * 255), round(blue * 255)


def make_palette(rng: Rng, count: int = 7) -> Palette:
    """Returns `count` colours of one to three hues, from dark to light. As in nature, more are dull than bright."""
    low, high = pick(rng, _HUES, (6, 3, 3, 3))
    base = between(rng, low, high)
    spread = pick(rng, (0.02, 0.06, 0.15, 0.5), (3, 4, 2, 1))
    hues = [base, base + pick(rng, (0.08, -0.08, 0.33, 0.5, 0.42)), base + between(rng, -spread, spread)]
    dullness = pick(rng, (0.07, 0.22, 0.42, 0.7), (2, 4, 3, 1))
    dark, light = between(rng, 0.03, 0.35), between(rng, 0.55, 1.0)
    palette = []
    for step in range(count):
        value = dark + (light - dark) * (step + between(rng, -0.6, 0.6)) / max(1, count - 1)
        saturation = dullness * between(rng, 0.4, 1.4) * (1.15 - 0.5 * max(0.0, value))
        hue = hues[integer(rng, 0, 2)] + between(rng, -spread, spread) * 0.5
        palette.append(hsv(hue, saturation, value))
    return palette


def any_colour(rng: Rng) -> Colour:
    """Returns any colour, from grey to vivid and from dark to light."""
    return hsv(between(rng, 0, 1), between(rng, 0, 1) ** 1.3, between(rng, 0.1, 1))


def vivid(rng: Rng) -> Colour:
    """Returns a colour as in logos, charts and flags."""
    return hsv(between(rng, 0, 1), between(rng, 0.5, 1), between(rng, 0.45, 0.95))


def near(rng: Rng, colour: Colour, by: float) -> Colour:
    """Returns the colour, lighter or darker by up to the share `by`, and each channel by up to a third of that."""
    scale = between(rng, 1 - by, 1 + by)
    red, green, blue = (
        min(255, max(0, round(channel * scale * between(rng, 1 - by / 3, 1 + by / 3)))) for channel in colour
    )
    return red, green, blue


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """Returns `one` with `share` (0 to 1) of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def scaled(colour: Colour, by: float) -> Colour:
    """Returns each channel times `by`, at most 255: darker if `by` is less than 1, otherwise lighter."""
    red, green, blue = (min(255, max(0, round(channel * by))) for channel in colour)
    return red, green, blue


def ramp(colours: list[Colour]) -> NDArray[np.uint8]:
    """Returns uint8 `[256, 3]`, linear from each colour to the next."""
    stops = np.linspace(0, 255, len(colours))
    table = np.stack([np.interp(np.arange(256), stops, [c[i] for c in colours]) for i in range(3)], axis=1)
    return table.astype(np.uint8)
