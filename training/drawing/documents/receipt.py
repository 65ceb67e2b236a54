"""Till receipts, narrow and long: a header, lines with prices, totals and a footer.

Half of them come from a few shops. Receipts of one shop differ only in what was bought and how they were scanned. Knows
nothing of how paper and ink look.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from training.drawing.chance import Rng, Size, between, happens, integer, log_between, pick, size_of
from training.drawing.glyphs import Face, Family, Mask, any_face
from training.drawing.ink import Sheet, barcode, emblem, handwriting, loop, matrix_code, stamp
from training.drawing.palette import vivid
from training.drawing.paper import Splash, pen_colour, scanned, splash
from training.drawing.words import TILL_WORDS, Vocabulary, clock, code, date, digits, price

# Few enough that one step of training shows several receipts of a shop, which only their lines tell apart.
_SHOPS, _FROM_A_SHOP = 60, 0.5
_ON_A_PAGE = 0.18  # share scanned as a part of a page, most of which stays white
_PHOTOGRAPHED = 0.15  # share photographed; the others are scanned


class Till:
    """Prints one receipt in the shop's style, from the top of a sheet down. Lines past the end are left out."""

    def __init__(self, rng: Rng, shop: Rng, size: Size, *, on_a_page: bool) -> None:
        """rng: decides what was bought, and where on the sheet the receipt is. shop: decides what its receipts share.

        on_a_page: whether the receipt covers only a part of the sheet.
        """
        self.rng, self.shop = rng, shop
        self.sheet = Sheet(size)
        self.words, self.goods = Vocabulary(shop, 40), Vocabulary(rng, 40)  # of the shop, and of what is bought
        self.splashes: list[Splash] = []
        width, height = size
        usable = round(width * _share_of_width(rng, on_a_page=on_a_page))
        self.left = round((width - usable) * pick(rng, (0.5, 0.5, between(rng, 0, 1))))
        self.left += round(usable * between(shop, 0.03, 0.1))
        self.right = min(width - 4, self.left + round(usable * between(shop, 0.82, 0.93)))
        family: Family = pick(shop, ("sans", "serif", "mono", "typewriter", "dots"), (3, 3, 3, 4, 1))
        columns = log_between(shop, 26, 48)
        em = max(5 if on_a_page else 7, round((self.right - self.left) / columns / 0.58))
        self.face = any_face(shop, em, family=family)
        self.bold = Face(em, family, em / 14, self.face.stretch, 0.0, self.face.spacing)
        self.big = any_face(
            shop, round(em * between(shop, 1.2, 2.2)), family=family if happens(shop, 0.7) else None, bold=True
        )
        self.step = max(self.face.height * 0.8, em * between(shop, 0.95, 1.7))
        self.upper = happens(shop, 0.5)
        self.y = height * (between(rng, 0.02, 0.4) if on_a_page else between(rng, 0.01, 0.06))
        self.bottom = min(height, self.y + usable * between(rng, 1.3, 3)) if on_a_page else height  # about

    @property
    def middle(self) -> int:
        return (self.left + self.right) // 2

    def cased(self, text: str) -> str:
        return text.upper() if self.upper else text

    def centred(self, text: str, face: Face | None = None) -> None:
        """Prints a line in the middle. If it is too wide, big letters become bold ones, and others plain ones."""
        face = face or self.face
        if face.width(self.cased(text)) > self.right - self.left + 8:
            face = self.bold if face is self.big else self.face
        self.sheet.text(self.cased(text), face, self.middle, round(self.y), "centre")
        self.y += self.step * face.size / self.face.size

    def pair(self, name: str, value: str, face: Face | None = None) -> None:
        """Prints a name at the left and its value at the right."""
        face = face or self.face
        self.sheet.text(self.cased(name), face, self.left, round(self.y))
        self.sheet.text(value, face, self.right, round(self.y), "right")
        self.y += self.step * face.size / self.face.size

    def rule(self) -> None:
        """Separates two groups of lines by one or two rules, a row of a character, or a gap."""
        way = pick(self.shop, ("-", "=", "*", "line", "double", "gap", "."), (4, 2, 1, 4, 1, 3, 1))
        width = self.right - self.left
        if way in ("line", "double"):
            self.sheet.bar(self.left, round(self.y + self.step * 0.3), width, 1)
            if way == "double":
                self.sheet.bar(self.left, round(self.y + self.step * 0.3) + 3, width, 1)
            self.y += self.step * 0.7
            return
        if way != "gap":
            self.sheet.text(way * (width // max(1, self.face.width(way))), self.face, self.left, round(self.y))
        self.y += self.step * between(self.shop, 0.6, 1.2)


def _share_of_width(rng: Rng, *, on_a_page: bool) -> float:
    if on_a_page:
        return between(rng, 0.25, 0.6)
    return 1.0 if happens(rng, 0.85) else between(rng, 0.6, 0.9)


def draw_receipt(rng: Rng) -> Image.Image:
    on_a_page = happens(rng, _ON_A_PAGE)
    height_over_width = log_between(rng, 1.2, 1.6) if on_a_page else log_between(rng, 1.3, 4)
    size = size_of(log_between(rng, 250_000, 440_000), 1 / height_over_width)
    shop = np.random.Generator(np.random.PCG64(integer(rng, 1, _SHOPS))) if happens(rng, _FROM_A_SHOP) else rng
    till = Till(rng, shop, size, on_a_page=on_a_page)
    _head(till)
    _facts(till)
    _items(till)
    _totals(till)
    _foot(till)
    _marks(till)
    return scanned(rng, till.sheet, tuple(till.splashes), thermal=happens(rng, 0.6), photographed_share=_PHOTOGRAPHED)


def _head(till: Till) -> None:
    shop = till.shop
    if happens(shop, 0.3):
        side = round((till.right - till.left) * between(shop, 0.15, 0.4))
        mark = emblem(shop, side)
        if happens(shop, 0.4):
            till.splashes.append(splash(till.sheet, mark, till.middle - side // 2, round(till.y), vivid(shop)))
        else:
            till.sheet.put(mark, till.middle - side // 2, round(till.y))
        till.y += side * 1.1
    for _ in range(integer(shop, 1, 2)):
        till.centred(till.words.name(3), till.big)
    left = happens(shop, 0.2)
    for _ in range(integer(shop, 1, 6)):
        street = f"{pick(shop, ('No.', 'Lot ', ''))}{integer(shop, 1, 300)} {till.words.name()}"
        telephone = f"{pick(shop, ('Tel', 'Fax', 'Ph'))}: {digits(shop, 3)}-{digits(shop, 7)}"
        number = f"({pick(shop, ('GST', 'Reg', 'Co. No.'))} {digits(shop, 12)})"
        line = pick(shop, (street, f"{digits(shop, 5)} {till.words.name()}", telephone, number, till.words.name(4)))
        if left:
            till.pair(line, "")
        else:
            till.centred(line)


def _facts(till: Till) -> None:
    rng, shop = till.rng, till.shop
    till.rule()
    if happens(shop, 0.5):
        title = pick(shop, ("Tax Invoice", "Receipt", "Cash Bill", "Invoice", "Order", till.words.name()))
        till.centred(title, till.bold)
    for _ in range(integer(shop, 1, 6)):
        name = pick(shop, TILL_WORDS).capitalize()
        which = integer(shop, 0, 4)
        value = (date(rng), clock(rng), code(rng), till.goods.name(1), f"{date(rng)} {clock(rng)}")[which]
        if happens(shop, 0.6):
            till.pair(f"{name:<9}: {value}", clock(rng) if happens(shop, 0.2) else "")
        else:
            till.pair(name, value)
    till.rule()


def _items(till: Till) -> None:
    rng, shop = till.rng, till.shop
    lines = [_line_of_one, _line_of_two, _line_in_columns]
    line: Callable[[Till], None] = pick(shop, lines)
    if happens(shop, 0.6):
        till.pair(
            pick(shop, ("Item", "Description", "Qty Item")),
            pick(shop, ("Amount", "RM", "Total", "Price  Amt")),
            till.bold,
        )
        till.rule()
    room = (till.bottom - till.y) / till.step
    for _ in range(min(26, max(1, round(room * between(rng, 0.05, 0.6))))):
        line(till)
    till.rule()


def _line_of_one(till: Till) -> None:
    rng = till.rng
    count = f"{integer(rng, 1, 9)} " if happens(rng, 0.5) else ""
    till.pair(count + till.goods.name(2), price(rng) + pick(rng, ("", "", " S", " T")))


def _line_of_two(till: Till) -> None:
    rng = till.rng
    till.pair(till.goods.name(3), "")
    till.pair(f"{digits(rng, 7)}  {integer(rng, 1, 12)} x {price(rng, 60)}", price(rng))


def _line_in_columns(till: Till) -> None:
    rng = till.rng
    wide = till.right - till.left
    till.sheet.text(str(integer(rng, 1, 20)), till.face, till.left + round(wide * 0.55), round(till.y), "right")
    till.sheet.text(price(rng, 60), till.face, till.left + round(wide * 0.77), round(till.y), "right")
    till.pair(till.goods.name(1)[:14], price(rng))


def _totals(till: Till) -> None:
    rng, shop = till.rng, till.shop
    indent = till.left + round((till.right - till.left) * pick(shop, (0.0, 0.0, 0.3, 0.45)))
    left, till.left = till.left, indent
    for _ in range(integer(shop, 1, 6)):
        till.pair(pick(shop, TILL_WORDS).capitalize() + pick(shop, ("", ":", " (RM)", " 6%")), price(rng))
    top = round(till.y)
    face = pick(shop, (till.bold, till.big))
    till.pair("TOTAL", pick(shop, ("", "$", "RM ")) + price(rng), face)
    if happens(shop, 0.1):
        till.sheet.invert(indent - 3, top, till.right - indent + 6, round(till.y) - top)
    for _ in range(integer(shop, 0, 4)):
        till.pair(pick(shop, TILL_WORDS).capitalize(), price(rng))
    till.left = left
    till.rule()


def _foot(till: Till) -> None:
    rng, shop = till.rng, till.shop
    wide = till.right - till.left
    for _ in range(integer(shop, 0, 6)):
        said = ("Thank you", "Please come again", "Goods sold are not returnable", till.words.name(4))
        till.centred(pick(shop, said))
    if happens(shop, 0.3):
        bars = barcode(rng, round(wide * between(shop, 0.5, 0.9)), round(till.step * between(shop, 1.5, 4)))
        till.sheet.put(bars, till.middle - bars.shape[1] // 2, round(till.y))
        till.y += bars.shape[0] + 2
        till.centred(digits(rng, 13))
    elif happens(shop, 0.15):
        side = round(wide * between(shop, 0.25, 0.5))
        till.sheet.put(matrix_code(rng, side), till.middle - side // 2, round(till.y))


def _marks(till: Till) -> None:
    """Adds what people add: handwriting, a ring around a sum, a stamp."""
    rng, sheet = till.rng, till.sheet
    masks: list[Mask] = []
    wide = till.right - till.left
    if happens(rng, 0.25):
        masks.append(handwriting(rng, round(wide * between(rng, 0.2, 0.6)), round(wide * between(rng, 0.08, 0.2))))
    if happens(rng, 0.15):
        masks.append(loop(rng, round(wide * between(rng, 0.2, 0.4)), round(wide * between(rng, 0.1, 0.2))))
    if happens(rng, 0.12):
        masks.append(stamp(rng, till.big, pick(rng, ("PAID", "POSTED", "COPY", "RECEIVED", date(rng)))))
    for mask in masks:
        left, top = (
            integer(rng, till.left, max(till.left, till.right - mask.shape[1])),
            integer(rng, 0, sheet.height - 20),
        )
        if happens(rng, 0.5):
            sheet.put(mask, left, top, between(rng, 0.6, 1))
        else:
            till.splashes.append(splash(sheet, mask, left, top, pen_colour(rng), between(rng, 0.6, 1)))
