"""WebP: lossless and lossy, alpha, animations whose first frame is small, and orientation.

Chunks are those of RFC 9649.
"""

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import HEIGHT, TURNS, WIDTH, Pixels, eight_bits, on_white, samples, smooth
from tests.pictures import exif, xmp

ANIMATION, ALPHA = 0x02, 0x10


def webp(pixels: Pixels, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def picture_chunks(data: bytes) -> bytes:
    """ALPH and VP8, or VP8L, of a still."""
    at = 12
    out = b""
    while at < len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"ALPH", b"VP8 ", b"VP8L"):
            out += chunk(kind, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return out


def animation(first: bytes, size: tuple[int, int], place: tuple[int, int], flags: int, background: bytes) -> bytes:
    """An animation whose first frame is a still at a place of even numbers, and whose second covers the canvas."""
    whole = webp(eight_bits(samples(8, 3, seed=8), 8), lossless=True)

    def frame(still: bytes, size: tuple[int, int], place: tuple[int, int]) -> bytes:
        where = three(place[1] // 2) + three(place[0] // 2) + three(size[1] - 1) + three(size[0] - 1)
        return chunk(b"ANMF", where + three(100) + bytes([2]) + picture_chunks(still))

    head = chunk(b"VP8X", bytes([flags | ANIMATION, 0, 0, 0]) + three(WIDTH - 1) + three(HEIGHT - 1))
    body = (
        head + chunk(b"ANIM", background + b"\0\0") + frame(first, size, place) + frame(whole, (HEIGHT, WIDTH), (0, 0))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def stills() -> Iterator[Cell]:
    colour = eight_bits(samples(8, 3), 8)
    alpha = eight_bits(samples(8, 1, seed=4), 8)
    yield Cell("WebP", "lossless", webp(colour, lossless=True), colour)
    both = np.dstack([colour, alpha])
    yield Cell("WebP", "lossless with alpha", webp(both, lossless=True, exact=True), on_white(colour, alpha[..., 0]))
    few = colour[:1, :16].reshape(-1, 3)[samples(4, 1)[..., 0]]
    yield Cell("WebP", "lossless: 16 colours", webp(few, lossless=True), few)
    gray = np.repeat(eight_bits(samples(8, 1), 8), 3, axis=-1)
    yield Cell("WebP", "lossless: gray", webp(gray, lossless=True), gray)
    drawn = smooth(4)
    yield Cell("WebP", "lossy", webp(drawn[..., :3], quality=95), drawn[..., :3], tolerance=14)
    for quality in (0, 100):
        data = webp(drawn, quality=95, alpha_quality=100, method=quality // 20)
        want = on_white(drawn[..., :3], drawn[..., 3])
        yield Cell("WebP", f"lossy with alpha: method {quality // 20}", data, want, tolerance=14)


def animations() -> Iterator[Cell]:
    """What the first frame leaves uncovered is transparent, whatever the background colour."""
    part = eight_bits(samples(8, 3, height=6, width=8, seed=3), 8)
    alpha = eight_bits(samples(8, 1, height=6, width=8, seed=4), 8)
    opaque = webp(part, lossless=True)
    covered = webp(np.dstack([part, alpha]), lossless=True, exact=True)
    for top, left in ((0, 0), (2, 4)):
        for background in (b"\0\0\0\0", b"\x10\x80\xf0\xff"):
            for name, first, shown, flags in (
                ("opaque", opaque, part, 0),
                ("opaque in a file with alpha", opaque, part, ALPHA),
                ("with alpha", covered, on_white(part, alpha[..., 0]), ALPHA),
            ):
                want = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
                want[top : top + 6, left : left + 8] = shown
                data = animation(first, (6, 8), (top, left), flags, background)
                variant = f"{name}, at {top}, {left}, background {background.hex()}"
                # libvips paints the rest in the background colour, or black.
                yield Cell("WebP", f"first frame smaller than the canvas: {variant}", data, want, judged=False)
    colour = eight_bits(samples(8, 3, seed=5), 8)
    data = animation(webp(colour, lossless=True), (HEIGHT, WIDTH), (0, 0), 0, b"\0\0\0\0")
    yield Cell("WebP", "animation: its first frame", data, colour)


def orientations() -> Iterator[Cell]:
    colour = eight_bits(samples(8, 3), 8)
    for orientation, turn in TURNS.items():
        data = webp(colour, lossless=True, exif=exif(orientation))
        yield Cell("WebP", f"orientation in EXIF: {orientation}", data, turn(colour))
    yield Cell("WebP", "orientation in XMP, which turns nothing", webp(colour, lossless=True, xmp=xmp(6)), colour)
    data = webp(colour, lossless=True, exif=exif(3), xmp=xmp(6))
    yield Cell("WebP", "orientation in EXIF: 3, and another in XMP", data, TURNS[3](colour))


def cells() -> list[Cell]:
    return [*stills(), *animations(), *orientations()]
