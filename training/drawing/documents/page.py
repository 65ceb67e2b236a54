"""Pages: columns of text with headings, lists, figures, rules and letterheads. Knows nothing of how paper looks."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from training.drawing.chance import Rng, Size, between, happens, integer, log_between, pick, size_of
from training.drawing.glyphs import Family, any_face
from training.drawing.ink import Sheet, emblem, handwriting, stamp
from training.drawing.noise import levels, natural_tile, window
from training.drawing.palette import vivid
from training.drawing.paper import Splash, pen_colour, scanned, splash
from training.drawing.words import Vocabulary, code, date, number


class Setter:
    """Sets one page in its own style. It fills a column from the top and then goes on to the next."""

    def __init__(self, rng: Rng, size: Size) -> None:
        self.rng = rng
        self.sheet = Sheet(size)
        self.words = Vocabulary(rng)
        self.splashes: list[Splash] = []
        width, height = size
        margin = round(width * between(rng, 0.04, 0.15))
        self.columns = pick(rng, (1, 2, 3), (6, 3, 1)) if width > 420 else pick(rng, (1, 2), (4, 1))
        self.gap = round(width * between(rng, 0.02, 0.06))
        self.wide = (width - 2 * margin - (self.columns - 1) * self.gap) // self.columns
        self.margin = margin
        em = round(log_between(rng, 8, 20) if self.columns == 1 else log_between(rng, 8, 12))
        families: tuple[Family, ...] = ("serif", "sans", "typewriter", "mono")
        family = pick(rng, families, (5, 4, 2, 1))
        self.face = any_face(rng, em, family=family)
        self.bold = any_face(rng, em, family=family, bold=True)
        self.head = any_face(rng, round(em * between(rng, 1.15, 2)), bold=True)
        self.step = em * between(rng, 1.05, 1.9)
        self.justified = happens(rng, 0.5)
        self.indent = round(em * pick(rng, (0, 0, 1.5, 3)))
        self.column = 0
        self.top = round(height * between(rng, 0.03, 0.14))
        self.bottom = height - round(height * between(rng, 0.03, 0.14))
        self.y: float = self.top

    @property
    def left(self) -> int:
        return self.margin + self.column * (self.wide + self.gap)

    @property
    def full(self) -> bool:
        return self.column >= self.columns

    def advance(self, by: float) -> None:
        """Goes down, or to the top of the next column."""
        self.y += by
        if self.y + self.step > self.bottom:
            self.column, self.y = self.column + 1, self.top

    def line(self, text: str, indent: int = 0, *, last: bool = False) -> None:
        """Sets a line of text. A justified page spreads it to the column's width, unless it is short or the last."""
        mask = self.face.line(text)
        wide = self.wide - indent
        if self.justified and not last and mask.shape[1] > wide * 0.7:
            mask = (
                mask
                if mask.shape[1] == wide
                else np.asarray(Image.fromarray(mask).resize((max(1, wide), mask.shape[0]), Image.Resampling.BILINEAR))
            )
        self.sheet.put(mask[:, : wide + 4], self.left + indent, round(self.y))
        self.advance(self.step)


def draw_page(rng: Rng) -> Image.Image:
    aspect = log_between(rng, 0.6, 0.8) if happens(rng, 0.75) else log_between(rng, 0.4, 2.2)
    page = Setter(rng, size_of(log_between(rng, 250_000, 440_000), aspect))
    if happens(rng, 0.6):
        _letterhead(page)
    likes: list[tuple[Callable[[Setter], None], float]] = [
        (_paragraph, 1.0),
        (_heading, between(rng, 0, 0.6)),
        (_list, between(rng, 0, 0.5)),
        (_figure, between(rng, 0, 0.35)),
        (_fields, between(rng, 0, 0.3)),
        (_pause, between(rng, 0, 0.3)),
    ]
    blocks, weights = [block for block, _ in likes], [weight for _, weight in likes]
    for _ in range(integer(rng, 4, 40)):
        if page.full:
            break
        pick(rng, blocks, weights)(page)
    _close(page)
    return scanned(rng, page.sheet, tuple(page.splashes))


def _letterhead(page: Setter) -> None:
    rng, sheet = page.rng, page.sheet
    if happens(rng, 0.5):
        side = round(sheet.width * between(rng, 0.06, 0.2))
        mark, left = (
            emblem(rng, side),
            pick(rng, (page.margin, sheet.width - page.margin - side, (sheet.width - side) // 2)),
        )
        if happens(rng, 0.5):
            page.splashes.append(splash(sheet, mark, left, round(page.y), vivid(rng)))
        else:
            sheet.put(mark, left, round(page.y))
        page.y += side * pick(rng, (0.0, 1.1))
    centred = happens(rng, 0.5)
    for face in [page.head] * integer(rng, 1, 2) + [page.face] * integer(rng, 0, 3):
        text = page.words.name(5 if face is page.head else 8)
        if face.width(text) > sheet.width - 2 * page.margin:
            text = text[: len(text) // 2]
        x = sheet.width // 2 if centred else page.margin
        sheet.text(text, face, x, round(page.y), "centre" if centred else "left")
        page.y += page.step * face.size / page.face.size
    if happens(rng, 0.5):
        sheet.bar(page.margin, round(page.y + 4), sheet.width - 2 * page.margin, integer(rng, 1, 3))
    page.y += page.step
    page.top = round(page.y)


def _paragraph(page: Setter) -> None:
    rng = page.rng
    per_line = max(6, round(page.wide / max(1, page.face.width("n"))))
    lines = integer(rng, 1, 9)
    text = page.words.text(per_line * lines).split()
    indent, line = page.indent, ""
    while text and not page.full:
        word = text.pop(0)
        longer = f"{line} {word}" if line else word
        if line and page.face.width(longer) > page.wide - indent:
            page.line(line, indent)
            indent, longer = 0, word
        line = longer
    if line and not page.full:
        page.line(line, indent, last=True)
        page.advance(page.step * (0.0 if page.indent else 0.6))


def _heading(page: Setter) -> None:
    rng = page.rng
    face = pick(rng, (page.head, page.bold))
    numbering = f"{integer(rng, 1, 9)}.{integer(rng, 1, 9)} " if happens(rng, 0.3) else ""
    text = numbering + page.words.name(4)
    page.advance(page.step * 0.4)
    if page.full:
        return
    page.sheet.put(face.line(text)[:, : page.wide], page.left, round(page.y))
    page.advance(page.step * face.size / page.face.size * 1.1)


def _list(page: Setter) -> None:
    rng = page.rng
    mark = pick(rng, ("-", "*", "o", "1"))
    for item in range(integer(rng, 2, 7)):
        if page.full:
            return
        label = f"{item + 1}." if mark == "1" else mark
        text = page.words.text(integer(rng, 8, max(9, round(page.wide / page.face.width("n") * 0.8))))
        page.line(f"{label} {text}", page.face.size, last=True)


def _figure(page: Setter) -> None:
    """Draws a halftone of noise, a frame and a caption, or only some of them."""
    rng = page.rng
    high = round(page.wide * between(rng, 0.3, 0.8))
    if page.y + high > page.bottom:
        return
    top = round(page.y)
    if happens(rng, 0.7):
        grey = levels(window(rng, natural_tile(rng), (page.wide, high), 1.5), 55, between(rng, 80, 170))
        page.sheet.put(grey, page.left, top, between(rng, 0.6, 1))
    if happens(rng, 0.5):
        page.sheet.frame(page.left, top, page.wide, high, integer(rng, 1, 2))
    page.advance(high + 3)
    if happens(rng, 0.7) and not page.full:
        page.line(f"Fig. {integer(rng, 1, 12)}: {page.words.name(4)}", last=True)
    page.advance(page.step * 0.5)


def _fields(page: Setter) -> None:
    """Draws a form: names with printed or handwritten values, on rules or in boxes."""
    rng = page.rng
    boxed, split = happens(rng, 0.4), round(page.wide * between(rng, 0.25, 0.5))
    for _ in range(integer(rng, 2, 9)):
        if page.full:
            return
        top = round(page.y)
        page.sheet.put(page.face.line(page.words.name(2) + ":")[:, :split], page.left, top)
        value = pick(rng, (page.words.name(2), date(rng), code(rng), number(rng)))
        if happens(rng, 0.3):
            page.sheet.put(
                handwriting(rng, max(30, page.wide - split), max(14, page.face.height)), page.left + split, top
            )
        else:
            page.sheet.put(page.face.line(value)[:, : page.wide - split], page.left + split + 4, top)
        if boxed:
            page.sheet.frame(page.left, top - 1, page.wide, round(page.step) + 1)
        else:
            page.sheet.bar(page.left + split, top + page.face.height, page.wide - split, 1, 0.7)
        page.advance(max(page.step, page.face.height + 2))


def _pause(page: Setter) -> None:
    if happens(page.rng, 0.4) and not page.full:
        page.sheet.bar(page.left, round(page.y + page.step / 2), page.wide, integer(page.rng, 1, 3))
    page.advance(page.step * between(page.rng, 0.5, 4))


def _close(page: Setter) -> None:
    """Adds a page number, a signature, a stamp, or none of them."""
    rng, sheet = page.rng, page.sheet
    if happens(rng, 0.4):
        sheet.text(
            str(integer(rng, 1, 400)), page.face, sheet.width // 2, sheet.height - page.face.height - 6, "centre"
        )
    masks = []
    if happens(rng, 0.25):
        masks.append(
            handwriting(rng, round(sheet.width * between(rng, 0.2, 0.4)), round(sheet.width * between(rng, 0.06, 0.15)))
        )
    if happens(rng, 0.12):
        masks.append(stamp(rng, page.head, pick(rng, ("PAID", "DRAFT", "COPY", "APPROVED", date(rng)))))
    for mask in masks:
        left, top = integer(rng, 0, sheet.width - mask.shape[1]), integer(rng, sheet.height // 3, sheet.height - 40)
        page.splashes.append(splash(sheet, mask, left, top, pen_colour(rng), between(rng, 0.5, 1)))
