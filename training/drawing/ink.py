"""A sheet that takes ink: lines of text, rules, bars, strokes of a pen. Knows nothing of paper or of layouts."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.drawing.chance import Rng, Size, between, happens, integer, pick
from training.drawing.glyphs import Face, Mask

Align = Literal["left", "right", "centre"]


class Sheet:
    """ink: uint8 `[height, width]`, 0 where the paper is bare. Ink outside of the sheet is dropped."""

    def __init__(self, size: Size) -> None:
        self.width, self.height = size
        self.ink: NDArray[np.uint8] = np.zeros((size[1], size[0]), dtype=np.uint8)

    def put(self, mask: Mask, left: int, top: int, strength: float = 1.0) -> None:
        """Adds the mask to the ink, with its corner at `left` and `top`. `strength` 1 keeps it as dark as it is."""
        from_x, from_y = max(0, -left), max(0, -top)
        part = mask[from_y : max(0, self.height - top), from_x : max(0, self.width - left)]
        if part.size == 0:
            return
        if strength < 1:
            part = (part * np.float32(strength)).astype(np.uint8)
        top, left = max(0, top), max(0, left)
        under = self.ink[top : top + part.shape[0], left : left + part.shape[1]]
        np.maximum(under, part, out=under)

    def text(self, text: str, face: Face, x: int, top: int, align: Align = "left") -> None:
        """Writes a line that starts, ends or is centred at `x`."""
        mask = face.line(text)
        width = int(mask.shape[1])
        left = x if align == "left" else x - width if align == "right" else x - width // 2
        self.put(mask, left, top)

    def bar(self, left: int, top: int, width: int, height: int, strength: float = 1.0) -> None:
        """Fills a box. A thin one is a rule."""
        part = self.ink[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        np.maximum(part, np.uint8(255 * strength), out=part)

    def frame(self, left: int, top: int, width: int, height: int, thick: int = 1) -> None:
        """Draws the four sides of a box."""
        self.bar(left, top, width, thick)
        self.bar(left, top + height - thick, width, thick)
        self.bar(left, top, thick, height)
        self.bar(left + width - thick, top, thick, height)

    def invert(self, left: int, top: int, width: int, height: int) -> None:
        """Swaps ink and bare paper inside the box."""
        part = self.ink[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        np.subtract(np.uint8(255), part, out=part)


def barcode(rng: Rng, width: int, height: int) -> Mask:
    """Returns bars and gaps one to four modules wide, cut off at `width`. Many thin ones may fill less than that."""
    module = max(1, round(width / 95))
    runs = rng.integers(1, 5, width // (2 * module) + 4) * module
    row = np.repeat(np.arange(len(runs)) % 2 == 0, runs)[:width]
    return np.tile((row * 255).astype(np.uint8), (height, 1))


def matrix_code(rng: Rng, side: int) -> Mask:
    """Returns a square of random modules with three finders, like a QR code."""
    count = integer(rng, 21, 33)
    cells = (rng.random((count, count)) < 0.5).astype(np.uint8) * 255
    finder = np.full((8, 8), 0, dtype=np.uint8)
    finder[:7, :7] = 255
    finder[1:6, 1:6] = 0
    finder[2:5, 2:5] = 255
    cells[:8, :8], cells[:8, -8:], cells[-8:, :8] = finder, finder[:, ::-1], finder[::-1]
    return np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST))


def handwriting(rng: Rng, width: int, height: int) -> Mask:
    """Returns a scrawl in a box: loops from left to right, by a pen one to three pixels wide."""
    count = max(16, width // 3)
    t = np.linspace(0, 1, count)
    turns = between(rng, 0.12, 0.3) * width / max(8, height) * 6.3
    swell = np.interp(t, np.linspace(0, 1, 12), rng.uniform(0.1, 1, 12))
    phase = turns * t * 2 + np.interp(t, np.linspace(0, 1, 9), rng.uniform(-1.5, 1.5, 9))
    x = width * (0.05 + 0.85 * t) + np.cos(phase) * height * 0.25 * swell
    y = height * (0.5 + 0.42 * swell * np.sin(phase)) + height * 0.1 * np.cos(t * between(rng, 2, 8))
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    start = 0
    while start < count - 2:
        end = start + integer(rng, count // 5, count // 2 + 2)
        pen.line(points[start:end], fill=255, width=integer(rng, 1, 3), joint="curve")
        start = end + integer(rng, 0, 2)
    return np.asarray(image)


def loop(rng: Rng, width: int, height: int) -> Mask:
    """Returns a ring drawn by hand: from an open half turn to a little more than a whole one."""
    t = np.linspace(between(rng, 0, 6), between(rng, 11.5, 13.5), 60)
    t = t[0] + (t - t[0]) * 0.55
    wobble = 0.44 + np.linspace(0, between(rng, -0.05, 0.05), 60)
    points = list(zip(width * (0.5 + wobble * np.cos(t)), height * (0.5 + wobble * np.sin(t)), strict=True))
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).line([(float(x), float(y)) for x, y in points], fill=255, width=integer(rng, 1, 3))
    return np.asarray(image)


def stamp(rng: Rng, face: Face, text: str) -> Mask:
    """Returns a word in a box or in two rings, rotated and worn."""
    line = Image.fromarray(face.line(text))
    if happens(rng, 0.6):
        image = Image.new("L", (line.width + 16, line.height + 12))
        ImageDraw.Draw(image).rectangle(
            (2, 2, image.width - 3, image.height - 3), outline=255, width=integer(rng, 1, 3)
        )
    else:
        side = line.width + 24
        image = Image.new("L", (side, side))
        pen = ImageDraw.Draw(image)
        pen.ellipse((1, 1, side - 2, side - 2), outline=255, width=2)
        pen.ellipse((7, 7, side - 8, side - 8), outline=255, width=1)
    image.paste(line, ((image.width - line.width) // 2, (image.height - line.height) // 2))
    turned = np.asarray(image.rotate(between(rng, -25, 25), Image.Resampling.BILINEAR, expand=True))
    worn = rng.random(turned.shape, dtype=np.float32) > between(rng, 0, 0.4)
    return np.asarray(turned * worn, dtype=np.uint8)


def emblem(rng: Rng, side: int) -> Mask:
    """Returns a mark like a firm's: two to five plain shapes on top of each other, inked and bare in turn."""
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for index in range(integer(rng, 2, 5)):
        middle_x, middle_y = between(rng, 0.35, 0.65) * side, between(rng, 0.35, 0.65) * side
        radius = side * between(rng, 0.12, 0.5) * (0.95**index)
        box = (middle_x - radius, middle_y - radius, middle_x + radius, middle_y + radius)
        fill = 0 if index % 2 else 255
        way = pick(rng, ("ellipse", "polygon", "box", "pie", "bars"))
        if way == "ellipse":
            pen.ellipse(box, fill=fill)
        elif way == "polygon":
            pen.regular_polygon((middle_x, middle_y, radius), integer(rng, 3, 6), integer(rng, 0, 90), fill=fill)
        elif way == "box":
            pen.rounded_rectangle(box, radius / integer(rng, 2, 8), fill=fill)
        elif way == "pie":
            pen.pieslice(box, integer(rng, 0, 180), integer(rng, 200, 360), fill=fill)
        else:
            for step in range(3):
                top = box[1] + step * radius * 0.66
                pen.rectangle((box[0], top, box[2], top + radius * 0.33), fill=fill)
    return np.asarray(image)
