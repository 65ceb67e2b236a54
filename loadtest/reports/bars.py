"""Horizontal bars and intervals, a row each: drawings without axes for a few named figures.

The colours are CSS classes, as in `plots`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loadtest.reports.plots import WIDTH, frame, legend

_LEFT, _ROW = 200, 34


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar."""

    label: str
    value: float
    css: str


@dataclass(frozen=True, slots=True)
class Spread:
    """A value between two others."""

    label: str
    low: float
    value: float
    high: float


def bars(title: str, description: str, rows: Sequence[tuple[str, Sequence[Part]]], *, unit: str) -> str:
    """An SVG with a bar for each row: its parts end to end, then their sum."""
    top = max((sum(part.value for part in parts) for _, parts in rows), default=1.0) or 1.0
    scale = (WIDTH - _LEFT - 90) / top
    marks = []
    for number, (label, parts) in enumerate(rows):
        y, x = 6 + _ROW * number, float(_LEFT)
        marks.append(_name(label, y))
        for part in parts:
            width = max(part.value * scale, 0.5)
            tip = f"<title>{escape(part.label)}: {part.value:,.1f}{escape(unit)}</title>"
            marks.append(_rect(x, y, width, 24, f"bar {part.css}", tip))
            x += part.value * scale
        total = sum(part.value for part in parts)
        marks.append(f'<text class="name" x="{x + 8:.1f}" y="{y + 17}">{total:,.1f}{escape(unit)}</text>')
    keys = dict.fromkeys((part.css, part.label) for _, parts in rows for part in parts if len(parts) > 1)
    return frame(title, description, _ROW * len(rows) + 8, "".join(marks)) + legend(list(keys))


def spreads(title: str, description: str, rows: Sequence[Spread], *, even: float = 1.0) -> str:
    """An SVG with the interval and the value of each row on one scale. The line at `even` marks no difference."""
    low = min([even, *(row.low for row in rows)])
    high = max([even, *(row.high for row in rows)])
    margin = (high - low) * 0.08 or 0.1
    scale = (WIDTH - _LEFT - 120) / (high - low + 2 * margin)

    def place(value: float) -> float:
        return _LEFT + (value - low + margin) * scale

    height = _ROW * len(rows) + 26
    marks = [f'<line class="rule" x1="{place(even):.1f}" x2="{place(even):.1f}" y1="0" y2="{height - 20}"/>']
    marks.append(f'<text class="tick" x="{place(even):.1f}" y="{height - 5}" text-anchor="middle">{even:g}</text>')
    for number, row in enumerate(rows):
        y = 6 + _ROW * number
        css = "s1" if row.low <= even <= row.high else "s2"
        marks.append(_name(row.label, y))
        width = max(place(row.high) - place(row.low), 1.0)
        tip = f"<title>{row.value:.3f}, {row.low:.3f} to {row.high:.3f}</title>"
        marks.append(_rect(place(row.low), y + 9, width, 6, f"area {css}", tip))
        marks.append(f'<circle class="dot {css}" cx="{place(row.value):.1f}" cy="{y + 12}" r="5"/>')
        marks.append(f'<text class="name" x="{WIDTH - 6}" y="{y + 17}" text-anchor="end">{row.value:.3f}</text>')
    return frame(title, description, height, "".join(marks))


def _name(label: str, y: float) -> str:
    return f'<text class="label" x="{_LEFT - 10}" y="{y + 17:.0f}" text-anchor="end">{escape(label)}</text>'


def _rect(x: float, y: float, width: float, height: float, css: str, inside: str) -> str:
    size = f'width="{width:.1f}" height="{height:.0f}" rx="2"'
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.0f}" {size}>{inside}</rect>'
