"""Charts with axes, as SVG text. The page that holds them defines their colours.

Every mark takes its colour from a CSS class (`s0` to `s6`, `bad`, `rule`), so one drawing serves light, dark and paper.
A chart has a title and a description for screen readers. This module knows nothing of load tests.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 64, 16, 14, 44


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`, linear or logarithmic."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end, clipped to both."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            part = (math.log(max(value, self.low)) - low) / (high - low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, part))

    def ticks(self) -> list[float]:
        return self._log_ticks() if self.log else self._even_ticks()

    def _even_ticks(self) -> list[float]:
        step = _round_up((self.high - self.low) / 6)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        wide = self.high / self.low
        leads = (1, 1.5, 2, 3, 4, 5, 7) if wide < 12 else (1, 2, 5) if len(powers) <= 4 else (1,)
        found = [lead * 10.0**power for power, lead in itertools.product(powers, leads)]
        return [value for value in found if self.low <= value * 1.0001 and value <= self.high * 1.0001]


def linear(label: str, values: Sequence[float], *, low: float | None = 0.0, air: float = 1.05) -> Axis:
    """An axis from `low` to some air above the values. If `low` is none, it begins and ends with the values."""
    known = [value for value in values if math.isfinite(value)]
    top = max(known, default=1.0)
    start = min(known, default=0.0) if low is None else low
    if low is None:
        air = 1.0
    return Axis(label, start, top * air if top > start else start + 1)


def logarithmic(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis that holds the positive values and spans at least a factor of four."""
    known = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(known) / 1.1, max(known) * 1.1
    return Axis(label, low, high, log=True) if high / low >= 4 else Axis(label, low / 2, high * 2, log=True)


def tick_text(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def frame(title: str, description: str, height: float, drawing: str) -> str:
    """An SVG element of the common width, with a title and a description for screen readers."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>{drawing}</svg>'
    )


def legend(keys: Sequence[tuple[str, str]]) -> str:
    """The names of the colours, for below a plot; empty without any."""
    items = "".join(f'<li><span class="key {css}"></span>{escape(label)}</li>' for css, label in keys)
    return f'<ul class="keys">{items}</ul>' if items else ""


class Chart:
    """Marks on two axes. Draw with the methods, then take the `svg`."""

    def __init__(self, title: str, description: str, x: Axis, y: Axis, *, height: int = 280) -> None:
        self._title = title
        self._description = description
        self._x = x
        self._y = y
        self._height = height
        self._marks: list[str] = []
        self._keys: list[tuple[str, str]] = []

    def line(self, points: Points, css: str, label: str = "", *, dots: bool = False) -> None:
        """A line that breaks where there is no value."""
        for _, run in itertools.groupby(points, key=lambda point: math.isfinite(point[1])):
            places = [self._at(*point) for point in run if math.isfinite(point[1])]
            if places:
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
                self._marks.append(f'<polyline class="line {css}" points="{path}"/>')
                single = len(places) == 1 or dots
                self._marks += [
                    f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places if single
                ]
        self._key(css, label)

    def area(self, points: Points, css: str, label: str = "") -> None:
        """The area between a line and the x axis."""
        places = [self._at(*point) for point in points if math.isfinite(point[1])]
        if places:
            floor = self._height - _BOTTOM
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(places[0][0], floor), *places, (places[-1][0], floor)])
            self._marks.append(f'<polygon class="area {css}" points="{path}"/>')
        self._key(css, label)

    def bar(self, left: float, right: float, value: float, css: str, tip: str) -> None:
        """A vertical bar between two places on the x axis, as high as its value."""
        (x1, y), (x2, _) = self._at(left, value), self._at(right, value)
        size = f'width="{max(x2 - x1 - 1, 1):.1f}" height="{self._height - _BOTTOM - y:.1f}"'
        self._marks.append(
            f'<rect class="bar {css}" x="{x1:.1f}" y="{y:.1f}" {size}><title>{escape(tip)}</title></rect>'
        )

    def band(self, left: float, right: float, css: str, tip: str, *, text: str = "") -> None:
        """A stretch of the x axis, over the whole height, with a word at its top."""
        (x1, _), (x2, _) = self._at(left, self._y.low), self._at(right, self._y.low)
        size = f'width="{max(x2 - x1, 2):.1f}" height="{self._height - _BOTTOM - _TOP}"'
        self._marks.append(
            f'<rect class="band {css}" x="{x1:.1f}" y="{_TOP}" {size}><title>{escape(tip)}</title></rect>'
        )
        if text:
            self._text(x1 + 1, _TOP + 11, text, anchor="start", css="name")

    def rule(
        self, *, x: float | None = None, y: float | None = None, text: str, css: str = "rule", row: int = 0
    ) -> None:
        """A line across the plot at one value, with its name. `row` moves the name down by lines."""
        if x is not None:
            place, _ = self._at(x, self._y.low)
            left_of = place > WIDTH * 0.7
            self._marks.append(
                f'<line class="{css}" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{self._height - _BOTTOM}"/>'
            )
            anchor, shift = ("end", -5) if left_of else ("start", 5)
            self._text(place + shift, _TOP + 12 + 16 * row, text, anchor=anchor, css="name")
        if y is not None:
            _, place = self._at(self._x.low, y)
            self._marks.append(
                f'<line class="{css}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
            )
            self._text(WIDTH - _RIGHT - 4, place - 5, text, anchor="end", css="name")

    def svg(self) -> str:
        drawing = self._grid() + "".join(self._marks)
        return frame(self._title, self._description, self._height, drawing) + legend(self._keys)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across, up = self._x.place(x), self._y.place(y)
        floor = self._height - _BOTTOM
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), floor - up * (floor - _TOP)

    def _grid(self) -> str:
        before, self._marks = self._marks, []
        floor = self._height - _BOTTOM
        for value in self._y.ticks():
            _, y = self._at(self._x.low, value)
            self._marks.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self._text(_LEFT - 8, y + 4, tick_text(value), anchor="end", css="tick")
        for value in self._x.ticks():
            x, _ = self._at(value, self._y.low)
            self._marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>')
            self._text(x, floor + 19, tick_text(value), anchor="middle", css="tick")
        self._marks.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
        self._text((_LEFT + WIDTH - _RIGHT) / 2, self._height - 6, self._x.label, anchor="middle", css="label")
        middle = (_TOP + floor) / 2
        turn = f'transform="rotate(-90 14 {middle:.0f})"'
        self._marks.append(
            f'<text class="label" x="14" y="{middle:.0f}" text-anchor="middle" {turn}>{escape(self._y.label)}</text>'
        )
        grid, self._marks = "".join(self._marks), before
        return grid

    def _text(self, x: float, y: float, text: str, *, anchor: str, css: str) -> None:
        self._marks.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def _key(self, css: str, label: str) -> None:
        if label and (css, label) not in self._keys:
            self._keys.append((css, label))


def _round_up(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(lead * power for lead in (1, 2, 5, 10) if lead * power >= step * 0.999)
