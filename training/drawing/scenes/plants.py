"""Plants of a scene, with flowers, trees, reeds and fruit.

Each function takes a stage, the middle of the foot in pixels, and the height in pixels. Knows no backdrops and no other
things. Leaves on the ground are in `leaves`, hedges in `backdrop`.
"""

import math

from PIL import ImageDraw

from training.drawing.chance import between, happens, integer, pick
from training.drawing.leaves import Point, outline, placed
from training.drawing.palette import Colour, hsv, near, scaled
from training.drawing.scenes.stage import Stage, darker, shaded_ball


def plant(stage: Stage, foot: Point, high: float) -> None:
    """Draws stems with leaves, half of the time with flowers."""
    rng = stage.rng
    green, bloom = hsv(between(rng, 0.18, 0.42), between(rng, 0.3, 0.8), between(rng, 0.25, 0.7)), stage.colour()
    shape, flowering, pen = (
        pick(rng, ("leaf", "leaf", "ellipse", "blob")),
        happens(rng, 0.5),
        ImageDraw.Draw(stage.image),
    )
    for _ in range(integer(rng, 1, 3)):
        lean, tall = between(rng, -0.5, 0.5) * high, high * between(rng, 0.6, 1)
        stem = [(foot[0] + lean * (t / 8) ** 2, foot[1] - tall * t / 8) for t in range(9)]
        pen.line(stem, fill=darker(green, 0.3), width=max(1, round(high * 0.015)), joint="curve")
        for x, y in stem[integer(rng, 1, 4) :]:
            for _ in range(integer(rng, 0, 2)):
                spot = (x + between(rng, -0.12, 0.12) * high, y + between(rng, -0.06, 0.06) * high)
                size = high * between(rng, 0.05, 0.15)
                stage.polygon(placed(outline(rng, shape), spot, size), near(rng, green, 0.3), relief=0.5)
        if flowering:
            _flower(stage, stem[-1], high * between(rng, 0.06, 0.2), bloom)


def _flower(stage: Stage, at: Point, radius: float, tint: Colour) -> None:
    rng = stage.rng
    petals, turn = integer(rng, 4, 11), between(rng, 0, 6)
    colour = near(rng, tint, 0.15)
    for petal in range(petals):
        angle = turn + petal * 2 * math.pi / petals
        cos, sin = math.cos(angle), math.sin(angle)
        points = []
        for step in range(10):
            a = step * math.pi / 5
            along, across = 0.55 + 0.45 * math.cos(a), 1.6 / petals * math.sin(a)
            points.append(
                (at[0] + radius * (along * cos - across * sin), at[1] + radius * (along * sin + across * cos))
            )
        stage.polygon(points, colour, rough=0.1, relief=0.7)
    shaded_ball(
        stage, at, radius * between(rng, 0.15, 0.35), hsv(between(rng, 0.05, 0.16), 0.8, between(rng, 0.3, 0.9))
    )


def tree(stage: Stage, foot: Point, high: float) -> None:
    """Draws a trunk and a crown of clumps, lighter on the lit side."""
    rng = stage.rng
    bark = hsv(between(rng, 0.04, 0.1), between(rng, 0.1, 0.5), between(rng, 0.15, 0.6))
    hue = between(rng, 0.2, 0.4) if happens(rng, 0.75) else between(rng, 0, 0.15)
    green = hsv(hue, between(rng, 0.3, 0.8), between(rng, 0.2, 0.65))
    thick, crown = high * between(rng, 0.02, 0.06), high * between(rng, 0.2, 0.4)
    x, y = foot
    top = y - high * 0.8
    trunk = [(x - thick, y), (x - thick * 0.5, top), (x + thick * 0.5, top), (x + thick, y)]
    stage.polygon(trunk, bark, rough=0.5, relief=1)
    pointed, count = happens(rng, 0.3), integer(rng, 8, 18)
    for index in range(count):
        up = index / count
        spread = crown * (1.1 - up if pointed else math.sin(0.4 + up * 2.5))
        spot = (x + between(rng, -1, 1) * spread, y - high * (0.3 + 0.65 * up))
        shape = pick(rng, ("blob", "star", "blob"))
        points = placed(outline(rng, shape), spot, crown * between(rng, 0.15, 0.5))
        lit = 0.75 + 0.5 * up + 0.2 * math.cos(stage.light) * (spot[0] - x) / crown
        stage.polygon(points, scaled(near(rng, green, 0.2), lit), rough=0.45, relief=0.6)


def reeds(stage: Stage, foot: Point, high: float) -> None:
    """Draws a tuft of blades: grass, reeds, hair, twigs."""
    rng, pen = stage.rng, ImageDraw.Draw(stage.image)
    green = hsv(between(rng, 0.1, 0.38), between(rng, 0.2, 0.8), between(rng, 0.2, 0.8))
    for _ in range(integer(rng, 20, 90)):
        x, lean, tall = foot[0] + rng.normal() * high * 0.3, between(rng, -0.3, 0.3) * high, high * between(rng, 0.3, 1)
        points = [(x + lean * (t / 5) ** 2, foot[1] - tall * t / 5) for t in range(6)]
        pen.line(points, fill=near(rng, green, 0.5), width=max(1, round(high * between(rng, 0.003, 0.02))))


def fruit(stage: Stage, foot: Point, high: float) -> None:
    """Draws balls, alone or in a heap: fruit, eggs, pearls, toys."""
    rng = stage.rng
    count = pick(rng, (1, 2, 5, 9), (4, 2, 2, 1))
    radius = high / 2 / (1 if count == 1 else math.sqrt(count) * 0.8)
    tint = stage.colour()
    stage.shadow(foot[0] - high / 2, foot[0] + high / 2, foot[1])
    for index in range(count):
        x = foot[0] + (between(rng, -1, 1) * (high / 2 - radius) * 1.4 if count > 1 else 0)
        y = foot[1] - radius - (high - 2 * radius) * (count - 1 - index) / count * between(rng, 0, 1)
        shaded_ball(stage, (x, y), radius * between(rng, 0.8, 1), near(rng, tint, 0.25))
