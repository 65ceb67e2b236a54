"""A screen while it is drawn: its theme, and what all screens share: text, cards, icons, pictures.

Knows nothing of windows or of what they show.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from training.drawing.chance import Rng, Size, between, happens, integer, log_between, pick, size_of
from training.drawing.glyphs import Face, any_face
from training.drawing.ink import emblem
from training.drawing.noise import natural_tile, painted, window
from training.drawing.palette import Colour, hsv, make_palette, mixed, vivid
from training.drawing.words import Vocabulary

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""


@dataclass
class Screen:
    """A screen while it is drawn, and the theme of everything on it.

    rng: makes all random choices here. image: RGB, painted in place, also by `pen`.
    face, head: of plain text, and of headings. words: of all text.
    ground, panel: the colours of the screen, and of bars, cards and columns on it. ink: the colour of text.
    accent, accents: the colour of what stands out, and those of icons and the like.
    corner: the radius of a card's corners in pixels. phone: whether it is a phone's screen, otherwise a desktop's.
    """

    rng: Rng
    image: Image.Image
    pen: ImageDraw.ImageDraw
    face: Face
    head: Face
    ground: Colour
    panel: Colour
    ink: Colour
    accent: Colour
    words: Vocabulary
    corner: int
    phone: bool
    accents: list[Colour]

    def text(self, text: str, x: int, y: int, room: int, colour: Colour | None = None, face: Face | None = None) -> int:
        """Draws a line of text, cut off after `room` pixels. Returns its width."""
        line = (face or self.face).line(text)[:, : max(0, room)]
        if line.shape[1]:
            self.image.paste(colour or self.ink, (x, y), Image.fromarray(np.ascontiguousarray(line)))
        return int(line.shape[1])

    def card(self, box: Box, fill: Colour | None, outline: Colour | None = None) -> None:
        left, top, right, bottom = box
        if right > left and bottom > top:
            self.pen.rounded_rectangle(box, min(self.corner, (right - left) // 2, (bottom - top) // 2), fill, outline)

    def faded(self, share: float = 0.5) -> Colour:
        return mixed(self.ground, self.ink, share)

    def icon(self, left: int, top: int, side: int) -> None:
        """Draws a square with a mark, or the mark alone. A small square has no mark."""
        if happens(self.rng, 0.6):
            self.card((left, top, left + side, top + side), pick(self.rng, self.accents))
        if side > 12:
            mark = Image.fromarray(emblem(self.rng, side * 2 // 3))
            self.image.paste(pick(self.rng, (self.ink, (255, 255, 255))), (left + side // 6, top + side // 6), mark)

    def picture(self, box: Box) -> None:
        """Draws a stand-in for a photograph: noise in its own colours, with up to four disks on it."""
        size: Size = (max(4, box[2] - box[0]), max(4, box[3] - box[1]))
        palette = make_palette(self.rng)
        small = (size[0] // 2 + 1, size[1] // 2 + 1)
        image = painted(self.rng, window(self.rng, natural_tile(self.rng), small), palette[:: integer(self.rng, 1, 3)])
        pen = ImageDraw.Draw(image)
        for _ in range(integer(self.rng, 0, 4)):
            x, y = between(self.rng, 0, small[0]), between(self.rng, 0, small[1])
            radius = between(self.rng, 0.05, 0.4) * min(small)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=pick(self.rng, palette))
        self.image.paste(image.resize(size, Image.Resampling.BILINEAR), box[:2])


def any_screen(rng: Rng) -> Screen:
    """Returns an empty screen of a phone or a desktop, light or dark."""
    phone = happens(rng, 0.3)
    aspect = (
        1 / log_between(rng, 16 / 9, 20 / 9) if phone else pick(rng, (4 / 3, 16 / 10, 16 / 9, log_between(rng, 1, 2.4)))
    )
    size = size_of(log_between(rng, 250_000, 440_000), aspect)
    hue, dark = between(rng, 0, 1), happens(rng, 0.4)
    ground = (
        hsv(hue, between(rng, 0, 0.35), between(rng, 0.05, 0.22))
        if dark
        else hsv(hue, between(rng, 0, 0.06), between(rng, 0.93, 1))
    )
    ink = hsv(hue, 0.04, between(rng, 0.8, 1)) if dark else hsv(hue, 0.3, between(rng, 0.05, 0.3))
    panel = mixed(ground, ink, between(rng, 0.03, 0.12))
    image = Image.new("RGB", size, ground)
    em = round(log_between(rng, 9, 14) * (1.25 if phone else 1))
    face = any_face(rng, em, family="sans")
    head = any_face(rng, round(em * between(rng, 1.2, 1.9)), family="sans", bold=True)
    return Screen(
        rng=rng,
        image=image,
        pen=ImageDraw.Draw(image),
        face=face,
        head=head,
        ground=ground,
        panel=panel,
        ink=ink,
        accent=vivid(rng),
        words=Vocabulary(rng),
        corner=integer(rng, 0, 14),
        phone=phone,
        accents=[vivid(rng) for _ in range(5)],
    )
