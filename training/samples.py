"""Draws the sample pictures of the server's page: `python -m training.samples service/http/pages`.

Four shapes that one square fits badly: a wide scene, a long receipt, a small icon and a wide chart. Unlike what `draw`
makes for training, each is one picture for people to look at, and always the same.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# Shapes are drawn this much larger, and then made smooth by resizing.
_FINE = 3

_Colour = tuple[int, int, int]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="training.samples", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder: Path = parser.parse_args(arguments).folder
    for name, drawn in SAMPLES.items():
        drawn().save(folder / f"{name}.webp", quality=82, method=6)


def _smooth(image: Image.Image) -> Image.Image:
    return image.resize((image.width // _FINE, image.height // _FINE), Image.Resampling.LANCZOS)


def _font(size: float) -> Any:
    return ImageFont.load_default(size * _FINE)


def _slope(top: _Colour, bottom: _Colour, height: int, width: int) -> Image.Image:
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(np.broadcast_to(column, (height, width, 3)).round().astype(np.uint8))


def _ridge(rng: np.random.Generator, width: int, roughness: float) -> NDArray[np.float64]:
    """Heights from -1 to 1, like hills: waves of every length, the short ones low."""
    x = np.linspace(0, 2 * math.pi, width)
    waves = [
        np.sin(x * octave + rng.uniform(0, 2 * math.pi)) / octave**roughness for octave in (1, 2, 3, 5, 8, 13, 21, 34)
    ]
    line = np.sum(waves, axis=0)
    return np.asarray(line / np.abs(line).max())


def lake() -> Image.Image:
    """Hills behind a lake in the evening, 960 × 540, with the grain of a photograph."""
    width, height, shore = 960, 540, 330
    rng = np.random.default_rng(4)
    image = _slope((44, 62, 112), (252, 176, 120), height, width)
    glow = Image.new("L", image.size)
    ImageDraw.Draw(glow).ellipse((560, 190, 740, 370), fill=220)
    image.paste((255, 226, 170), (0, 0), glow.filter(ImageFilter.GaussianBlur(46)))
    ImageDraw.Draw(image).ellipse((625, 255, 675, 305), fill=(255, 246, 220))
    far, near = (128, 104, 134), (24, 34, 46)
    for layer in range(5):
        share = layer / 4
        colour = tuple(round(a * (1 - share) + b * share) for a, b in zip(far, near, strict=True))
        tops = shore - 120 * (1 - share) - 16 + _ridge(rng, width, 0.9 + 0.3 * share) * (44 - 24 * share)
        outline = [(0, shore), *((x, float(top)) for x, top in enumerate(tops)), (width, shore)]
        ImageDraw.Draw(image).polygon(outline, fill=colour)
    _trees(rng, ImageDraw.Draw(image), width, shore)
    water = image.crop((0, 2 * shore - height, width, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    rows = np.asarray(water).astype(np.float64)
    for y in range(len(rows)):
        rows[y] = np.roll(rows[y], round(math.sin(y * 0.9) * (1 + y / 40)), axis=0) * (0.86 - 0.05 * (y % 7 == 0))
    image.paste(Image.fromarray(rows.clip(0, 255).astype(np.uint8)), (0, shore))
    grain = np.asarray(image) + rng.normal(0, 3, (height, width, 1))
    return Image.fromarray(grain.clip(0, 255).astype(np.uint8))


def _trees(rng: np.random.Generator, pen: ImageDraw.ImageDraw, width: int, shore: int) -> None:
    for x in range(-10, width, 9):
        high = rng.uniform(14, 46) * (1.4 if x < 240 or x > 820 else 0.7)
        for step in range(4):
            top, half = shore - high + high * step / 5, 2 + 2.2 * step
            pen.polygon([(x, top), (x - half, top + high * 0.4), (x + half, top + high * 0.4)], fill=(16, 24, 32))


def receipt() -> Image.Image:
    """A till receipt, 360 × 1200."""
    goods = [
        ("Sourdough", 4.20), ("Olives", 3.75), ("Lemons x 4", 1.96), ("Goat cheese", 5.40), ("Rye flour", 2.85),
        ("Coffee beans", 9.90), ("Oat milk", 2.10), ("Tomatoes", 3.32), ("Basil", 1.50), ("Pears", 2.64),
        ("Walnuts", 4.45), ("Honey", 6.80), ("Butter", 2.95), ("Eggs x 10", 3.60),
    ]  # fmt: skip
    width, height = 360 * _FINE, 1200 * _FINE
    image = _slope((250, 248, 243), (240, 236, 228), height, width)
    pen, ink = ImageDraw.Draw(image), (52, 50, 54)

    def line(y: float, left: str, right: str = "", size: float = 19, *, middle: bool = False) -> None:
        x = width / 2 if middle else 30 * _FINE
        pen.text((x, y * _FINE), left, fill=ink, font=_font(size), anchor="ms" if middle else "ls")
        pen.text((width - 30 * _FINE, y * _FINE), right, fill=ink, font=_font(size), anchor="rs")

    def rule(y: float) -> None:
        for x in range(30, 330, 10):
            pen.line((x * _FINE, y * _FINE, (x + 5) * _FINE, y * _FINE), fill=ink, width=_FINE)

    line(84, "CORNER SHOP", size=34, middle=True)
    line(118, "Harbour Street 12", middle=True)
    line(146, "Open every day, 7 to 21", size=16, middle=True)
    rule(176)
    for row, (name, price) in enumerate(goods):
        line(222 + 44 * row, name, f"{price:.2f}")
    rule(840)
    total = sum(price for _, price in goods)
    line(892, "TOTAL", f"{total:.2f}", size=32)
    line(936, "Card", f"{total:.2f}")
    line(966, "Of this tax 7%", f"{total * 7 / 107:.2f}", size=16)
    bars = np.random.default_rng(11).integers(1, 4, 60)
    edges = np.cumsum(bars) * (300 / bars.sum()) + 30
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        pen.rectangle((left * _FINE, 1012 * _FINE, right * _FINE, 1092 * _FINE), fill=ink)
    line(1142, "Thank you", size=22, middle=True)
    return _smooth(image)


def icon() -> Image.Image:
    """A house on a round ground, 48 × 48: so small that most strategies enlarge it."""
    side = 48 * _FINE
    image = Image.new("RGB", (side, side), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    pen.ellipse((2 * _FINE, 2 * _FINE, side - 2 * _FINE, side - 2 * _FINE), fill=(27, 110, 140))
    shapes: dict[_Colour, Sequence[tuple[int, int]]] = {
        (255, 255, 255): ((24, 10), (39, 23), (34, 23), (34, 36), (14, 36), (14, 23), (9, 23)),
        (240, 168, 76): ((21, 36), (21, 26), (27, 26), (27, 36)),
    }
    for colour, corners in shapes.items():
        pen.polygon([(x * _FINE, y * _FINE) for x, y in corners], fill=colour)
    return _smooth(image)


def chart() -> Image.Image:
    """Two years of a shop's sales as bars and a line, 1120 × 360."""
    width, height, months = 1120 * _FINE, 360 * _FINE, 24
    rng = np.random.default_rng(7)
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen, grey = ImageDraw.Draw(image), (110, 112, 120)
    pen.text((60 * _FINE, 40 * _FINE), "Visitors and sales by month", fill=(40, 40, 46), font=_font(22), anchor="ls")
    for value in range(0, 101, 25):
        y = (310 - 2.3 * value) * _FINE
        pen.line((60 * _FINE, y, 1090 * _FINE, y), fill=(228, 228, 232), width=_FINE)
        pen.text((50 * _FINE, y), f"{value}", fill=grey, font=_font(14), anchor="rm")
    season = np.sin(np.arange(months) * 2 * math.pi / 12 - 1.3)
    sales = 46 + 24 * season + np.arange(months) + rng.normal(0, 4, months)
    visitors = (sales * 0.8 + rng.normal(12, 4, months)).clip(0, 100)
    points = []
    for month in range(months):
        x = 60 + 1030 * (month + 0.5) / months
        bar = [(x - 14) * _FINE, (310 - 2.3 * sales[month]) * _FINE, (x + 14) * _FINE, 310 * _FINE]
        pen.rectangle(bar, fill=(86, 138, 178) if month < 12 else (38, 90, 140))
        points.append((x * _FINE, (310 - 2.3 * visitors[month]) * _FINE))
        pen.text((x * _FINE, 330 * _FINE), "JFMAMJJASOND"[month % 12], fill=grey, font=_font(14), anchor="mm")
    pen.line(points, fill=(226, 106, 44), width=4 * _FINE, joint="curve")
    for x, y in points:
        pen.ellipse((x - 5 * _FINE, y - 5 * _FINE, x + 5 * _FINE, y + 5 * _FINE), fill=(226, 106, 44))
    return _smooth(image)


SAMPLES: dict[str, Callable[[], Image.Image]] = {"lake": lake, "receipt": receipt, "icon": icon, "chart": chart}


if __name__ == "__main__":
    main()
