"""AVIF: 8 to 12 bits, halved colour, alpha, gray, and the boxes that cut and turn a picture.

Boxes are those of ISO/IEC 23008-12 (HEIF) and 23000-22 (MIAF).
"""

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import TURNS, Pixels, on_white, rgb, smooth
from tests.pictures import exif, xmp

TOLERANCE = 4  # libavif converts colour in whole numbers
Box = tuple[bytes, bytes]


def avif(pixels: Pixels, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", **{"quality": 100, "subsampling": "4:4:4"} | options)
    return file.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_properties(data: bytes, *properties: Box) -> bytes:
    """An AVIF of one item, to which further properties belong, in this order. Each is essential."""
    boxes = b"".join(box(*one) for one in properties)
    ipco, ipma, iprp, meta = (data.index(kind) - 4 for kind in (b"ipco", b"ipma", b"iprp", b"meta"))
    count, at = 0, ipco + 8
    end = ipco + int.from_bytes(data[ipco : ipco + 4])
    while at < end:
        at, count = at + int.from_bytes(data[at : at + 4]), count + 1
    numbers = bytes(0x80 | (count + 1 + place) for place in range(len(properties)))
    # One entry: version and flags, one entry, item 1, count, numbers.
    owned = data[ipma + 18]
    assert data[ipma + 8 : ipma + 18] == bytes(4) + struct.pack(">IH", 1, 1)
    last = ipma + 19 + owned
    grown = data[:end] + boxes + data[end : ipma + 18] + bytes([owned + len(numbers)]) + data[ipma + 19 : last]
    whole = bytearray(grown + numbers + data[last:])
    added = len(boxes) + len(numbers)
    for place, by in ((meta, added), (iprp, added), (ipco, len(boxes)), (ipma + len(boxes), len(numbers))):
        whole[place : place + 4] = struct.pack(">I", int.from_bytes(whole[place : place + 4]) + by)
    iloc = whole.index(b"iloc")
    # Version 0, offsets and sizes of 4 bytes, one item in one extent.
    assert whole[iloc + 4 : iloc + 12] == bytes(4) + b"\x44\0\0\1"
    offset = iloc + 18
    whole[offset : offset + 4] = struct.pack(">I", int.from_bytes(whole[offset : offset + 4]) + added)
    return bytes(whole)


def clap(width: int, height: int, right: tuple[int, int] = (0, 1), down: tuple[int, int] = (0, 1)) -> Box:
    return b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, *right, *down)


def kinds() -> Iterator[Cell]:
    drawn = smooth(4)
    for bits in (8, 10, 12):
        for channels, name in ((1, "gray"), (2, "gray with alpha"), (3, "RGB"), (4, "RGB with alpha")):
            values = drawn[..., [3, 0] if channels == 2 else slice(channels)].astype(np.uint16)
            deep = values << (bits - 8) if bits > 8 else values.astype(np.uint8)
            data = bytes(imagecodecs.avif_encode(np.ascontiguousarray(deep.squeeze()), level=100, bitspersample=bits))
            seen = values.astype(np.uint8)
            want = rgb(seen) if channels in (1, 3) else on_white(seen[..., :-1], seen[..., -1])
            yield Cell("AVIF", f"{name}, {bits} bits", data, want, tolerance=TOLERANCE)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0"):
        for limits in ("full", "limited"):
            want = drawn[..., :3] if subsampling != "4:0:0" else rgb(drawn[..., 0])
            pixels = want if subsampling != "4:0:0" else drawn[..., 0]
            data = avif(pixels, subsampling=subsampling, range=limits)
            tolerance = TOLERANCE if subsampling in ("4:4:4", "4:0:0") else 12
            yield Cell("AVIF", f"{subsampling}: {limits} range", data, want, tolerance=tolerance)
    # Colour multiplied by its alpha: the association `prem` of MIAF 7.3.5.2.
    colour, alpha = drawn[..., :3], drawn[..., 3]
    data = avif(drawn, alpha_premultiplied=True)
    assert b"prem" in data
    yield Cell("AVIF", "premultiplied alpha", data, on_white(colour, alpha), tolerance=TOLERANCE)
    frames = [Image.fromarray(drawn[..., [2, 1, 0]])]
    data = avif(colour, save_all=True, append_images=frames)
    yield Cell("AVIF", "animation: its first frame", data, colour, tolerance=TOLERANCE)


def turned(pixels: Pixels, quarters: int, mirror: int | None) -> Pixels:
    """Turned anticlockwise, then mirrored: 0 exchanges top and bottom, 1 left and right (HEIF 6.5.10 and 6.5.12)."""
    upright = np.rot90(pixels, quarters)
    return upright if mirror is None else upright[::-1] if mirror == 0 else upright[:, ::-1]


def transformations() -> Iterator[Cell]:
    pixels = smooth(3)
    plain = avif(pixels)
    height, width, _ = pixels.shape
    for quarters in range(4):
        for mirror in (None, 0, 1):
            turns = [(b"irot", bytes([quarters]))] * bool(quarters)
            turns += [] if mirror is None else [(b"imir", bytes([mirror]))]
            want = turned(pixels, quarters, mirror)
            variant = f"{quarters} quarters, mirror {mirror}"
            yield Cell("AVIF", f"irot and imir: {variant}", with_properties(plain, *turns), want, tolerance=TOLERANCE)
            # First cut, then turned (MIAF 7.3.6.7).
            cut = clap(width - 5, height - 3, (1, 2), (-3, 2))
            part = pixels[: height - 3, 3 : width - 2]
            data = with_properties(plain, cut, *turns)
            name = f"clap, then irot and imir: {variant}"
            yield Cell("AVIF", name, data, turned(part, quarters, mirror), tolerance=TOLERANCE)
    for name, cut, part in (
        ("in the middle", clap(width - 4, height - 2), pixels[1:-1, 2:-2]),
        ("without the last column and row", clap(width - 1, height - 1, (-1, 2), (-1, 2)), pixels[:-1, :-1]),
        ("larger than the picture, which is impossible", clap(width + 2, height), pixels),
    ):
        # libvips refuses what is impossible.
        data = with_properties(plain, cut)
        yield Cell("AVIF", f"clap: {name}", data, part, tolerance=TOLERANCE, judged="impossible" not in name)


def metadata() -> Iterator[Cell]:
    """EXIF turns nothing: irot and imir alone do (MIAF 7.3.6.7)."""
    pixels = smooth(3)
    for orientation in TURNS:
        # Pillow takes the orientation out of the EXIF and writes irot and imir.
        data = avif(pixels, exif=exif(orientation))
        yield Cell("AVIF", f"written by Pillow: {orientation}", data, TURNS[orientation](pixels), tolerance=TOLERANCE)
    yield Cell("AVIF", "orientation in EXIF, which turns nothing", exif_alone(pixels), pixels, tolerance=TOLERANCE)
    yield Cell("AVIF", "orientation in XMP, which turns nothing", avif(pixels, xmp=xmp(6)), pixels, tolerance=TOLERANCE)


def exif_alone(pixels: Pixels) -> bytes:
    """An AVIF whose EXIF says 6 and which has no irot: a short tag is made that of the orientation."""
    block = Image.Exif()
    block[0x0213] = 6  # YCbCrPositioning, a short as well
    data = avif(pixels, exif=block)
    for order in ("<", ">"):
        data = data.replace(struct.pack(f"{order}HHI", 0x0213, 3, 1), struct.pack(f"{order}HHI", 0x0112, 3, 1))
    assert b"irot" not in data
    assert struct.pack("<HHI", 0x0112, 3, 1) in data or struct.pack(">HHI", 0x0112, 3, 1) in data
    return data


def cells() -> list[Cell]:
    return [*kinds(), *transformations(), *metadata()]
