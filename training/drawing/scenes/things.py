"""Things that stand in a scene, and `THINGS`, all kinds of them.

This module has the lifeless ones: vessels, boxes, machines, houses, vehicles, lumps. `creatures` and `plants` have the
others. Each function takes a stage, the middle of the foot in pixels, and the height in pixels. Knows no backdrops.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.drawing.chance import Rng, between, happens, integer, log_between, pick
from training.drawing.glyphs import any_face
from training.drawing.leaves import Point, outline, placed
from training.drawing.palette import Colour, mixed, near, scaled
from training.drawing.scenes.creatures import animal, person
from training.drawing.scenes.plants import fruit, plant, reeds, tree
from training.drawing.scenes.stage import Stage, darker, shaded_ball
from training.drawing.words import Vocabulary

Thing = Callable[[Stage, Point, float], None]


def vessel(stage: Stage, foot: Point, high: float) -> None:
    """Draws what a lathe or a potter makes: bottles, cups, lamps, cans, chess men. Some have bands or a highlight."""
    rng = stage.rng
    h = max(6, round(high))
    radii = _profile(rng, 40, 0.08, 0.42, integer(rng, 2, 7))
    scale = h * log_between(rng, 0.5, 1.4)
    points = [(r * scale, at / 39 * h) for at, r in enumerate(radii)]
    w = max(4, math.ceil(max(x for x, _ in points)) * 2 + 2)
    mask = Image.new("L", (w, h))
    silhouette = [(w / 2 + x, y) for x, y in points] + [(w / 2 - x, y) for x, y in reversed(points)]
    ImageDraw.Draw(mask).polygon(silhouette, fill=255)
    left, top, tint = round(foot[0] - w / 2), round(foot[1] - h), stage.colour()
    stage.shadow(left, left + w, foot[1])
    stage.put(mask, left, top, tint, rough=between(rng, 0, 0.5), relief=1.3)
    for _ in range(integer(rng, 0, 3)):
        band = Image.new("L", (w, h))
        y = between(rng, 0, h * 0.8)
        thick = max(2, round(h * log_between(rng, 0.02, 0.4)))
        part = (0, round(y), w, min(h, round(y) + thick))
        band.paste(mask.crop(part), part[:2])
        stage.put(band, left, top, stage.colour(), rough=between(rng, 0, 0.3), relief=0.8)
    if happens(rng, 0.4):
        streak = Image.new("L", (max(2, w // 14), max(2, round(h * between(rng, 0.15, 0.45)))), integer(rng, 60, 190))
        soft = Image.new("L", (streak.width * 2, streak.height + streak.width))
        soft.paste(streak, (streak.width // 2, streak.width // 2))
        soft = soft.filter(ImageFilter.BoxBlur(streak.width / 3))
        stage.image.paste((250, 250, 248), (left + round(w * between(rng, 0.3, 0.45)), round(top + h * 0.35)), soft)


def _profile(rng: Rng, count: int, low: float, high: float, knots: int) -> list[float]:
    """Returns `count` values along a line through `knots` random points from `low` to `high`, with smoothed bends."""
    values = np.interp(np.linspace(0, knots - 1, count), np.arange(knots), rng.uniform(low, high, knots))
    for _ in range(2):
        values[1:-1] = (values[:-2] + values[1:-1] + values[2:]) / 3
    return [float(value) for value in values]


def crate(stage: Stage, foot: Point, high: float) -> None:
    """Draws a box in perspective: cartons, books, furniture, with panels or words on its front."""
    rng = stage.rng
    wide, deep = high * log_between(rng, 0.4, 2.5), high * between(rng, 0.1, 0.5)
    side = pick(rng, (-1, 1))
    left, right, top, bottom = foot[0] - wide / 2, foot[0] + wide / 2, foot[1] - high * 0.85, foot[1]
    rise = high * between(rng, 0.05, 0.15)
    tint, rough = stage.colour(), between(rng, 0, 0.6)
    near_edge = right if side > 0 else left
    far_edge = near_edge + side * deep
    stage.shadow(left - deep / 2, right + deep / 2, bottom)
    flank = [(near_edge, top), (far_edge, top - rise), (far_edge, bottom - rise), (near_edge, bottom)]
    stage.polygon(flank, scaled(tint, between(rng, 0.35, 0.8)), rough=rough)
    lid = [(left, top), (left + side * deep, top - rise), (right + side * deep, top - rise), (right, top)]
    stage.polygon(lid, scaled(tint, between(rng, 1.0, 1.4)), rough=rough)
    stage.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], tint, rough=rough, relief=0.15)
    _front(stage, (left, top, right, bottom), tint)


def _front(stage: Stage, box: tuple[float, float, float, float], tint: Colour) -> None:
    """Draws a grid of panels, windows, buttons or dials in the box, and a word."""
    rng, (left, top, right, bottom) = stage.rng, box
    pen, wide, high = ImageDraw.Draw(stage.image), right - left, bottom - top
    if wide < 12 or high < 12:
        return
    columns, rows = integer(rng, 1, 4), integer(rng, 1, 4)
    dark, bright = darker(tint, 0.55), stage.colour()
    for at in range(columns * rows if happens(rng, 0.6) else 0):
        x, y = left + wide * (at % columns + 0.12) / columns, top + high * (at // columns + 0.12) / rows
        u, v = x + wide * 0.76 / columns, y + high * 0.76 / rows
        pen.rectangle((x, y, u, v), fill=pick(rng, (dark, bright, None)), outline=dark)
        if happens(rng, 0.3):
            radius = min(u - x, v - y) * 0.3
            pen.ellipse(
                ((x + u) / 2 - radius, (y + v) / 2 - radius, (x + u) / 2 + radius, (y + v) / 2 + radius), fill=dark
            )
    if happens(rng, 0.35) and wide > 40:
        face = any_face(rng, max(7, round(min(high * 0.25, wide / 6))), family="sans", bold=True)
        word = Vocabulary(rng, 2).name(1).upper()[:9]
        mask = np.ascontiguousarray(face.line(word)[:, : max(1, round(wide) - 4)])
        colour = pick(rng, ((245, 245, 240), (20, 20, 30), bright))
        stage.image.paste(colour, (round(left + 4), round(top + high * between(rng, 0.1, 0.6))), Image.fromarray(mask))


def machine(stage: Stage, foot: Point, high: float) -> None:
    """Draws rounded parts of plastic or metal: appliances, cameras, tools, toys."""
    rng = stage.rng
    wide = high * log_between(rng, 0.5, 2.0)
    left, top = foot[0] - wide / 2, foot[1] - high
    stage.shadow(left, left + wide, foot[1])
    tint = stage.colour()
    for index in range(integer(rng, 2, 8)):
        w, h = wide * between(rng, 0.1, 0.9), high * between(rng, 0.1, 0.8)
        if index == 0:
            w, h = wide, high * 0.9
        mask = Image.new("L", (max(4, round(w)), max(4, round(h))))
        box = (0, 0, mask.width - 1, mask.height - 1)
        if index and happens(rng, 0.4):
            ImageDraw.Draw(mask).ellipse(box, fill=255)
        else:
            ImageDraw.Draw(mask).rounded_rectangle(box, min(w, h) * between(rng, 0.02, 0.45), fill=255)
        x, y = left + between(rng, 0, 1) * (wide - w), top + between(rng, 0.1, 1) * (high - h)
        colour = near(rng, tint, 0.2) if happens(rng, 0.5) else stage.colour()
        stage.put(mask, round(x), round(y), colour, rough=between(rng, 0, 0.2), relief=between(rng, 0.2, 1))


def house(stage: Stage, foot: Point, high: float) -> None:
    """Draws a front with rows of windows, and perhaps a door and a roof: a house or a tower."""
    rng = stage.rng
    wide = high * log_between(rng, 0.35, 1.8)
    left, right, top, bottom = foot[0] - wide / 2, foot[0] + wide / 2, foot[1] - high * 0.8, foot[1]
    wall, roof, glass = stage.colour(), stage.colour(), mixed(stage.colour(), (40, 50, 70), 0.6)
    stage.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], wall, rough=between(rng, 0.1, 0.6))
    if happens(rng, 0.6):
        peak = left + wide * between(rng, 0.3, 0.7)
        stage.polygon([(left - 3, top), (peak, foot[1] - high), (right + 3, top)], roof, rough=0.4)
    columns, rows = integer(rng, 1, 7), min(9, integer(rng, 1, round(7 * high / wide) + 1))
    pen = ImageDraw.Draw(stage.image)
    tall, broad = between(rng, 0.4, 0.75), between(rng, 0.3, 0.75)
    frame = mixed(wall, (250, 250, 250), 0.7) if happens(rng, 0.6) else darker(wall, 0.5)
    for at in range(columns * rows):
        x, y = left + wide * (at % columns + 0.5) / columns, top + (bottom - top) * (at // columns + 0.5) / rows
        dx, dy = wide / columns * broad / 2, (bottom - top) / rows * tall / 2
        colour = near(rng, glass, 0.4) if happens(rng, 0.9) else (250, 225, 150)
        pen.rectangle((x - dx, y - dy, x + dx, y + dy), fill=colour, outline=frame)
        if dx > 6:
            pen.line((x, y - dy, x, y + dy), fill=frame)
    if happens(rng, 0.4):
        x = left + wide * between(rng, 0.1, 0.7)
        lintel, other = bottom - high * 0.2, x + wide * 0.2
        stage.polygon([(x, bottom), (x, lintel), (other, lintel), (other, bottom)], roof, relief=0.2)


def vehicle(stage: Stage, foot: Point, high: float) -> None:
    """Draws a body with windows on wheels."""
    rng = stage.rng
    wide = high * between(rng, 1.5, 3)
    left, top, wheel = foot[0] - wide / 2, foot[1] - high, high * between(rng, 0.14, 0.24)
    tint, w, h = stage.colour(), max(8, round(wide)), max(8, round(high - wheel))
    mask = Image.new("L", (w, h))
    pen = ImageDraw.Draw(mask)
    waist, front, back = h * between(rng, 0.3, 0.55), w * between(rng, 0.0, 0.3), w * between(rng, 0.65, 1)
    pen.rounded_rectangle((0, waist, w - 1, h - 1), h * between(rng, 0.03, 0.2), fill=255)
    pen.polygon([(front, waist + 2), (front + w * 0.1, 0), (back - w * 0.1, 0), (back, waist + 2)], fill=255)
    stage.shadow(left, left + wide, foot[1])
    stage.put(mask, round(left), round(top), tint, rough=0.1)
    panes, glass = integer(rng, 1, 4), (35, 45, 60)
    for pane in range(panes):
        x = left + front + w * 0.1 + (back - front - w * 0.2) * pane / panes
        u = x + (back - front - w * 0.25) / panes
        stage.polygon(
            [(x, top + waist * 0.95), (x + 2, top + h * 0.06), (u - 2, top + h * 0.06), (u, top + waist * 0.95)], glass
        )
    for share in (between(rng, 0.12, 0.25), between(rng, 0.75, 0.88)):
        shaded_ball(stage, (left + wide * share, foot[1] - wheel), wheel, (25, 25, 27))
        shaded_ball(stage, (left + wide * share, foot[1] - wheel), wheel * 0.55, (150, 150, 155))


def lump(stage: Stage, foot: Point, high: float) -> None:
    """Draws blobs, alone or in a heap: stones, bags, cushions, bread."""
    rng = stage.rng
    tint, rough = stage.colour(), between(rng, 0.1, 0.9)
    shape = pick(rng, ("blob", "polygon", "ellipse", "blob"))
    stage.shadow(foot[0] - high / 2, foot[0] + high / 2, foot[1])
    for _ in range(pick(rng, (1, 1, 3, 6))):
        radius = high * between(rng, 0.3, 0.6)
        spot = (foot[0] + between(rng, -0.5, 0.5) * high, foot[1] - radius * between(rng, 0.5, 1.1))
        stage.polygon(placed(outline(rng, shape), spot, radius), near(rng, tint, 0.3), rough=rough, relief=1.2)


THINGS: tuple[Thing, ...] = (animal, person, fruit, vessel, crate, machine, plant, tree, house, vehicle, reeds, lump)
