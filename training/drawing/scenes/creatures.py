"""Animals and people of a scene.

Each function takes a stage, the middle of the foot in pixels, and the height in pixels. Knows no backdrops and no other
things.
"""

import math

from PIL import Image, ImageDraw

from training.drawing.chance import between, happens, integer, log_between, pick
from training.drawing.leaves import Point, outline, placed
from training.drawing.palette import Colour, hsv, mixed
from training.drawing.scenes.stage import Stage


def animal(stage: Stage, foot: Point, high: float) -> None:
    """Draws a body and a head, perhaps legs, ears, a tail, a beak or fins, and markings. It looks left or right."""
    rng = stage.rng
    wide = high * log_between(rng, 0.8, 2.2)
    mask = Image.new("L", (max(8, round(wide)), max(8, round(high))))
    pen, (w, h) = ImageDraw.Draw(mask), mask.size
    legs = integer(rng, 0, 4)
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
    """Paints fur or feathers, perhaps with patches, and an eye. Half of the animals are turned to look left."""
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
        shape, count = pick(rng, ("blob", "bar", "disk")), integer(rng, 1, 14)
        for _ in range(count):
            middle = (between(rng, 0, mask.width), between(rng, 0, mask.height))
            pen.polygon(
                placed(outline(rng, shape), middle, mask.height * between(rng, 0.3, 1) / math.sqrt(count) / 2), 255
            )
        marks.paste(0, (0, 0), mask.point([255 - value for value in range(256)]))
        stage.put(marks, *at, other, rough=rough, relief=0.3)
    eye = radius * between(rng, 0.07, 0.2)
    eye_x, eye_y = at[0] + x + radius * 0.2 * (-1 if turned else 1), at[1] + y - radius * 0.2
    pen = ImageDraw.Draw(stage.image)
    if happens(rng, 0.4):
        pen.ellipse((eye_x - eye * 1.5, eye_y - eye * 1.5, eye_x + eye * 1.5, eye_y + eye * 1.5), fill=stage.colour())
    pen.ellipse((eye_x - eye, eye_y - eye, eye_x + eye, eye_y + eye), fill=(12, 10, 10))
    pen.ellipse((eye_x, eye_y - eye * 0.6, eye_x + eye * 0.5, eye_y - eye * 0.1), fill=(240, 240, 240))


def person(stage: Stage, foot: Point, high: float) -> None:
    """Draws a person of any skin and clothes, from head to foot or cut off by the picture's edge."""
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
        stage.polygon(leg, trousers, relief=1)
    left_half = [(shoulder, neck + head * 0.3), (head * 0.4, neck - head * 0.3)]
    torso = [(x - dx, y) for dx, y in left_half] + [(x + dx, y) for dx, y in reversed(left_half)]
    torso += [(x + hip, waist), (x - hip, waist)]
    stage.polygon(torso, shirt, rough=between(rng, 0, 0.6), relief=1)
    for side in (-1, 1):
        _arm(stage, (x + side * shoulder, neck + head * 0.5), high, side, (shirt, skin))
    stage.polygon(
        placed(outline(rng, "disk"), (x, top + head * 0.9), head * between(rng, 1.05, 1.35)), hair, relief=0.7
    )
    face = [(x + head * 0.82 * math.cos(a / 3), top + head * 1.2 + head * 1.05 * math.sin(a / 3)) for a in range(19)]
    stage.polygon(face, skin, rough=0.05, relief=0.8)
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
    """Draws an arm from the shoulder `at`, bent at the elbow. It is in a sleeve, and the forearm may be bare.

    side: -1 for the arm at the left, 1 for the one at the right. colours: of the sleeve and of the skin.
    """
    rng = stage.rng
    thick, angle = high * 0.028, between(rng, -0.2, 1.3)
    elbow = (at[0] + side * math.sin(angle) * high * 0.17, at[1] + math.cos(angle) * high * 0.17)
    angle = between(rng, -1.5, 2.0)
    hand = (elbow[0] + side * math.sin(angle) * high * 0.15, elbow[1] + math.cos(angle) * high * 0.15)
    for (x, y), (u, v), colour in ((at, elbow, colours[0]), (elbow, hand, colours[integer(rng, 0, 1)])):
        far = math.hypot(u - x, v - y) + 1e-6
        dx, dy = (v - y) / far * thick, (x - u) / far * thick
        stage.polygon([(x + dx, y + dy), (u + dx, v + dy), (u - dx, v - dy), (x - dx, y - dy)], colour, relief=1)
