"""Things that stand in a scene: animals, people, fruit, vessels, boxes, machines, plants, trees, houses, vehicles.

Each is drawn by a function of a stage, the middle of its foot in pixels, and its height in pixels. Knows no backdrops.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from model.tiny.drawing.chance import Rng, between, happens, log_between, pick, whole
from model.tiny.drawing.glyphs import any_face
from model.tiny.drawing.leaves import outline, placed
from model.tiny.drawing.palette import Colour, hsv, mixed, near, scaled
from model.tiny.drawing.stage import Stage, darker, shaded_ball
from model.tiny.drawing.words import Vocabulary

Point = tuple[float, float]
Thing = Callable[[Stage, Point, float], None]


def _spline(rng: Rng, count: int, low: float, high: float, knots: int) -> list[float]:
    """A smooth run of `count` values about `low` to `high`."""
    values = np.interp(np.linspace(0, knots - 1, count), np.arange(knots), rng.uniform(low, high, knots))
    for _ in range(2):
        values[1:-1] = (values[:-2] + values[1:-1] + values[2:]) / 3
    return [float(value) for value in values]


def animal(stage: Stage, foot: Point, high: float) -> None:
    """A body, a head, perhaps legs, ears, a tail, a beak or fins, and markings; looking left or right."""
    rng = stage.rng
    wide = high * log_between(rng, 0.8, 2.2)
    mask = Image.new("L", (max(8, round(wide)), max(8, round(high))))
    pen, (w, h) = ImageDraw.Draw(mask), mask.size
    legs = whole(rng, 0, 4)
    under = h * (between(rng, 0.55, 0.8) if legs else 1.0)
    head = h * between(rng, 0.16, 0.32)
    head_x, head_y = w - head * 1.1, head * between(rng, 1.0, 1.6)
    body = (w * 0.08, h * between(rng, 0.1, 0.35), w - head * 0.9, under)
    pen.ellipse(body, fill=255)
    pen.line((w * 0.7, (body[1] + under) / 2, head_x, head_y), fill=255, width=max(2, round(head * 1.2)))
    pen.ellipse((head_x - head, head_y - head * 0.85, head_x + head, head_y + head * 0.85), fill=255)
    thick = max(2, round(h * between(rng, 0.05, 0.14)))
    for leg in range(legs):
        x = w * (0.2 + 0.5 * leg / max(1, legs - 1))
        pen.line((x, (body[1] + under) / 2, x + between(rng, -0.06, 0.06) * w, h), fill=255, width=thick)
    if happens(rng, 0.7):
        tail = [
            (w * 0.15, (body[1] + under) / 2),
            (w * 0.04, h * between(rng, 0.1, 0.6)),
            (0, h * between(rng, 0, 0.9)),
        ]
        pen.line(tail, fill=255, width=max(2, round(thick * between(rng, 0.4, 1.4))), joint="curve")
    for _ in range(pick(rng, (0, 1, 2))):
        ear_x = head_x + between(rng, -0.6, 0.4) * head
        tip = (ear_x + between(rng, -0.5, 0.5) * head, head_y - head * between(rng, 1.1, 2.2))
        pen.polygon(
            [(ear_x - head * 0.4, head_y - head * 0.4), tip, (ear_x + head * 0.4, head_y - head * 0.4)], fill=255
        )
    if happens(rng, 0.4):
        pen.polygon([(head_x, head_y - head * 0.3), (w, head_y + head * 0.2), (head_x, head_y + head * 0.5)], fill=255)
    _coat(stage, mask, (round(foot[0] - w / 2), round(foot[1] - h)), (head_x, head_y, head))


def _coat(stage: Stage, mask: Image.Image, at: tuple[int, int], head: tuple[float, float, float]) -> None:
    """Fur or feathers with patches, an eye, and a leftward turn for every other animal."""
    rng = stage.rng
    turned = happens(rng, 0.5)
    mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turned else mask
    x, y, radius = (mask.width - head[0] if turned else head[0]), head[1], head[2]
    coat, rough = stage.colour(), between(rng, 0.1, 0.7)
    stage.shadow(at[0], at[0] + mask.width, at[1] + mask.height)
    stage.put(mask, *at, coat, rough=rough)
    if happens(rng, 0.6):
        marks = Image.new("L", mask.size)
        pen = ImageDraw.Draw(marks)
        other = mixed(coat, pick(rng, ((20, 16, 14), (240, 235, 225), stage.colour())), 0.8)
        shape, count = pick(rng, ("blob", "bar", "disk")), whole(rng, 1, 14)
        for _ in range(count):
            middle = (between(rng, 0, mask.width), between(rng, 0, mask.height))
            pen.polygon(
                placed(outline(rng, shape), middle, mask.height * between(rng, 0.3, 1) / math.sqrt(count) / 2), 255
            )
        marks.paste(0, (0, 0), mask.point([255 - value for value in range(256)]))
        stage.put(marks, *at, other, rough=rough, round_=0.3)
    eye = radius * between(rng, 0.07, 0.2)
    eye_x, eye_y = at[0] + x + radius * 0.2 * (-1 if turned else 1), at[1] + y - radius * 0.2
    pen = ImageDraw.Draw(stage.image)
    if happens(rng, 0.4):
        pen.ellipse((eye_x - eye * 1.5, eye_y - eye * 1.5, eye_x + eye * 1.5, eye_y + eye * 1.5), fill=stage.colour())
    pen.ellipse((eye_x - eye, eye_y - eye, eye_x + eye, eye_y + eye), fill=(12, 10, 10))
    pen.ellipse((eye_x, eye_y - eye * 0.6, eye_x + eye * 0.5, eye_y - eye * 0.1), fill=(240, 240, 240))


def person(stage: Stage, foot: Point, high: float) -> None:
    """Of any skin and clothes: head to foot, or cut off by the picture's edge."""
    rng = stage.rng
    skin = hsv(between(rng, 0.03, 0.09), between(rng, 0.25, 0.6), between(rng, 0.3, 0.95))
    shirt, trousers, hair = stage.colour(), stage.colour(), hsv(0.08, between(rng, 0, 0.6), between(rng, 0.05, 0.6))
    x, top = foot[0], foot[1] - high
    head = high * between(rng, 0.065, 0.085)
    shoulder, hip = high * between(rng, 0.1, 0.15), high * between(rng, 0.07, 0.12)
    neck, waist = top + head * 2.2, top + high * between(rng, 0.48, 0.56)
    stage.shadow(x - hip, x + hip, foot[1])
    for side in (-1, 1):
        step = between(rng, 0, 0.09) * high
        leg = [
            (x, waist - 4),
            (x + side * hip, waist - 4),
            (x + side * (hip + step), foot[1]),
            (x + side * step, foot[1]),
        ]
        stage.polygon(leg, trousers, round_=1)
    left_half = [(shoulder, neck + head * 0.3), (head * 0.4, neck - head * 0.3)]
    torso = [(x - dx, y) for dx, y in left_half] + [(x + dx, y) for dx, y in reversed(left_half)]
    torso += [(x + hip, waist), (x - hip, waist)]
    stage.polygon(torso, shirt, rough=between(rng, 0, 0.6), round_=1)
    for side in (-1, 1):
        _arm(stage, (x + side * shoulder, neck + head * 0.5), high, side, (shirt, skin))
    stage.polygon(
        placed(outline(rng, "disk"), (x, top + head * 0.9), head * between(rng, 1.05, 1.35)), hair, round_=0.7
    )
    face = [(x + head * 0.82 * math.cos(a / 3), top + head * 1.2 + head * 1.05 * math.sin(a / 3)) for a in range(19)]
    stage.polygon(face, skin, rough=0.05, round_=0.8)
    if head > 8:
        pen = ImageDraw.Draw(stage.image)
        for eye_x in (x - head * 0.35, x + head * 0.35):
            pen.ellipse((eye_x - 2, top + head * 1.15 - 1, eye_x + 2, top + head * 1.15 + 2), (30, 20, 18))
        pen.line(
            (x - head * 0.25, top + head * 1.7, x + head * 0.25, top + head * 1.7),
            (130, 60, 60),
            max(1, round(head / 9)),
        )


def _arm(stage: Stage, at: Point, high: float, side: int, colours: tuple[Colour, Colour]) -> None:
    rng = stage.rng
    thick, angle = high * 0.028, between(rng, -0.2, 1.3)
    elbow = (at[0] + side * math.sin(angle) * high * 0.17, at[1] + math.cos(angle) * high * 0.17)
    angle = between(rng, -1.5, 2.0)
    hand = (elbow[0] + side * math.sin(angle) * high * 0.15, elbow[1] + math.cos(angle) * high * 0.15)
    for (x, y), (u, v), colour in ((at, elbow, colours[0]), (elbow, hand, colours[whole(rng, 0, 1)])):
        far = math.hypot(u - x, v - y) + 1e-6
        dx, dy = (v - y) / far * thick, (x - u) / far * thick
        stage.polygon([(x + dx, y + dy), (u + dx, v + dy), (u - dx, v - dy), (x - dx, y - dy)], colour, round_=1)


def fruit(stage: Stage, foot: Point, high: float) -> None:
    """Balls alone or in a heap: fruit, eggs, pearls, toys."""
    rng = stage.rng
    count = pick(rng, (1, 2, 5, 9), (4, 2, 2, 1))
    radius = high / 2 / (1 if count == 1 else math.sqrt(count) * 0.8)
    tint = stage.colour()
    stage.shadow(foot[0] - high / 2, foot[0] + high / 2, foot[1])
    for index in range(count):
        x = foot[0] + (between(rng, -1, 1) * (high / 2 - radius) * 1.4 if count > 1 else 0)
        y = foot[1] - radius - (high - 2 * radius) * (count - 1 - index) / count * between(rng, 0, 1)
        shaded_ball(stage, (x, y), radius * between(rng, 0.8, 1), near(rng, tint, 0.25))


def vessel(stage: Stage, foot: Point, high: float) -> None:
    """What a lathe or a potter makes: bottles, cups, lamps, cans, chess men; with a band or a label."""
    rng = stage.rng
    h = max(6, round(high))
    radii = _spline(rng, 40, 0.08, 0.42, whole(rng, 2, 7))
    scale = h * log_between(rng, 0.5, 1.4)
    points = [(r * scale, at / 39 * h) for at, r in enumerate(radii)]
    w = max(4, math.ceil(max(x for x, _ in points)) * 2 + 2)
    mask = Image.new("L", (w, h))
    silhouette = [(w / 2 + x, y) for x, y in points] + [(w / 2 - x, y) for x, y in reversed(points)]
    ImageDraw.Draw(mask).polygon(silhouette, fill=255)
    left, top, tint = round(foot[0] - w / 2), round(foot[1] - h), stage.colour()
    stage.shadow(left, left + w, foot[1])
    stage.put(mask, left, top, tint, rough=between(rng, 0, 0.5), round_=1.3)
    for _ in range(whole(rng, 0, 3)):
        band = Image.new("L", (w, h))
        y = between(rng, 0, h * 0.8)
        thick = max(2, round(h * log_between(rng, 0.02, 0.4)))
        part = (0, round(y), w, min(h, round(y) + thick))
        band.paste(mask.crop(part), part[:2])
        stage.put(band, left, top, stage.colour(), rough=between(rng, 0, 0.3), round_=0.8)
    if happens(rng, 0.4):
        streak = Image.new("L", (max(2, w // 14), max(2, round(h * between(rng, 0.15, 0.45)))), whole(rng, 60, 190))
        soft = Image.new("L", (streak.width * 2, streak.height + streak.width))
        soft.paste(streak, (streak.width // 2, streak.width // 2))
        soft = soft.filter(ImageFilter.BoxBlur(streak.width / 3))
        stage.image.paste((250, 250, 248), (left + round(w * between(rng, 0.3, 0.45)), round(top + h * 0.35)), soft)


def crate(stage: Stage, foot: Point, high: float) -> None:
    """A box in perspective: cartons, books, furniture, with panels or words on its front."""
    rng = stage.rng
    wide, deep = high * log_between(rng, 0.4, 2.5), high * between(rng, 0.1, 0.5)
    side = pick(rng, (-1, 1))
    left, right, top, bottom = foot[0] - wide / 2, foot[0] + wide / 2, foot[1] - high * 0.85, foot[1]
    rise = high * between(rng, 0.05, 0.15)
    tint, rough = stage.colour(), between(rng, 0, 0.6)
    edge = right if side > 0 else left
    stage.shadow(left - deep / 2, right + deep / 2, bottom)
    stage.polygon([(edge, top), (edge + side * deep, top - rise), (edge + side * deep, bottom - rise), (edge, bottom)],
                  scaled(tint, between(rng, 0.35, 0.8)), rough=rough)  # fmt: skip
    stage.polygon([(left, top), (left + side * deep, top - rise), (right + side * deep, top - rise), (right, top)],
                  scaled(tint, between(rng, 1.0, 1.4)), rough=rough)  # fmt: skip
    stage.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], tint, rough=rough, round_=0.15)
    _front(stage, (left, top, right, bottom), tint)


def _front(stage: Stage, box: tuple[float, float, float, float], tint: Colour) -> None:
    """Panels, windows, buttons, dials and words, each in a box of its own."""
    rng, (left, top, right, bottom) = stage.rng, box
    pen, wide, high = ImageDraw.Draw(stage.image), right - left, bottom - top
    if wide < 12 or high < 12:
        return
    columns, rows = whole(rng, 1, 4), whole(rng, 1, 4)
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
    """Rounded plastic or metal in parts: appliances, cameras, tools, toys."""
    rng = stage.rng
    wide = high * log_between(rng, 0.5, 2.0)
    left, top = foot[0] - wide / 2, foot[1] - high
    stage.shadow(left, left + wide, foot[1])
    tint = stage.colour()
    for index in range(whole(rng, 2, 8)):
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
        stage.put(mask, round(x), round(y), colour, rough=between(rng, 0, 0.2), round_=between(rng, 0.2, 1))


def plant(stage: Stage, foot: Point, high: float) -> None:
    """Stems with leaves, and flowers on some."""
    rng = stage.rng
    green, bloom = hsv(between(rng, 0.18, 0.42), between(rng, 0.3, 0.8), between(rng, 0.25, 0.7)), stage.colour()
    shape, flowering, pen = (
        pick(rng, ("leaf", "leaf", "ellipse", "blob")),
        happens(rng, 0.5),
        ImageDraw.Draw(stage.image),
    )
    for _ in range(whole(rng, 1, 3)):
        lean, tall = between(rng, -0.5, 0.5) * high, high * between(rng, 0.6, 1)
        stem = [(foot[0] + lean * (t / 8) ** 2, foot[1] - tall * t / 8) for t in range(9)]
        pen.line(stem, fill=darker(green, 0.3), width=max(1, round(high * 0.015)), joint="curve")
        for x, y in stem[whole(rng, 1, 4) :]:
            for _ in range(whole(rng, 0, 2)):
                spot = (x + between(rng, -0.12, 0.12) * high, y + between(rng, -0.06, 0.06) * high)
                size = high * between(rng, 0.05, 0.15)
                stage.polygon(placed(outline(rng, shape), spot, size), near(rng, green, 0.3), round_=0.5)
        if flowering:
            _flower(stage, stem[-1], high * between(rng, 0.06, 0.2), bloom)


def _flower(stage: Stage, at: Point, radius: float, tint: Colour) -> None:
    rng = stage.rng
    petals, turn = whole(rng, 4, 11), between(rng, 0, 6)
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
        stage.polygon(points, colour, rough=0.1, round_=0.7)
    shaded_ball(
        stage, at, radius * between(rng, 0.15, 0.35), hsv(between(rng, 0.05, 0.16), 0.8, between(rng, 0.3, 0.9))
    )


def tree(stage: Stage, foot: Point, high: float) -> None:
    """A trunk and a crown of clumps, light on the lit side."""
    rng = stage.rng
    bark = hsv(between(rng, 0.04, 0.1), between(rng, 0.1, 0.5), between(rng, 0.15, 0.6))
    hue = between(rng, 0.2, 0.4) if happens(rng, 0.75) else between(rng, 0, 0.15)
    green = hsv(hue, between(rng, 0.3, 0.8), between(rng, 0.2, 0.65))
    thick, crown = high * between(rng, 0.02, 0.06), high * between(rng, 0.2, 0.4)
    x, y = foot
    top = y - high * 0.8
    trunk = [(x - thick, y), (x - thick * 0.5, top), (x + thick * 0.5, top), (x + thick, y)]
    stage.polygon(trunk, bark, rough=0.5, round_=1)
    pointed, count = happens(rng, 0.3), whole(rng, 8, 18)
    for index in range(count):
        up = index / count
        spread = crown * (1.1 - up if pointed else math.sin(0.4 + up * 2.5))
        spot = (x + between(rng, -1, 1) * spread, y - high * (0.3 + 0.65 * up))
        shape = pick(rng, ("blob", "star", "blob"))
        points = placed(outline(rng, shape), spot, crown * between(rng, 0.15, 0.5))
        lit = 0.75 + 0.5 * up + 0.2 * math.cos(stage.light) * (spot[0] - x) / crown
        stage.polygon(points, scaled(near(rng, green, 0.2), lit), rough=0.45, round_=0.6)


def house(stage: Stage, foot: Point, high: float) -> None:
    """A front with rows of windows, a door and a roof, or a tower."""
    rng = stage.rng
    wide = high * log_between(rng, 0.35, 1.8)
    left, right, top, bottom = foot[0] - wide / 2, foot[0] + wide / 2, foot[1] - high * 0.8, foot[1]
    wall, roof, glass = stage.colour(), stage.colour(), mixed(stage.colour(), (40, 50, 70), 0.6)
    stage.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], wall, rough=between(rng, 0.1, 0.6))
    if happens(rng, 0.6):
        peak = left + wide * between(rng, 0.3, 0.7)
        stage.polygon([(left - 3, top), (peak, foot[1] - high), (right + 3, top)], roof, rough=0.4)
    columns, rows = whole(rng, 1, 7), max(1, whole(rng, 1, round(7 * high / wide) + 1))
    rows = min(rows, 9)
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
        stage.polygon([(x, bottom), (x, lintel), (other, lintel), (other, bottom)], roof, round_=0.2)


def vehicle(stage: Stage, foot: Point, high: float) -> None:
    """A body with windows on wheels."""
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
    panes, glass = whole(rng, 1, 4), (35, 45, 60)
    for pane in range(panes):
        x = left + front + w * 0.1 + (back - front - w * 0.2) * pane / panes
        u = x + (back - front - w * 0.25) / panes
        stage.polygon(
            [(x, top + waist * 0.95), (x + 2, top + h * 0.06), (u - 2, top + h * 0.06), (u, top + waist * 0.95)], glass
        )
    for share in (between(rng, 0.12, 0.25), between(rng, 0.75, 0.88)):
        shaded_ball(stage, (left + wide * share, foot[1] - wheel), wheel, (25, 25, 27))
        shaded_ball(stage, (left + wide * share, foot[1] - wheel), wheel * 0.55, (150, 150, 155))


def reeds(stage: Stage, foot: Point, high: float) -> None:
    """A tuft of blades: grass, reeds, hair, twigs."""
    rng, pen = stage.rng, ImageDraw.Draw(stage.image)
    green = hsv(between(rng, 0.1, 0.38), between(rng, 0.2, 0.8), between(rng, 0.2, 0.8))
    for _ in range(whole(rng, 20, 90)):
        x, lean, tall = foot[0] + rng.normal() * high * 0.3, between(rng, -0.3, 0.3) * high, high * between(rng, 0.3, 1)
        points = [(x + lean * (t / 5) ** 2, foot[1] - tall * t / 5) for t in range(6)]
        pen.line(points, fill=near(rng, green, 0.5), width=max(1, round(high * between(rng, 0.003, 0.02))))


def lump(stage: Stage, foot: Point, high: float) -> None:
    """Stones, bags, cushions, bread: blobs alone or in a heap."""
    rng = stage.rng
    tint, rough = stage.colour(), between(rng, 0.1, 0.9)
    shape = pick(rng, ("blob", "polygon", "ellipse", "blob"))
    stage.shadow(foot[0] - high / 2, foot[0] + high / 2, foot[1])
    for _ in range(pick(rng, (1, 1, 3, 6))):
        radius = high * between(rng, 0.3, 0.6)
        spot = (foot[0] + between(rng, -0.5, 0.5) * high, foot[1] - radius * between(rng, 0.5, 1.1))
        stage.polygon(placed(outline(rng, shape), spot, radius), near(rng, tint, 0.3), rough=rough, round_=1.2)


THINGS: tuple[Thing, ...] = (animal, person, fruit, vessel, crate, machine, plant, tree, house, vehicle, reeds, lump)
