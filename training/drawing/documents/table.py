"""Tables and invoices: rows and columns of words and figures, with or without rules.

Knows nothing of how paper looks.
"""

from PIL import Image

from training.drawing.chance import Rng, between, happens, integer, log_between, pick, size_of
from training.drawing.glyphs import Face, any_face
from training.drawing.ink import Align, Sheet, emblem
from training.drawing.palette import vivid
from training.drawing.paper import Splash, scanned, splash
from training.drawing.words import TILL_WORDS, Vocabulary, code, date, number, price

_FILLINGS = ("name", "number", "price", "date", "code", "mark", "empty")


def draw_table(rng: Rng) -> Image.Image:
    aspect = log_between(rng, 0.6, 0.85) if happens(rng, 0.5) else log_between(rng, 0.8, 2.4)
    size = size_of(log_between(rng, 250_000, 440_000), aspect)
    sheet, words = Sheet(size), Vocabulary(rng, 40)
    em = round(log_between(rng, 9, 16))
    face = any_face(rng, em, family=pick(rng, ("sans", "serif", "mono", "typewriter"), (5, 3, 2, 2)))
    bold = Face(face.size, face.family, face.weight + 0.6, face.stretch, 0.0, face.spacing)
    top = round(size[1] * between(rng, 0.02, 0.08))
    splashes: list[Splash] = []
    if happens(rng, 0.7):
        top = _head(rng, sheet, words, face, top, splashes)
    for _ in range(pick(rng, (1, 2, 3), (5, 2, 1))):
        if top > size[1] * 0.8:
            break
        top = _table(rng, sheet, words, (face, bold), top, splashes) + round(em * between(rng, 1, 4))
    return scanned(rng, sheet, tuple(splashes))


def _head(rng: Rng, sheet: Sheet, words: Vocabulary, face: Face, top: int, splashes: list[Splash]) -> int:
    """Draws a title and the two blocks of an invoice below it. Returns the row where they end."""
    margin = round(sheet.width * between(rng, 0.03, 0.1))
    big = any_face(rng, round(face.size * between(rng, 1.3, 2.6)), bold=True)
    places: tuple[tuple[int, Align], ...] = (
        (margin, "left"),
        (sheet.width // 2, "centre"),
        (sheet.width - margin, "right"),
    )
    at, align = pick(rng, places)
    sheet.text(pick(rng, ("INVOICE", words.name(3), words.name(2))), big, at, top, align)
    if happens(rng, 0.4):
        side = round(face.size * between(rng, 2.5, 6))
        left = margin if align != "left" else sheet.width - margin - side
        splashes.append(splash(sheet, emblem(rng, side), left, top, vivid(rng)))
        top += side // 2
    top += round(big.height * 1.2)
    for _ in range(integer(rng, 0, 6)):
        sheet.text(words.name(4), face, margin, top)
        if happens(rng, 0.6):
            sheet.text(
                f"{words.name(1)}: {pick(rng, (date(rng), code(rng)))}", face, sheet.width - margin, top, "right"
            )
        top += round(face.size * 1.35)
    return top + face.size


def _table(
    rng: Rng, sheet: Sheet, words: Vocabulary, faces: tuple[Face, Face], top: int, splashes: list[Splash]
) -> int:
    """Draws a table from row `top` down. Returns the row where it ends."""
    face, bold = faces
    margin = round(sheet.width * between(rng, 0.02, 0.1))
    wide = sheet.width - 2 * margin
    step = round(face.height * between(rng, 1.0, 2.0))
    columns = max(2, min(integer(rng, 2, 9), wide // (face.size * 4)))
    rows = max(2, min(integer(rng, 3, 30), (sheet.height - top) // step - 1, 170 // columns))
    shares = rng.dirichlet([4.0] * columns) * 0.7 + 0.3 / columns
    shares[0] += between(rng, 0, 0.4)
    edges = [margin, *(margin + (wide * shares.cumsum() / shares.sum())).astype(int).tolist()]
    fillings = ["name", *(pick(rng, _FILLINGS, (2, 5, 4, 1, 1, 1, 1)) for _ in range(columns - 1))]
    _ground(rng, sheet, (margin, top, wide, step, rows), splashes)
    for column, filling in enumerate(fillings):
        left, right = edges[column] + 3, edges[column + 1] - 3
        title = pick(rng, (words.name(1), pick(rng, TILL_WORDS).capitalize()))
        figures = filling in ("number", "price")
        for row in range(rows):
            text = title if row == 0 else _cell(rng, words, filling)
            mask = (bold if row == 0 else face).line(text)[:, : max(0, right - left)]
            y = top + row * step + (step - face.height) // 2
            sheet.put(mask, right - mask.shape[1] if figures else left, y)
    _rules(rng, sheet, edges, top, step, rows)
    return top + rows * step


def _cell(rng: Rng, words: Vocabulary, filling: str) -> str:
    if filling == "name":
        return words.name(3)
    if filling == "number":
        return number(rng)
    if filling == "price":
        return price(rng, 5000)
    if filling == "date":
        return date(rng)
    if filling == "code":
        return code(rng)
    return pick(rng, ("", "x", "Yes", "No", "-")) if filling == "mark" else ""


def _ground(rng: Rng, sheet: Sheet, table: tuple[int, int, int, int, int], splashes: list[Splash]) -> None:
    """Tints the header or every other row.

    table: left, top, width, height of a row, number of rows.
    """
    left, top, wide, step, rows = table
    tint = between(rng, 0.06, 0.25)
    if happens(rng, 0.3):
        sheet.bar(left, top, wide, step, tint)
    if happens(rng, 0.25):
        for row in range(1, rows, 2):
            sheet.bar(left, top + row * step, wide, step, tint * 0.6)
    if happens(rng, 0.2):
        layer = Sheet((sheet.width, sheet.height))
        layer.bar(left, top, wide, step, 0.5)
        splashes.append(Splash(layer.ink, vivid(rng)))


def _rules(rng: Rng, sheet: Sheet, edges: list[int], top: int, step: int, rows: int) -> None:
    """Draws a full grid, rows only, columns only, rules of the header and the end, or none."""
    way = pick(rng, ("grid", "rows", "columns", "head", "none"), (4, 3, 1, 3, 1))
    strength, thick = between(rng, 0.3, 1), pick(rng, (1, 1, 1, 2))
    left, wide = edges[0], edges[-1] - edges[0]
    if way in ("grid", "rows"):
        for row in range(rows + 1):
            sheet.bar(left, top + row * step, wide, thick, strength)
    if way in ("grid", "columns"):
        for edge in edges:
            sheet.bar(edge, top, thick, rows * step, strength)
    if way == "head":
        for row in (0, 1, rows):
            sheet.bar(left, top + row * step, wide, thick + 1, strength)
