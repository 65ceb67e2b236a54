"""Contents of a window or a phone's screen: a site, an editor, a terminal, a chat, rows, tiles or a form.

Each function takes the screen and the box that it may fill. Knows nothing of frames, bars or desktops.
"""

from training.drawing.chance import between, happens, integer, pick
from training.drawing.glyphs import any_face
from training.drawing.palette import Colour, mixed
from training.drawing.screens.screen import Box, Screen
from training.drawing.words import clock, number


def site(screen: Screen, box: Box) -> None:
    """Draws a banner, then headings, text and pictures, with or without a column beside them."""
    rng, (left, top, right, bottom) = screen.rng, box
    pad = integer(rng, 8, 40)
    if happens(rng, 0.6):
        high = round((bottom - top) * between(rng, 0.1, 0.4))
        if happens(rng, 0.6):
            screen.picture((left, top, right, top + high))
        else:
            screen.pen.rectangle((left, top, right, top + high), fill=screen.accent)
        screen.text(screen.words.name(4), left + pad, top + high // 3, right - left - pad, (255, 255, 255), screen.head)
        top += high + 10
    side = left + round((right - left) * (between(rng, 0.6, 0.8) if happens(rng, 0.5) and not screen.phone else 1))
    y = top
    while y < bottom - screen.head.height:
        way = pick(rng, ("text", "head", "picture", "button"), (4, 2, 2, 1))
        if way == "text":
            y = _paragraph(screen, (left + pad, y, side - pad, bottom), integer(rng, 1, 7)) + 8
        elif way == "head":
            screen.text(screen.words.name(5), left + pad, y, side - left - 2 * pad, face=screen.head)
            y += screen.head.height + 6
        elif way == "picture" and bottom - y > 60:
            high = integer(rng, 40, max(41, min(bottom - y, 220)))
            screen.picture((left + pad, y, side - pad, min(bottom, y + high)))
            y += high + 10
        else:
            screen.card((left + pad, y, left + pad + 90, y + screen.face.height + 8), screen.accent)
            screen.text(screen.words.name(1), left + pad + 12, y + 4, 70, (255, 255, 255))
            y += screen.face.height + 18
    if side < right - 40:
        screen.pen.rectangle((side, top, right, bottom), fill=screen.panel)
        for _ in range(integer(rng, 1, 5)):
            screen.text(screen.words.name(2), side + 8, top + 4, right - side - 12, screen.accent)
            top = (
                _paragraph(screen, (side + 8, top + screen.face.height + 6, right - 8, bottom), integer(rng, 1, 5)) + 8
            )


def _paragraph(screen: Screen, box: Box, lines: int, colour: Colour | None = None) -> int:
    """Draws lines of text as wide as the box. Returns the row where they end."""
    left, top, right, bottom = box
    step = round(screen.face.height * between(screen.rng, 1.0, 1.4))
    per_line = max(2, (right - left) // max(1, screen.face.width("n")))
    for at in range(lines):
        if top + step > bottom:
            break
        share = between(screen.rng, 0.2, 0.9) if at == lines - 1 else 0.95
        screen.text(screen.words.text(round(per_line * share)), left, top, right - left, colour)
        top += step
    return top


def editor(screen: Screen, box: Box) -> None:
    """Draws indented code in several colours, with line numbers and perhaps a tree of files."""
    rng, (left, top, right, bottom) = screen.rng, box
    face = any_face(rng, screen.face.size, family=pick(rng, ("mono", "typewriter"), (3, 1)))
    step = round(face.height * between(rng, 1.0, 1.25))
    if happens(rng, 0.5):
        edge = left + round((right - left) * between(rng, 0.12, 0.25))
        screen.pen.rectangle((left, top, edge, bottom), fill=screen.panel)
        for at in range(min(24, (bottom - top) // step)):
            screen.text(screen.words.word(), left + 8 + 10 * integer(rng, 0, 2), top + at * step, edge - left - 20)
        left = edge
    colours = [mixed(colour, screen.ink, 0.35) for colour in screen.accents] + [screen.ink, screen.ink]
    depth, unit = 0, face.width("n")
    for at in range(min(45, (bottom - top) // step)):
        y = top + at * step
        screen.text(str(at + 1), left + 4, y, 26, screen.faded(0.4), face)
        depth = min(5, max(0, depth + pick(rng, (-1, 0, 0, 1))))
        x = left + 36 + depth * unit * 4
        if happens(rng, 0.12):
            continue
        for _ in range(integer(rng, 1, 4)):
            token = pick(
                rng, (screen.words.word(), f"{screen.words.word()}({screen.words.word()})", number(rng), "= ", "{")
            )
            if x < right:
                x += screen.text(token, x, y, right - x, pick(rng, colours), face) + unit


def terminal(screen: Screen, box: Box) -> None:
    """Draws commands after prompts, their output, and empty lines, on a ground of its own."""
    rng, (left, top, right, bottom) = screen.rng, box
    ground = pick(rng, ((0, 0, 0), (12, 12, 30), (48, 10, 36), (253, 246, 227)))
    screen.pen.rectangle(box, fill=ground)
    ink = pick(rng, ((200, 200, 200), (80, 220, 100))) if ground[0] < 128 else (60, 70, 80)
    face = any_face(rng, screen.face.size, family=pick(rng, ("mono", "typewriter")))
    room = (right - left) // max(1, face.width("n"))
    for y in range(top + 4, bottom - face.height, face.height)[: integer(rng, 4, 50)]:
        if happens(rng, 0.25):
            x = left + 6 + screen.text(f"{screen.words.word()}:~$ ", left + 6, y, right - left, screen.accent, face)
            screen.text(screen.words.text(12), x, y, right - x, ink, face)
        elif happens(rng, 0.85):
            screen.text(screen.words.text(integer(rng, 4, max(5, room - 4))), left + 6, y, right - left - 8, ink, face)


def chat(screen: Screen, box: Box) -> None:
    """Draws speech bubbles: one's own at the right, and others' at the left, each with a disk for a face."""
    rng, (left, top, right, bottom) = screen.rng, box
    wide, y = right - left, top + 8
    mine, theirs = screen.accent, screen.panel
    while y < bottom - 30:
        own, lines = happens(rng, 0.5), integer(rng, 1, 5)
        room = round(wide * between(rng, 0.25, 0.7))
        x = right - room - 12 if own else left + 44
        high = lines * round(screen.face.height * 1.4) + 8
        screen.card((x, y, x + room, min(bottom, y + high)), mine if own else theirs)
        if not own:
            screen.pen.ellipse((left + 8, y, left + 36, y + 28), fill=pick(rng, screen.accents))
        _paragraph(screen, (x + 8, y + 4, x + room - 8, bottom), lines, (255, 255, 255) if own else None)
        y += high + integer(rng, 5, 22)


def rows(screen: Screen, box: Box) -> None:
    """Draws rows with an icon or a picture, a title, a line below it, and a short text at the right."""
    rng, (left, top, right, bottom) = screen.rng, box
    high = integer(rng, screen.face.height + 8, screen.face.height * 2 + 36)
    disks, pictures, striped = happens(rng, 0.5), happens(rng, 0.25) and high > 45, happens(rng, 0.3)
    for at, y in enumerate(range(top, bottom - high // 2, high)[:22]):
        if striped and at % 2:
            screen.pen.rectangle((left, y, right, min(bottom, y + high)), fill=screen.panel)
        side = high - 12
        if pictures:
            screen.picture((left + 8, y + 6, left + 8 + side, y + 6 + side))
        elif disks:
            screen.pen.ellipse((left + 8, y + 6, left + 8 + side, y + 6 + side), fill=pick(rng, screen.accents))
        else:
            screen.icon(left + 8, y + 6, side)
        x = left + side + 20
        screen.text(screen.words.name(4), x, y + 3, right - x - 60)
        if high > screen.face.height * 2:
            screen.text(
                screen.words.text(integer(rng, 10, 60)), x, y + 5 + screen.face.height, right - x - 60, screen.faded()
            )
        screen.text(pick(rng, (clock(rng), number(rng)[:7], ">")), right - 54, y + 4, 50, screen.faded())
        screen.pen.line((left, y + high, right, y + high), fill=screen.faded(0.15))


def tiles(screen: Screen, box: Box) -> None:
    """Draws the cards of a shop or a gallery, or the numbers of a dashboard."""
    rng, (left, top, right, bottom) = screen.rng, box
    columns, gap = integer(rng, 2, 3) if screen.phone else integer(rng, 2, 6), integer(rng, 4, 18)
    wide = (right - left - gap) // columns - gap
    high = round(wide * between(rng, 0.6, 1.5))
    numbers = happens(rng, 0.3)
    for at in range(columns * min(5, (bottom - top) // (high + gap) + 1)):
        x, y = left + gap + at % columns * (wide + gap), top + gap + at // columns * (high + gap)
        foot = min(bottom, y + high)
        if foot - y < 40:
            break
        screen.card((x, y, x + wide, foot), screen.panel, screen.faded(0.2))
        if numbers:
            screen.text(number(rng), x + 10, y + 10, wide - 12, pick(rng, screen.accents), screen.head)
            screen.text(screen.words.name(2), x + 10, y + 14 + screen.head.height, wide - 12, screen.faded())
            continue
        split = y + round((foot - y) * 0.65)
        screen.picture((x + 2, y + 2, x + wide - 2, split))
        screen.text(screen.words.name(3), x + 6, split + 4, wide - 8)
        screen.text(number(rng), x + 6, split + 4 + screen.face.height, wide - 8, screen.accent)


def form(screen: Screen, box: Box) -> None:
    """Draws labels, fields, tick boxes and buttons."""
    rng, (left, top, right, bottom) = screen.rng, box
    pad, step = integer(rng, 10, 60), screen.face.height + integer(rng, 8, 22)
    screen.text(screen.words.name(4), left + pad, top + 8, right - left - pad, face=screen.head)
    split = left + pad + round((right - left) * between(rng, 0.15, 0.35))
    for y in range(top + screen.head.height + 18, bottom - step, step)[: integer(rng, 3, 18)]:
        screen.text(screen.words.name(2), left + pad, y, split - left - pad - 4)
        if happens(rng, 0.6):
            screen.card((split, y - 2, right - pad, y + screen.face.height + 2), screen.panel, screen.faded(0.35))
            screen.text(screen.words.name(3), split + 6, y, right - pad - split - 8, screen.faded(0.8))
        elif happens(rng, 0.5):
            screen.pen.rectangle(
                (split, y, split + 12, y + 12), outline=screen.ink, fill=pick(rng, (None, screen.accent))
            )
            screen.text(screen.words.text(20), split + 20, y, right - split - 24)
        else:
            screen.card((split, y - 2, split + 84, y + screen.face.height + 2), pick(rng, screen.accents))
            screen.text(screen.words.name(1), split + 10, y, 70, (255, 255, 255))
