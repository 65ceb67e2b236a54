"""Charts on plain grounds: bars, lines, areas, scatter, pies and heat maps, with axes, labels and legends.

Knows nothing of the pages or screens that may show them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.drawing.chance import Rng, between, happens, integer, log_between, pick, size_of
from training.drawing.glyphs import Face, any_face
from training.drawing.palette import Colour, Palette, hsv, mixed, ramp, vivid
from training.drawing.words import Vocabulary, number

Series = NDArray[np.float64]
"""`[series, points]`, from 0 to 1."""


@dataclass
class Plot:
    """A chart while it is drawn, and its style. box: left, top, right and bottom of its axes in pixels."""

    rng: Rng
    image: Image.Image
    pen: ImageDraw.ImageDraw
    box: tuple[int, int, int, int]
    face: Face
    colours: Palette
    ground: Colour
    ink: Colour
    words: Vocabulary

    def text(self, text: str, x: float, y: float, align: float = 0.0, face: Face | None = None) -> None:
        """Draws a line of text. `x` is its left end, its middle with `align` 0.5, or its right end with 1."""
        mask = Image.fromarray(np.ascontiguousarray((face or self.face).line(text)))
        if mask.width:
            self.image.paste(self.ink, (round(x - mask.width * align), round(y)), mask)

    def colour(self, index: int) -> Colour:
        return self.colours[index % len(self.colours)]


def draw_chart(rng: Rng) -> Image.Image:
    plot = _plot(rng)
    if happens(rng, 0.2):
        _pie(plot)
    elif happens(rng, 0.15):
        _heat(plot)
    else:
        _axes(plot)
        painters: tuple[Callable[[Plot, Series], None], ...] = (_bars, _lines, _areas, _scatter, _lying_bars)
        pick(rng, painters, (4, 4, 1, 3, 2))(plot, _series(rng))
    if happens(rng, 0.6):
        _legend(plot)
    return plot.image


def _plot(rng: Rng) -> Plot:
    size = size_of(log_between(rng, 250_000, 440_000), log_between(rng, 0.7, 2.2))
    ground = pick(
        rng, ((255, 255, 255), hsv(between(rng, 0, 1), 0.05, 0.96), hsv(between(rng, 0.5, 0.8), 0.3, 0.14)), (6, 2, 2)
    )
    ink = (40, 40, 44) if ground[0] > 128 else (225, 225, 230)
    image = Image.new("RGB", size, ground)
    if happens(rng, 0.4):
        hue = between(rng, 0, 1)
        colours = [hsv(hue, between(rng, 0.3, 0.9), 0.35 + 0.1 * step) for step in range(6)]
    else:
        colours = [vivid(rng) for _ in range(6)]
    words = Vocabulary(rng, 30)
    face = any_face(rng, round(log_between(rng, 10, 17)), family=pick(rng, ("sans", "serif"), (4, 1)))
    left, right = round(size[0] * between(rng, 0.08, 0.16)), round(size[0] * between(rng, 0.85, 0.97))
    top, bottom = round(size[1] * between(rng, 0.05, 0.2)), round(size[1] * between(rng, 0.8, 0.92))
    plot = Plot(rng, image, ImageDraw.Draw(image), (left, top, right, bottom), face, colours, ground, ink, words)
    if happens(rng, 0.7):
        title = any_face(rng, round(face.size * between(rng, 1.2, 2)), family=face.family, bold=happens(rng, 0.5))
        at = pick(rng, (0.0, 0.5))
        plot.text(words.name(5), left + (right - left) * at, top * 0.15, at, title)
    return plot


def _series(rng: Rng) -> Series:
    """Returns walks, humps, falls, waves or plain noise."""
    count, points = pick(rng, (1, 2, 3, 4, 5), (4, 3, 2, 1, 1)), integer(rng, 3, 24)
    x = np.linspace(0, 1, points)
    way = pick(rng, ("walk", "hump", "fall", "chance", "wave"))
    if way == "walk":
        y = rng.normal(between(rng, -0.5, 0.8), 1, (count, points)).cumsum(axis=1)
    elif way == "hump":
        y = np.exp(-(((x - rng.random((count, 1))) / between(rng, 0.1, 0.4)) ** 2)) + rng.random((count, points)) * 0.1
    elif way == "fall":
        y = np.exp(-x * rng.uniform(1, 6, (count, 1))) + rng.random((count, points)) * 0.05
    elif way == "wave":
        y = np.sin(x * between(rng, 4, 20) + rng.random((count, 1)) * 6) + rng.random((count, points)) * 0.3
    else:
        y = rng.random((count, points)) ** between(rng, 0.5, 2)
    y = (y - y.min()) / (np.ptp(y) + 1e-9)
    return np.asarray(0.05 + y * between(rng, 0.7, 0.92))


def _axes(plot: Plot) -> None:
    rng, (left, top, right, bottom) = plot.rng, plot.box
    grid, ticks = mixed(plot.ground, plot.ink, between(rng, 0.1, 0.3)), integer(rng, 3, 8)
    if happens(rng, 0.2):
        plot.pen.rectangle(plot.box, fill=mixed(plot.ground, plot.ink, 0.06))
    lines, upright = happens(rng, 0.7), happens(rng, 0.3)
    largest = log_between(rng, 1, 5000)
    for step in range(ticks + 1):
        y = bottom - (bottom - top) * step / ticks
        if lines:
            plot.pen.line((left, y, right, y), fill=grid)
        plot.text(f"{largest * step / ticks:.{1 if largest < 20 else 0}f}", left - 5, y - plot.face.height / 2, 1)
    count = integer(rng, 3, 9)
    for step in range(count):
        x = left + (right - left) * (step + 0.5) / count
        if upright:
            plot.pen.line((x, top, x, bottom), fill=grid)
        plot.text(pick(rng, (str(2000 + step), plot.words.name(1)[:6])), x, bottom + 4, 0.5)
    plot.pen.line((left, bottom, right, bottom), fill=plot.ink, width=integer(rng, 1, 2))
    if happens(rng, 0.6):
        plot.pen.line((left, top, left, bottom), fill=plot.ink, width=integer(rng, 1, 2))
    if happens(rng, 0.5):
        plot.text(plot.words.name(3), (left + right) / 2, bottom + 6 + plot.face.height, 0.5)


def _bars(plot: Plot, series: Series) -> None:
    left, top, right, bottom = plot.box
    count, points = series.shape
    fat, stacked = between(plot.rng, 0.4, 0.95), happens(plot.rng, 0.3)
    slot = (right - left) / points
    base = np.zeros(points)
    for index, values in enumerate(series):
        for at, value in enumerate(values.tolist()):
            low = base[at] if stacked else 0.0
            high = low + value / count if stacked else value
            wide = slot * fat if stacked else slot * fat / count
            x = left + at * slot + slot * (1 - fat) / 2 + (0 if stacked else index * wide)
            y = bottom - (bottom - top) * high
            plot.pen.rectangle((x, y, max(x, x + wide - 1), bottom - (bottom - top) * low), fill=plot.colour(index))
            base[at] = high


def _lying_bars(plot: Plot, series: Series) -> None:
    left, top, right, bottom = plot.box
    values = series[0].tolist()
    slot, fat = (bottom - top) / len(values), between(plot.rng, 0.4, 0.9)
    for at, value in enumerate(values):
        y = top + at * slot
        plot.pen.rectangle((left, y, left + (right - left) * value, y + slot * fat), fill=plot.colour(0))
        plot.text(number(plot.rng), left + (right - left) * value + 4, y + (slot * fat - plot.face.height) / 2)


def _points(plot: Plot, values: list[float]) -> list[tuple[float, float]]:
    left, top, right, bottom = plot.box
    step = (right - left) / max(1, len(values) - 1)
    return [(left + at * step, bottom - (bottom - top) * value) for at, value in enumerate(values)]


def _lines(plot: Plot, series: Series) -> None:
    width, dots = integer(plot.rng, 1, 4), happens(plot.rng, 0.5)
    for index, values in enumerate(series):
        points = _points(plot, values.tolist())
        plot.pen.line(points, fill=plot.colour(index), width=width, joint="curve")
        for x, y in points if dots else []:
            plot.pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=plot.colour(index), outline=plot.ground)


def _areas(plot: Plot, series: Series) -> None:
    left, _, right, bottom = plot.box
    for index, values in enumerate(series[np.argsort(-series.mean(axis=1))]):
        plot.pen.polygon([(left, bottom), *_points(plot, values.tolist()), (right, bottom)], fill=plot.colour(index))


def _scatter(plot: Plot, series: Series) -> None:
    rng, (left, top, right, bottom) = plot.rng, plot.box
    radius = log_between(rng, 1.5, 7)
    for index in range(series.shape[0]):
        middle, spread = rng.uniform(0.2, 0.8, 2), rng.uniform(0.03, 0.22, 2)
        slope = between(rng, -1, 1)
        cloud = rng.normal(0, 1, (integer(rng, 10, 90), 2)) * spread
        cloud[:, 1] += slope * cloud[:, 0]
        for x, y in np.clip(middle + cloud, 0.01, 0.99).tolist():
            x, y = left + (right - left) * x, bottom - (bottom - top) * y
            plot.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=plot.colour(index))


def _pie(plot: Plot) -> None:
    rng, (left, top, right, bottom) = plot.rng, plot.box
    radius = min(right - left, bottom - top) / 2
    x, y = left + radius + (right - left - 2 * radius) * between(rng, 0, 1), (top + bottom) / 2
    shares = rng.dirichlet([1.5] * integer(rng, 2, 8)).tolist()
    start, labels = between(rng, 0, 360), happens(rng, 0.6)
    for index, share in enumerate(shares):
        end = start + share * 360
        plot.pen.pieslice((x - radius, y - radius, x + radius, y + radius), start, end, plot.colour(index), plot.ground)
        middle = math.radians((start + end) / 2)
        if labels and share > 0.06:
            text_x, text_y = x + math.cos(middle) * radius * 0.75, y + math.sin(middle) * radius * 0.75
            plot.text(f"{share * 100:.0f}%", text_x, text_y - plot.face.height / 2, 0.5)
        start = end
    if happens(rng, 0.4):
        hole = radius * between(rng, 0.4, 0.75)
        plot.pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=plot.ground)


def _heat(plot: Plot) -> None:
    rng, (left, top, right, bottom) = plot.rng, plot.box
    rows, columns = integer(rng, 3, 20), integer(rng, 3, 24)
    cells = rng.random((rows, columns)) * 0.6 + 0.4 * np.linspace(0, 1, columns)[None, :] * rng.random((rows, 1))
    table = ramp([plot.ground, plot.colour(0), plot.colour(1)][: integer(rng, 2, 3)])
    image = Image.fromarray(table[(cells * 255).astype(np.uint8)])
    plot.image.paste(image.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    for row in range(min(rows, 12)):
        y = top + (bottom - top) * (row + 0.5) / min(rows, 12)
        plot.text(plot.words.name(1)[:7], left - 4, y - plot.face.height / 2, 1)
    for column in range(min(columns, 8)):
        plot.text(str(column + 1), left + (right - left) * (column + 0.5) / min(columns, 8), bottom + 3, 0.5)


def _legend(plot: Plot) -> None:
    rng, (left, top, right, bottom) = plot.rng, plot.box
    step, count = round(plot.face.height * 1.2), integer(rng, 2, 5)
    x = pick(rng, (left + 10, right - plot.face.size * 8))
    y = pick(rng, (top + 6, bottom - step * count - 6))
    if happens(rng, 0.5):
        box = (x - 5, y - 4, x + plot.face.size * 8, y + step * count + 2)
        plot.pen.rectangle(box, fill=plot.ground, outline=mixed(plot.ground, plot.ink, 0.4))
    for index in range(count):
        high = plot.face.size
        plot.pen.rectangle((x, y + index * step + 3, x + high, y + index * step + high), fill=plot.colour(index))
        plot.text(plot.words.name(1)[:10], x + high + 6, y + index * step)
