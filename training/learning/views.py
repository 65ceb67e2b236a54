"""Views of a picture: crops, other shapes, other colours, other files.

A view should get the embedding of its picture, and knows where its points are in the picture. Knows nothing of budgets,
patches or training.
"""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageStat

_BILINEAR = Image.Resampling.BILINEAR
# A view has at most so many times the pixels that it will be resized to, but at least those of a thumbnail.
_MORE_PIXELS, _LEAST_PIXELS = 2.5, 128 * 128
_MOST_CHANGED = 0.65  # the largest change of brightness, contrast and saturation


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """image: mode RGB. place: float64 `[3, 3]`, the affine map from a point `(x, y, 1)` of the view to the picture.

    x and y run from 0 to 1 over the whole view, and over the whole picture. shown: float64 `[2, 2]`, the least and the
    greatest `(x, y)` of the picture that were kept. What was added around the picture is outside of them.
    """

    image: Image.Image
    place: NDArray[np.float64]
    shown: NDArray[np.float64]


def whole_view(picture: Image.Image, random: Generator, *, pixels: int) -> View:
    """Returns the picture or most of it, with colours and file changed a little."""
    view = _all_of(picture)
    if random.random() < 0.4:
        view = _cropped(view, random, least=0.6, most=1.0)
    view = replace(view, image=_shrunk(view.image, pixels))
    if random.random() < 0.25:
        view = _reshaped(view, random)
    image = view.image
    if random.random() < 0.5:
        image = _recoloured(image, random, strength=0.5)
    return replace(view, image=_recompressed(image, random, share=0.5))


def same_view(picture: Image.Image, random: Generator, *, pixels: int) -> View:
    """Returns the whole picture from another file. Hardly anything but the budget then changes it."""
    return _all_of(_recompressed(_shrunk(picture, pixels), random, share=0.3))


def part_view(picture: Image.Image, random: Generator, *, pixels: int) -> View:
    """Returns another view, much changed: mostly 20 to 65% of the picture, and half of the time mirrored."""
    view = _all_of(picture)
    if random.random() < 0.85:
        view = _cropped(view, random, least=0.2, most=0.65)
    view = replace(view, image=_shrunk(view.image, pixels))
    if random.random() < 0.5:
        view = _mirrored(view)
    if random.random() < 0.5:
        view = _reshaped(view, random)
    image = view.image
    if random.random() < 0.8:
        image = _recoloured(image, random, strength=1.0)
    if random.random() < 0.2:
        image = _blurred(image, random)
    return replace(view, image=_recompressed(image, random, share=0.7))


def _all_of(picture: Image.Image) -> View:
    return View(picture, np.eye(3), np.array([[0.0, 0.0], [1.0, 1.0]]))


def _cropped(view: View, random: Generator, *, least: float, most: float) -> View:
    """Returns a part of `least` to `most` of the area. Its aspect ratio changes by up to a third."""
    share, stretch = random.uniform(least, most), math.exp(random.uniform(-0.3, 0.3))
    width, height = view.image.size
    part_w = min(width, max(8, round(width * math.sqrt(share * stretch))))
    part_h = min(height, max(8, round(height * math.sqrt(share / stretch))))
    left, top = int(random.integers(0, width - part_w + 1)), int(random.integers(0, height - part_h + 1))
    part = view.image.crop((left, top, left + part_w, top + part_h))
    place = view.place @ _affine(part_w / width, 0, left / width, 0, part_h / height, top / height)
    return View(part, place, np.array([[0, 0, 1], [1, 1, 1]]) @ place[:2].T)


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> NDArray[np.float64]:
    return np.array([[a, b, c], [d, e, f], [0.0, 0.0, 1.0]])


def _mirrored(view: View) -> View:
    mirrored = view.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return replace(view, image=mirrored, place=view.place @ _affine(-1, 0, 1, 0, 1, 0))


def _shrunk(picture: Image.Image, pixels: int) -> Image.Image:
    width, height = picture.size
    scale = math.sqrt(max(_LEAST_PIXELS, _MORE_PIXELS * pixels) / (width * height))
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), _BILINEAR, reducing_gap=2.0)


def _reshaped(view: View, random: Generator) -> View:
    """Squashes the view, rotates it by some degrees, or puts it on a larger canvas."""
    way = random.integers(3)
    width, height = view.image.size
    if way == 0:
        stretch = math.exp(random.uniform(-0.3, 0.3))
        size = max(8, round(width * stretch)), max(8, round(height / stretch))
        return replace(view, image=view.image.resize(size, _BILINEAR))
    fill = tuple(int(value) for value in random.integers(0, 256, 3)) if random.random() < 0.3 else _plain(random)
    if way == 1:
        return _turned(view, random.uniform(-9, 9), fill, expand=bool(random.random() < 0.5))
    wider, higher = (round(side * random.uniform(1, 1.6)) for side in (width, height))
    if random.random() < 0.7:
        wider, higher = (wider, height) if random.random() < 0.5 else (width, higher)
    canvas = Image.new("RGB", (wider, higher), fill)
    left, top = (wider - width) // 2, (higher - height) // 2
    canvas.paste(view.image, (left, top))
    placed = _affine(wider / width, 0, -left / width, 0, higher / height, -top / height)
    return replace(view, image=canvas, place=view.place @ placed)


def _turned(view: View, degrees: float, fill: tuple[int, ...], *, expand: bool) -> View:
    """Rotates the view counter-clockwise around its middle."""
    width, height = view.image.size
    turned = view.image.rotate(degrees, _BILINEAR, fillcolor=fill, expand=expand)
    angle = -math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    # From shares of the view to pixels from its middle, rotated, and back.
    pixels = _affine(turned.width, 0, -turned.width / 2, 0, turned.height, -turned.height / 2)
    shares = _affine(1 / width, 0, 0.5, 0, 1 / height, 0.5)
    return replace(view, image=turned, place=view.place @ shares @ _affine(c, s, 0, -s, c, 0) @ pixels)


def _plain(random: Generator) -> tuple[int, int, int]:
    return ((0, 0, 0), (255, 255, 255), (128, 128, 128))[random.integers(3)]


def _recoloured(picture: Image.Image, random: Generator, *, strength: float) -> Image.Image:
    """Changes gamma, brightness, contrast, white balance, saturation and hue, by one table and one matrix."""
    if random.random() < 0.12 * strength:
        return picture.convert("L").convert("RGB")
    # From slight to strong: colours should help to tell pictures apart, but never be enough.
    strength *= random.uniform(0.3, 1)
    picture = picture.point(_curves(picture, random, strength).tolist())
    if random.random() < 0.8:
        picture = picture.convert("RGB", _colour_matrix(random, strength))
    return picture


def _curves(picture: Image.Image, random: Generator, strength: float) -> NDArray[np.uint8]:
    """Returns `[768]`: new values for the 256 levels of each channel.

    Brightness is a factor, so white paper can become gray, or light gray paper white. Contrast is about the picture's
    mean.
    """
    levels = (np.arange(256) / 255) ** math.exp(random.normal(0, 0.15 * strength))
    bright, contrast = random.uniform(1 - _MOST_CHANGED * strength, 1 + _MOST_CHANGED * strength, 2)
    mean = min(1.0, ImageStat.Stat(picture.convert("L")).mean[0] / 255 * bright)
    levels = (np.minimum(levels * bright, 1) - mean) * contrast + mean
    balance = np.exp(random.normal(0, 0.06 * strength, 3))
    table: NDArray[np.uint8] = np.clip(255 * np.outer(balance, levels), 0, 255).astype(np.uint8)
    return table.ravel()


def _colour_matrix(random: Generator, strength: float) -> tuple[float, ...]:
    """Returns a matrix for `Image.convert` that scales saturation and rotates hue about the gray axis."""
    saturation = random.uniform(1 - _MOST_CHANGED * strength, 1 + _MOST_CHANGED * strength)
    angle = random.normal(0, 0.35 * strength)
    gray = np.full((3, 3), 1 / 3)
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = gray + saturation * (math.cos(angle) * (np.eye(3) - gray) + math.sin(angle) * axis)
    return tuple(float(value) for row in turn for value in (*row, 0.0))


def _blurred(picture: Image.Image, random: Generator) -> Image.Image:
    if random.random() < 0.5:
        return picture.filter(ImageFilter.BoxBlur(random.uniform(0.5, 2.0)))
    scale = random.uniform(0.3, 0.8)
    width, height = picture.size
    return picture.resize((max(8, round(width * scale)), max(8, round(height * scale))), _BILINEAR)


def _recompressed(picture: Image.Image, random: Generator, *, share: float) -> Image.Image:
    if random.random() > share:
        return picture
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(random.integers(12, 96)))
    return Image.open(file)
