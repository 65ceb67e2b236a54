"""Typefaces: many variants of Pillow's built-in font and of its old bitmap font, and lines of text as masks.

Masks are uint8 `[height, width]`, 255 where there is ink. Knows nothing of pages or of what words say.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.drawing.chance import Rng, happens, pick

Mask = NDArray[np.uint8]
Family = Literal["sans", "serif", "mono", "typewriter", "dots"]
_CHARACTERS = [chr(code) for code in range(32, 127)]


@dataclass(frozen=True)
class Face:
    """A typeface at a size.

    size: the em in pixels. weight: how much wider strokes are than designed, in pixels.
    stretch: factor on the width, 1 as designed. slant: how far the top leans right, as a share of the height.
    spacing: pixels between letters beyond the designed ones.
    """

    size: int
    family: Family = "sans"
    weight: float = 0.0
    stretch: float = 1.0
    slant: float = 0.0
    spacing: int = 0

    def line(self, text: str) -> Mask:
        """Returns the mask of a line. All lines of a face have the same height. No text has width 0."""
        glyphs = _glyphs(self)
        blank = glyphs[" "]
        return np.concatenate([glyphs.get(character, blank) for character in text] or [blank[:, :0]], axis=1)

    def width(self, text: str) -> int:
        """Returns the width of `line(text)` in pixels."""
        glyphs = _glyphs(self)
        return sum(glyphs.get(character, glyphs[" "]).shape[1] for character in text)

    @property
    def height(self) -> int:
        """The height of every line in pixels."""
        return int(_glyphs(self)[" "].shape[0])


def any_face(rng: Rng, size: int, *, family: Family | None = None, bold: bool = False) -> Face:
    """Returns a face of the size. Its other traits are drawn from a few values each, so that faces recur."""
    families: tuple[Family, ...] = ("sans", "serif", "mono", "typewriter", "dots")
    chosen = pick(rng, families, (4, 4, 2, 2, 1)) if family is None else family
    weight = pick(rng, (0.7, 1.2)) if bold else pick(rng, (0.0, 0.0, 0.3))
    stretch = pick(rng, (0.75, 0.87, 1.0, 1.0, 1.2))
    slant = pick(rng, (-0.0, 0.22)) if happens(rng, 0.15) else 0.0
    return Face(max(6, size), chosen, weight * size / 14, stretch, slant, pick(rng, (0, 0, 0, 1)))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font, laid out by Pillow's own engine. The other engine is not in every build."""
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


@cache
def _lengths(size: int) -> list[float]:
    """Returns the widths of `_CHARACTERS` in pixels."""
    return [_font(size).getlength(character) for character in _CHARACTERS]


@lru_cache(maxsize=600)
def _glyphs(face: Face) -> dict[str, Mask]:
    """Returns all characters of a face, cut from one line. Calling the font for each takes ten times as long."""
    if face.family in ("typewriter", "dots"):
        return _bitmap_glyphs(face)
    times = 2 if face.size < 28 else 1
    font, gap = _font(face.size * times), "   "
    lengths = _lengths(face.size * times)
    starts = [sum(lengths[:at]) + (at + 1) * len(gap) * lengths[0] for at in range(len(_CHARACTERS))]
    image = Image.new("L", (round(starts[-1] + 4 * face.size), round(face.size * 1.25) * times))
    where = (0, face.size * times)
    line = gap + gap.join(_CHARACTERS)
    ImageDraw.Draw(image).text(where, line, fill=255, font=font, anchor="ls")
    if face.weight > 0:
        image = _bolder(image, face.weight * times)
    if face.family == "serif":
        image = _with_serifs(image, face.size * times)
    ink, across = _shaped(image, face, times), face.stretch / times
    glyphs = {}
    for character, start, length in zip(_CHARACTERS, starts, lengths, strict=True):
        left, width = start * across, length * across
        if face.family == "mono":
            cell = lengths[16] * 1.08 * across
            left, width = left - max(0, cell - width) / 2, max(width, cell)
            glyphs[character] = _cut(ink, left, width, round(cell))
        else:
            glyphs[character] = _cut(ink, left, width + face.spacing, round(width) + face.spacing)
    return glyphs


def _cut(ink: Mask, left: float, width: float, cell: int) -> Mask:
    """Returns the columns from `left` on, squeezed if they do not fit the cell."""
    glyph = ink[:, round(left) : round(left) + max(1, round(width))]
    if glyph.shape[1] == max(1, cell):
        return glyph
    return np.asarray(Image.fromarray(np.ascontiguousarray(glyph)).resize((max(1, cell), ink.shape[0])))


def _bolder(image: Image.Image, by: float) -> Image.Image:
    """Returns the image with strokes `by` pixels wider and no higher: bold faces grow sideways."""
    ink = np.array(image)
    full, rest = int(by), by - int(by)
    for step in range(1, full + 1):
        np.maximum(ink[:, step:], np.asarray(image)[:, :-step], out=ink[:, step:])
    if rest > 0.05:
        edge = (np.asarray(image)[:, : -full - 1] * np.float32(rest)).astype(np.uint8)
        np.maximum(ink[:, full + 1 :], edge, out=ink[:, full + 1 :])
    return Image.fromarray(ink)


def _with_serifs(image: Image.Image, em: int) -> Image.Image:
    """Returns the image with serifs: ink at the baseline, the x-height and the cap height, extended sideways.

    em: in pixels; also the row of the baseline.
    """
    grown = max(1, round(em * 0.09))
    ink = np.array(image)
    thick = max(1, round(em * 0.035))
    for row in (em - thick, em - round(em * 0.7), em - round(em * 0.53)):
        blocks = ink[row : row + thick]
        for step in range(1, grown):
            blocks = np.maximum(blocks, np.pad(ink[row : row + thick, step:], ((0, 0), (0, step))))
            blocks = np.maximum(blocks, np.pad(ink[row : row + thick, :-step], ((0, 0), (step, 0))))
        ink[row : row + thick] = blocks
    return Image.fromarray(ink)


def _shaped(image: Image.Image, face: Face, times: int) -> Mask:
    """Returns the image stretched, slanted, and at the face's size."""
    width, height = round(image.width * face.stretch / times), image.height // times
    if face.slant:
        lean = (1, face.slant, -face.slant * image.height * 0.8, 0, 1, 0)
        image = image.transform(image.size, Image.Transform.AFFINE, lean, Image.Resampling.BILINEAR)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BOX if times > 1 else Image.Resampling.BILINEAR)
    return np.asarray(image)


def _bitmap_glyphs(face: Face) -> dict[str, Mask]:
    """Returns the characters of the old bitmap font, six by eleven dots each, enlarged smoothly or dot by dot."""
    font, count = ImageFont.load_default_imagefont(), len(_CHARACTERS)
    width, height = max(4, round(face.size * 0.6 * face.stretch)), round(face.size * 1.25)
    image = Image.new("L", (6 * count, 11))
    ImageDraw.Draw(image).text((0, 0), "".join(_CHARACTERS), fill=255, font=font)
    if face.weight > 0.5:
        image.paste(255, (1, 0), image.copy())
    soft = face.family == "typewriter"
    ink = np.asarray(image.resize((width * count, height), Image.Resampling.BICUBIC if soft else Image.Resampling.BOX))
    if soft:
        ink = np.clip(ink.astype(np.int16) * 2 - 60, 0, 255).astype(np.uint8)
    elif height > 16:
        ink = ink * (np.arange(height) % 3 != 2).astype(np.uint8)[:, None]
    cells = np.pad(ink.reshape(height, count, width), ((0, 0), (0, 0), (0, face.spacing)))
    return {character: cells[:, at] for at, character in enumerate(_CHARACTERS)}
