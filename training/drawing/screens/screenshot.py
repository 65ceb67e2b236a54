"""Screenshots of desktops and phones: windows on a wallpaper, one app over all, or one between a phone's bars.

This module draws the frames, `apps` draws their contents, and `screen` has what both draw with.
"""

from collections.abc import Callable

from PIL import Image

from training.drawing.chance import Rng, happens, integer, pick
from training.drawing.palette import any_colour, mixed
from training.drawing.screens.apps import chat, editor, form, rows, site, terminal, tiles
from training.drawing.screens.screen import Box, Screen, any_screen
from training.drawing.words import clock


def draw_screenshot(rng: Rng) -> Image.Image:
    screen = any_screen(rng)
    width, height = screen.image.size
    bodies: tuple[Callable[[Screen, Box], None], ...] = (site, editor, terminal, chat, rows, tiles, form)
    if screen.phone:
        body = _phone_bars(screen)
        pick(rng, bodies, (3, 0, 0, 4, 4, 3, 2))(screen, body)
        return screen.image
    if happens(rng, 0.3):
        _desktop(screen)
        for _ in range(integer(rng, 1, 3)):
            left, top = integer(rng, 0, width // 2), integer(rng, 0, height // 2)
            box = (
                left,
                top,
                left + integer(rng, width // 3, width * 3 // 4),
                top + integer(rng, height // 3, height * 3 // 4),
            )
            pick(rng, bodies, (2, 2, 2, 1, 2, 1, 2))(screen, _window(screen, box))
        return screen.image
    body = _window(screen, (0, 0, width, height)) if happens(rng, 0.7) else (0, 0, width, height)
    pick(rng, bodies, (4, 3, 1, 2, 3, 3, 2))(screen, body)
    return screen.image


def _desktop(screen: Screen) -> None:
    """Draws a wallpaper, icons, and a task bar at an edge."""
    rng, (width, height) = screen.rng, screen.image.size
    if happens(rng, 0.6):
        screen.picture((0, 0, width, height))
    else:
        screen.pen.rectangle((0, 0, width, height), fill=any_colour(rng))
    for at in range(integer(rng, 0, 10)):
        screen.icon(14 + (at // 6) * 60, 14 + (at % 6) * 62, 30)
    top = pick(rng, (0, height - 28))
    screen.pen.rectangle((0, top, width, top + 28), fill=screen.panel)
    for at in range(integer(rng, 2, 9)):
        screen.icon(8 + at * 32, top + 4, 20)
    screen.text(clock(rng), width - 44, top + 6, 40)


def _window(screen: Screen, box: Box) -> Box:
    """Draws a frame with a title, and perhaps tabs and tools. Returns the box inside."""
    rng, (left, top, right, bottom) = screen.rng, box
    high = screen.face.height + 10
    screen.pen.rectangle((left + 5, top + 5, right + 5, bottom + 5), fill=mixed(screen.ground, (0, 0, 0), 0.4))
    screen.pen.rectangle(box, fill=screen.ground, outline=screen.faded(0.3))
    bar = screen.accent if happens(rng, 0.25) else screen.panel
    screen.pen.rectangle((left, top, right, top + high), fill=bar)
    buttons = ((236, 95, 86), (245, 190, 70), (97, 197, 84)) if happens(rng, 0.5) else (screen.ink,) * 3
    start = left + 8 if happens(rng, 0.5) else right - 54
    for at, colour in enumerate(buttons):
        screen.pen.ellipse((start + at * 16, top + high / 2 - 5, start + at * 16 + 9, top + high / 2 + 4), fill=colour)
    screen.text(screen.words.name(4), (left + right) // 2 - 50, top + 4, 160)
    top += high
    if happens(rng, 0.6):
        x = left + 8
        for _ in range(integer(rng, 3, 8)):
            x += screen.text(screen.words.name(1)[:9], x, top + 4, right - x) + 14
        top += high
    if happens(rng, 0.5):
        for at in range(integer(rng, 3, 12)):
            screen.icon(left + 8 + at * 26, top + 3, 18)
        screen.card((left + (right - left) // 2, top + 3, right - 8, top + 21), screen.ground, screen.faded(0.3))
        top += 26
    screen.pen.line((left, top, right, top), fill=screen.faded(0.2))
    return left, top + 1, right, bottom


def _phone_bars(screen: Screen) -> Box:
    """Draws a header with the clock and a title, and mostly a footer of icons. Returns the box between them."""
    rng, (width, height) = screen.rng, screen.image.size
    head = screen.accent if happens(rng, 0.5) else screen.panel
    high = screen.head.height
    screen.pen.rectangle((0, 0, width, high * 2 + 18), fill=head)
    screen.text(clock(rng), 12, 4, 80)
    screen.pen.rectangle((width - 40, 8, width - 14, 18), outline=screen.ink, fill=screen.faded(0.5))
    screen.text(screen.words.name(2), pick(rng, (14, width // 4)), high + 8, width - 60, face=screen.head)
    foot = height
    if happens(rng, 0.7):
        foot = height - 52
        screen.pen.rectangle((0, foot, width, height), fill=screen.panel)
        count = integer(rng, 3, 5)
        for at in range(count):
            screen.icon(round(width * (at + 0.5) / count) - 13, foot + 10, 26)
    return 0, high * 2 + 20, width, foot
