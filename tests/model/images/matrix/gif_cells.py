"""GIF: palettes of every size, local and global, interlaced or not, a transparent colour, and small first frames.

Paragraphs are those of the GIF89a specification.
"""

import struct
from collections.abc import Iterator

import numpy as np

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import HEIGHT, WIDTH, Pixels, Samples, rgb, samples


def blocks(content: bytes) -> bytes:
    pieces = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def coded(values: Samples, bits: int) -> bytes:
    """LZW that clears its table before a code could grow (appendix F)."""
    least = max(2, bits)
    codes: list[int] = []
    for place, value in enumerate(values.ravel().tolist()):
        if place % (2**least - 2) == 0:
            codes.append(2**least)
        codes.append(value)
    codes.append(2**least + 1)
    stream = sum(code << place * (least + 1) for place, code in enumerate(codes))
    return bytes([least]) + blocks(stream.to_bytes(-(-len(codes) * (least + 1) // 8), "little"))


def table(palette: Samples, bits: int) -> bytes:
    return palette.astype(np.uint8).tobytes().ljust(3 * 2**bits, b"\0")


def frame(
    values: Samples,
    bits: int,
    *,
    place: tuple[int, int] = (0, 0),
    local: Samples | None = None,
    interlaced: bool = False,
) -> bytes:
    """An image `[h, w]`; place: its top and left in the canvas."""
    height, width = values.shape
    if interlaced:  # appendix E
        values = np.concatenate([values[0::8], values[4::8], values[2::4], values[1::2]])
    flags = interlaced << 6 | (0 if local is None else 0x80 | (bits - 1))
    start = struct.pack("<BHHHHB", 0x2C, place[1], place[0], width, height, flags)
    return start + (b"" if local is None else table(local, bits)) + coded(values, bits)


def control(*, transparent: int | None = None, disposal: int = 0) -> bytes:
    return struct.pack("<BBBBHBB", 0x21, 0xF9, 4, disposal << 2 | (transparent is not None), 10, transparent or 0, 0)


def gif(
    *parts: bytes,
    bits: int,
    palette: Samples | None,
    background: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    version: bytes = b"89a",
) -> bytes:
    flags = 0x70 | (0 if palette is None else 0x80 | (bits - 1))
    screen = struct.pack("<HHBBB", size[1], size[0], flags, background, 0)
    return b"GIF" + version + screen + (b"" if palette is None else table(palette, bits)) + b"".join(parts) + b";"


def kinds() -> Iterator[Cell]:
    for bits in range(1, 9):
        values = samples(bits, 1, seed=bits)[..., 0]
        palette, other = (samples(8, 3, height=1, width=2**bits, seed=seed)[0] for seed in (5, 6))
        for where in ("global", "local", "both"):
            chosen = palette if where == "global" else other
            seen: Pixels = rgb(chosen[values].astype(np.uint8))
            for interlaced in (False, True):
                for transparent in (None, 0, 2**bits - 1):
                    want = seen.copy()
                    want[values == transparent] = 255
                    parts = (b"" if transparent is None else control(transparent=transparent)) + frame(
                        values, bits, local=None if where == "global" else other, interlaced=interlaced
                    )
                    data = gif(parts, bits=bits, palette=None if where == "local" else palette)
                    key = "" if transparent is None else ", one transparent"
                    variant = f"{where} palette, interlaced {interlaced}, transparent {transparent}"
                    yield Cell("GIF", f"palette of {2**bits} colours{key}: {variant}", data, want)
    values = samples(4, 1)[..., 0]
    palette = samples(8, 3, height=1, width=16, seed=5)[0]
    old = gif(frame(values, 4), bits=4, palette=palette, version=b"87a")
    yield Cell("GIF", "version 87a", old, rgb(palette[values].astype(np.uint8)))


def canvases() -> Iterator[Cell]:
    """What the first frame leaves uncovered is transparent, whatever the background colour: as in browsers."""
    palette = samples(8, 3, height=1, width=16, seed=5)[0]
    part = samples(4, 1, height=6, width=9, seed=3)[..., 0]
    small = rgb(palette[part].astype(np.uint8))
    for top, left in ((0, 0), (2, 5), (HEIGHT - 6, WIDTH - 9)):
        for background in (0, 7):
            for transparent in (None, 3):
                want = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
                shown = small.copy()
                shown[part == transparent] = 255
                want[top : top + 6, left : left + 9] = shown
                parts = control(transparent=transparent, disposal=2) + frame(part, 4, place=(top, left))
                later = control() + frame(samples(4, 1, seed=8)[..., 0], 4)
                for name, following in (("a still", b""), ("an animation", later)):
                    data = gif(parts, following, bits=4, palette=palette, background=background)
                    variant = f"{name}, at {top}, {left}, background {background}, transparent {transparent}"
                    # libvips paints the rest black.
                    yield Cell("GIF", f"first frame smaller than the canvas: {variant}", data, want, judged=False)
    values = samples(4, 1)[..., 0]
    data = gif(frame(values, 4), bits=4, palette=palette, size=(5, 4))
    yield Cell("GIF", "first frame larger than the canvas, which grows", data, rgb(palette[values].astype(np.uint8)))


def animations() -> Iterator[Cell]:
    palette = samples(8, 3, height=1, width=16, seed=5)[0]
    first, second = (samples(4, 1, seed=seed)[..., 0] for seed in (1, 2))
    data = gif(control(), frame(first, 4), control(), frame(second, 4), bits=4, palette=palette)
    yield Cell("GIF", "animation: its first frame", data, rgb(palette[first].astype(np.uint8)))
    comment = b"!\xfe" + blocks(b"a comment") + b"!\xff" + bytes([11]) + b"NETSCAPE2.0" + blocks(b"\1\0\0")
    data = gif(comment, frame(first, 4), bits=4, palette=palette)
    yield Cell("GIF", "comments and extensions before the picture", data, rgb(palette[first].astype(np.uint8)))


def cells() -> list[Cell]:
    return [*kinds(), *canvases(), *animations()]
