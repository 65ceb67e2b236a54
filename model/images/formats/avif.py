"""The clean aperture of an AVIF: the part of its pixels that is to be seen, which Pillow does not cut out.

Encoders that need even sides store one more column or row, and cut it off so. Boxes are those of ISO/IEC 14496-12 and
23008-12. AVIFs are read in a process of their own, which bounds what a hostile file makes this module do.
"""

from collections.abc import Iterator
from fractions import Fraction

from PIL import Image, ImageFile

Rectangle = tuple[int, int, int, int]


def decoded(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """The visible part of the picture, not yet turned."""
    image.load()
    box = aperture(data, image.size)
    return image if box == (0, 0, *image.size) else image.crop(box)


def aperture(data: bytes, size: tuple[int, int]) -> Rectangle:
    """Left, top, right and bottom of the visible part of a picture of `(width, height)` pixels.

    All of it if the file says nothing, or what is impossible.
    """
    width, height = size
    try:
        place = next(_apertures(data), None)
        if place is None:
            return 0, 0, width, height
        values = [int.from_bytes(data[at : at + 4], signed=True) for at in range(place, place + 32, 4)]
        wide, high, right, down = (Fraction(*values[at : at + 2]) for at in range(0, 8, 2))
    except (IndexError, ZeroDivisionError):
        return 0, 0, width, height
    x, y = (width - wide) / 2 + right, (height - high) / 2 + down
    whole = all(edge.denominator == 1 for edge in (x, y, wide, high))
    if not whole or not (0 <= x < x + wide <= width and 0 <= y < y + high <= height):
        return 0, 0, width, height
    return int(x), int(y), int(x + wide), int(y + high)


def _apertures(data: bytes) -> Iterator[int]:
    """Where the content of the clean apertures of the primary item begins."""
    meta = next(((at + 4, end) for kind, at, end in _boxes(data, 0, len(data)) if kind == b"meta"), (0, 0))
    boxes = {kind: (at, end) for kind, at, end in _boxes(data, *meta)}
    if b"pitm" not in boxes or b"iprp" not in boxes:
        return
    at, _ = boxes[b"pitm"]
    primary = int.from_bytes(data[at + 4 : at + (8 if data[at] else 6)])
    properties: list[tuple[bytes, int]] = []
    for kind, at, end in _boxes(data, *boxes[b"iprp"]):
        if kind == b"ipco":
            properties = [(kind, at) for kind, at, _ in _boxes(data, at, end)]
        elif kind == b"ipma":
            for number in _owned(data, at, primary):
                if 0 < number <= len(properties) and properties[number - 1][0] == b"clap":
                    yield properties[number - 1][1]


def _owned(data: bytes, at: int, item: int) -> list[int]:
    """The numbers of an item's properties, counted from 1, in a box that begins at `at`."""
    id_bytes, number_bytes = (4 if data[at] else 2), (2 if data[at + 3] & 1 else 1)
    entries, at = int.from_bytes(data[at + 4 : at + 8]), at + 8
    for _ in range(entries):
        owner, count = int.from_bytes(data[at : at + id_bytes]), data[at + id_bytes]
        at += id_bytes + 1
        if owner == item:
            essential = 0x80 << 8 * (number_bytes - 1)
            starts = range(at, at + count * number_bytes, number_bytes)
            return [int.from_bytes(data[start : start + number_bytes]) & ~essential for start in starts]
        at += count * number_bytes
    return []


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and where its content begins and ends."""
    while at + 8 <= end:
        size, content = int.from_bytes(data[at : at + 4]), at + 8
        if size == 1:
            size, content = int.from_bytes(data[at + 8 : at + 16]), at + 16
        stop = at + size if size else end
        if stop < content:
            return
        yield data[at + 4 : at + 8], content, min(stop, end)
        at = stop
