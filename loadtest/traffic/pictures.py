"""Pictures that compress and decode like real ones: photographs, scanned documents, screenshots.

A photograph has the two statistics that matter to codecs: a spectrum that falls as 1/f (natural texture) and occlusion
edges of every size (dead leaves). White noise would cost a JPEG four times the bytes, a flat colour a tenth. Arrays are
`[height, width]` or `[height, width, 3]`. This module knows nothing of formats, mixes or requests.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Content = Literal["photo", "document", "screenshot"]
CONTENTS: tuple[Content, ...] = get_args(Content)
Rng = np.random.Generator
Colour = tuple[int, int, int]

_FIELD_SIDE = 1024
_SYLLABLES = (
    "an",
    "be",
    "co",
    "da",
    "el",
    "fi",
    "go",
    "ha",
    "in",
    "ju",
    "ka",
    "lo",
    "me",
    "no",
    "or",
    "pa",
    "re",
    "sa",
    "te",
)


class Studio:
    """Paints pictures of any size. Its texture is periodic and made once, so a large picture only looks it up."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x57])
        self._texture = natural_field(_FIELD_SIDE, rng)
        self._grain = rng.normal(0.0, 1.0, (_FIELD_SIDE, _FIELD_SIDE)).astype(np.float32)

    def paint(self, content: Content, height: int, width: int, rng: Rng) -> Image.Image:
        painters: dict[Content, Callable[[int, int, Rng], Image.Image]] = {
            "photo": self.photo,
            "document": self.document,
            "screenshot": self.screenshot,
        }
        return painters[content](height, width, rng)

    def photo(self, height: int, width: int, rng: Rng) -> Image.Image:
        leaves = _dead_leaves(height, width, rng)
        detail = _window(self._texture, height, width, rng)
        # Parts of a scene are sky or blur, others foliage: the detail varies over large areas.
        focus = np.clip(_wide_window(self._texture, height, width, rng) + 0.6, 0.05, 1.8)
        shade = detail * focus * rng.uniform(10, 20) + _window(self._grain, height, width, rng) * rng.uniform(0.8, 2.0)
        return _add_luma(leaves, shade)

    def document(self, height: int, width: int, rng: Rng) -> Image.Image:
        page = Image.new("RGB", (width, height), _grey(rng.integers(238, 253)))
        _fill_page(page, rng)
        scanned = page.filter(ImageFilter.GaussianBlur(min(height, width) / 2400))
        shade = _window(self._grain, height, width, rng) * rng.uniform(0.6, 1.4)
        return _add_luma(scanned, shade + _wide_window(self._texture, height, width, rng) * 2)

    def screenshot(self, height: int, width: int, rng: Rng) -> Image.Image:
        screen = _windows_and_widgets(height, width, rng)
        inset_h, inset_w = max(8, height // 4), max(8, width // 4)
        screen.paste(self.photo(inset_h, inset_w, rng), (width - inset_w - width // 40, height // 6))
        return screen


def natural_field(side: int, rng: Rng) -> NDArray[np.float32]:
    """A periodic `[side, side]` field with a 1/f amplitude spectrum, zero mean and unit deviation."""
    spectrum = np.fft.rfft2(rng.normal(size=(side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    field = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / side), s=(side, side))
    unit: NDArray[np.float32] = ((field - field.mean()) / field.std()).astype(np.float32)
    return unit


def _window(field: NDArray[np.float32], height: int, width: int, rng: Rng) -> NDArray[np.float32]:
    """A random view of a periodic field."""
    top, left = rng.integers(0, field.shape[0], 2)
    rows = (top + np.arange(height)) % field.shape[0]
    columns = (left + np.arange(width)) % field.shape[1]
    view: NDArray[np.float32] = field[np.ix_(rows, columns)]
    return view


def _wide_window(field: NDArray[np.float32], height: int, width: int, rng: Rng) -> NDArray[np.float32]:
    """A random view, enlarged eight times and smooth: a value that varies slowly over the picture."""
    small = Image.fromarray(_window(field, height // 8 + 1, width // 8 + 1, rng))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def _add_luma(picture: Image.Image, shade: NDArray[np.float32]) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.int16) + shade.astype(np.int16)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _dead_leaves(height: int, width: int, rng: Rng) -> Image.Image:
    """Overlapping opaque shapes of every size. Sizes follow the inverse cube law of natural scenes."""
    short = min(height, width)
    picture = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(picture)
    base = rng.uniform(0, 1)
    # Radii follow r^-3 between 1.5 % and 60 % of the short side (drawn by the inverse). The largest are painted first.
    radii = 0.015 / np.sqrt(1 - rng.uniform(0, 1 - (0.015 / 0.6) ** 2, 220))
    for radius in np.sort(radii)[::-1] * short:
        centre = rng.uniform(0, 1, 2) * (width, height)
        reach = radius * rng.uniform(0.5, 1.0, 2)
        box = (*(centre - reach), *(centre + reach))
        shape = draw.ellipse if rng.uniform() < 0.6 else draw.rectangle
        shape(box, fill=_colour(rng, base))
    return picture.filter(ImageFilter.GaussianBlur(0.5 + short / 2500))


def _colour(rng: Rng, base: float | None = None) -> Colour:
    """A muted colour near the hue `base` of its scene."""
    hue = rng.uniform(0, 1) if base is None else rng.normal(base, 0.12) % 1
    value = rng.uniform(40, 220)
    swing = value * rng.uniform(0.05, 0.35)
    red, green, blue = (int(value + swing * np.cos(2 * np.pi * (hue - third / 3))) for third in range(3))
    return max(0, min(255, red)), max(0, min(255, green)), max(0, min(255, blue))


def _grey(value: int | np.int64) -> Colour:
    return int(value), int(value), int(value)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _words(count: int, rng: Rng) -> str:
    lengths = rng.integers(1, 5, count)
    return " ".join("".join(rng.choice(_SYLLABLES, length)) for length in lengths)


def _fill_page(page: Image.Image, rng: Rng) -> None:
    """A heading, then paragraphs of ragged lines with a ruled table among them."""
    draw = ImageDraw.Draw(page)
    width, height = page.size
    margin, size = max(2, width // 12), max(6, min(width, height) // int(rng.integers(55, 85)))
    ink = _grey(rng.integers(10, 60))
    draw.text((margin, margin // 2), _words(5, rng), font=_font(size * 2), fill=ink)
    table_at = rng.uniform(0.3, 0.8) * height
    top = float(margin + size * 2)
    while top < height - margin:
        if abs(top - table_at) < size * 1.5:
            top = _table(draw, (margin, top, width - margin, top + size * 10), size, ink, rng)
            continue
        line = _words(max(1, int((width - 2 * margin) / (size * 2.6) * rng.uniform(0.7, 1.0))), rng)
        draw.text((margin, top), line, font=_font(size), fill=ink)
        top += size * (2.4 if rng.uniform() < 0.15 else 1.4)


def _table(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], size: int, ink: Colour, rng: Rng
) -> float:
    left, top, right, bottom = box
    for row in np.arange(top, bottom + 1, size * 2):
        draw.line((left, row, right, row), fill=ink)
    for column in np.linspace(left, right, 5):
        draw.line((column, top, column, bottom), fill=ink)
        if column < right:
            draw.text((column + 3, top + size * 0.5), str(rng.integers(10, 99_999)), font=_font(size), fill=ink)
    return bottom + size


def _windows_and_widgets(height: int, width: int, rng: Rng) -> Image.Image:
    """Flat panels with hard edges, rows of small text, buttons and icons. PNG compresses these well."""
    dark = rng.uniform() < 0.4
    paper, ink = (_grey(30), _grey(215)) if dark else (_grey(250), _grey(40))
    panel, accent = (_grey(45) if dark else _grey(235)), _colour(rng)
    screen = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(screen)
    bar, side = min(height, max(4, height // 18)), min(width, max(8, width // 6))
    draw.rectangle((0, 0, width, bar), fill=accent)
    draw.rectangle((0, bar, side, height), fill=panel)
    size = max(6, min(height, width) // 70)
    for top in np.arange(bar + size, height - size, size * 2.2):
        draw.rounded_rectangle((size, top, size * 2, top + size), radius=size / 4, fill=_colour(rng))
        draw.text((size * 2.5, top - 1), _words(2, rng)[: side // size], font=_font(size), fill=ink)
        if rng.uniform() < 0.75:
            words = max(1, int((width - side) / size / 5 * rng.uniform(0.3, 0.9)))
            draw.text((side + size, top - 1), _words(words, rng), font=_font(size), fill=ink)
    for left in np.linspace(side + size, width * 0.6, 4):
        draw.rounded_rectangle((left, bar * 0.25, left + bar * 2, bar * 0.75), radius=bar / 6, fill=paper)
    return screen
