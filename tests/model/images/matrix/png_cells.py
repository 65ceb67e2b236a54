"""PNG: every colour type and depth, interlaced or not, every filter, keys, alphas, orientation and broken checksums.

Paragraphs are those of the PNG specification, third edition.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import TURNS, Pixels, Samples, eight_bits, on_white, rgb, samples
from tests.pictures import exif, png_chunk, xmp

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
NAMES = {GRAY: "gray", RGB: "RGB", GRAY_ALPHA: "gray with alpha", RGB_ALPHA: "RGB with alpha"}
DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
FILTERS = {"no filter": (0,), "sub": (1,), "up": (2,), "average": (3,), "Paeth": (4,), "all filters": (4, 3, 2, 1, 0)}
# Where each pass of Adam7 begins, and its steps: x, y, dx, dy (8.1).
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
Chunk = tuple[bytes, bytes]
RAW_EXIF = exif(6).removeprefix(b"Exif\0\0")


def packed_rows(values: Samples, depth: int) -> list[bytes]:
    """The rows of `[h, w, channels]`, high bits first."""
    bits = (values.reshape(len(values), -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    return [row.tobytes() for row in packed]


def filtered(rows: list[bytes], pixel_bytes: int, kinds: tuple[int, ...]) -> bytes:
    """Rows behind their filter bytes; the kinds of filters take turns (9.2)."""
    above = np.zeros(len(rows[0]) + pixel_bytes, int)
    out = b""
    for index, row in enumerate(rows):
        here = np.concatenate([np.zeros(pixel_bytes, int), np.frombuffer(row, np.uint8)])
        a, b, c = here[:-pixel_bytes], above[pixel_bytes:], above[:-pixel_bytes]
        p = a + b - c
        paeth = np.where(
            (abs(p - a) <= abs(p - b)) & (abs(p - a) <= abs(p - c)), a, np.where(abs(p - b) <= abs(p - c), b, c)
        )
        kind = kinds[index % len(kinds)]
        predicted = (0 * a, a, b, (a + b) // 2, paeth)[kind]
        out += bytes([kind]) + ((here[pixel_bytes:] - predicted) % 256).astype(np.uint8).tobytes()
        above = here
    return out


def png(
    values: Samples,
    depth: int,
    colour: int,
    before: list[Chunk] | None = None,
    after: list[Chunk] | None = None,
    interlaced: bool = False,
    filters: tuple[int, ...] = (0,),
) -> bytes:
    """values: `[h, w, channels]` of `depth` bits; before, after: chunks around the pixels."""
    height, width, channels = values.shape
    pixel_bytes = max(1, depth * channels // 8)
    passes = [values[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [values]
    rows = b"".join(filtered(packed_rows(part, depth), pixel_bytes, filters) for part in passes if part.size)
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    chunks = [header, *(before or []), (b"IDAT", zlib.compress(rows)), *(after or []), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def seen(values: Samples, depth: int, colour: int) -> Pixels:
    """What is to be seen of samples without a key: alpha is reduced to 8 bits as colours are, then laid on white."""
    pixels = eight_bits(values, depth)
    if colour in (GRAY_ALPHA, RGB_ALPHA):
        return on_white(pixels[..., :-1], pixels[..., -1])
    return rgb(pixels)


def kinds() -> Iterator[Cell]:
    """Every colour type at every depth, with every filter."""
    for colour, name in NAMES.items():
        for depth in DEPTHS[colour]:
            values = samples(depth, CHANNELS[colour], seed=depth)
            for interlaced in (False, True):
                for filter_name, filters in FILTERS.items():
                    variant = f"{'interlaced, ' if interlaced else ''}{filter_name}"
                    data = png(values, depth, colour, interlaced=interlaced, filters=filters)
                    yield Cell("PNG", f"{name}, {depth} bits: {variant}", data, seen(values, depth, colour))


def keys() -> Iterator[Cell]:
    """One gray or colour is transparent (11.3.1.1): that very sample; bits of the key above the depth mean nothing."""
    for colour in (GRAY, RGB):
        for depth in DEPTHS[colour]:
            name = f"{NAMES[colour]}, {depth} bits, a colour is transparent"
            values = samples(depth, CHANNELS[colour], seed=depth)
            for key in key_choices(depth, CHANNELS[colour]):
                drawn = values.copy()
                drawn[2:5, 3:9] = key
                if depth == 16:  # colours that share all high bytes or all low bytes with the key
                    drawn[6:8, 3:9] = [sample ^ 0x0100 for sample in key]
                    drawn[8:9, 3:9] = [sample ^ 0x0001 for sample in key]
                want = seen(drawn, depth, colour).copy()
                want[(drawn == key).all(axis=-1)] = 255
                for high in sorted({0, 0xFFFF & ~(2**depth - 1)}):
                    chunk = struct.pack(f">{len(key)}H", *(sample | high for sample in key))
                    for interlaced in (False, True):
                        variant = f"key {key} with high bits {high:x}, {'interlaced' if interlaced else 'rows'}"
                        data = png(drawn, depth, colour, [(b"tRNS", chunk)], interlaced=interlaced)
                        yield Cell("PNG", f"{name}: {variant}", data, want)


def key_choices(depth: int, channels: int) -> list[tuple[int, ...]]:
    top = 2**depth - 1
    choices = [(0, 0, 0), (top, top, top), (top // 3, top // 2, top // 5), (top - 1, 0, top)]
    if depth == 16:
        choices += [(0x1200, 0x3400, 0x5600), (0x0012, 0x0034, 0x0056)]
    return sorted({choice[:channels] for choice in choices})


def palettes() -> Iterator[Cell]:
    """Palettes of full and short length; alphas for none, some and all of the colours."""
    for depth in (1, 2, 4, 8):
        for colours in {2**depth, max(2, 2**depth * 3 // 4)}:
            values = samples(16, 1, seed=depth) % colours
            palette = samples(8, 3, height=1, width=colours, seed=7)[0]
            for alphas in (b"", b"\0", b"\x80", bytes(range(0, 256, max(1, 256 // colours)))[:colours]):
                cover = np.frombuffer(alphas.ljust(colours, b"\xff"), np.uint8)
                want = on_white(palette[values[..., 0]].astype(np.uint8), cover[values[..., 0]])
                chunks = [(b"PLTE", palette.astype(np.uint8).tobytes())] + [(b"tRNS", alphas)] * bool(alphas)
                for interlaced in (False, True):
                    name = f"palette, {depth} bits{', with alphas' if alphas else ''}"
                    variant = f"{colours} colours, {len(alphas)} alphas {alphas[:1]!r}, interlaced {interlaced}"
                    data = png(values, depth, PALETTE, chunks, interlaced=interlaced)
                    yield Cell("PNG", f"{name}: {variant}", data, want)


def orientations() -> Iterator[Cell]:
    """Only eXIf turns a picture (11.3.4.5). It may stand before or behind the pixels."""
    values = samples(8, 3)
    stored = rgb(eight_bits(values, 8))
    for orientation, turn in TURNS.items():
        block = (b"eXIf", exif(orientation).removeprefix(b"Exif\0\0"))
        yield Cell("PNG", f"eXIf before the pixels: {orientation}", png(values, 8, RGB, [block]), turn(stored))
        # libvips does not look for it there; the specification allows it.
        late = png(values, 8, RGB, after=[block])
        yield Cell("PNG", f"eXIf behind the pixels: {orientation}", late, turn(stored), judged=False)
    profile = b"\nexif\n%8d\n" % len(exif(6)) + exif(6).hex().encode()
    texts = {
        "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)),
        "compressed XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))),
        "a raw profile of ImageMagick": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        "a text named exif": (b"tEXt", b"exif\0" + RAW_EXIF),
    }
    for name, chunk in texts.items():
        yield Cell("PNG", f"orientation in a text, which turns nothing: {name}", png(values, 8, RGB, [chunk]), stored)
        yield Cell(
            "PNG",
            f"orientation in a text, which turns nothing: {name} behind",
            png(values, 8, RGB, after=[chunk]),
            stored,
        )


def checksums() -> Iterator[Cell]:
    """A chunk whose checksum is wrong is left out if the picture can do without it (13.1), and refused otherwise."""
    values = samples(8, 3)
    values[2:5, 3:9] = 7
    stored = rgb(eight_bits(values, 8))
    ancillary = {
        b"tEXt": b"Comment\0made up",
        b"gAMA": struct.pack(">I", 100_000),
        b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
        b"tRNS": struct.pack(">HHH", 7, 7, 7),
        b"eXIf": RAW_EXIF,
        b"acTL": struct.pack(">II", 2, 0),
        b"fcTL": struct.pack(">IIIIIHHBB", 0, 21, 13, 0, 0, 1, 10, 0, 0),
        b"prVt": b"private",
        b"tIME": b"",
    }
    for kind, content in ancillary.items():
        for place in ("before", "behind"):
            chunks = [(kind, content)]
            data = png(values, 8, RGB, chunks) if place == "before" else png(values, 8, RGB, after=chunks)
            # libvips does not compare checksums. libpng leaves the chunk out.
            judged = kind not in (b"tRNS", b"eXIf")
            name = f"wrong checksum, not critical: {kind.decode()} {place}"
            yield Cell("PNG", name, broken(data, kind), stored, judged=judged)
    palette = png(samples(1, 1), 1, PALETTE, [(b"PLTE", bytes(6))])
    for kind, data in ((b"IHDR", png(values, 8, RGB)), (b"PLTE", palette)):  # libvips reads both
        yield Cell(
            "PNG",
            f"wrong checksum, critical: {kind.decode()}",
            broken(data, kind),
            None,
            "truncated, corrupt",
        )


def broken(data: bytes, kind: bytes) -> bytes:
    """A PNG in which the checksum of the first chunk of a kind is wrong."""
    at = data.index(kind)
    end = at + 4 + int.from_bytes(data[at - 4 : at])
    return data[:end] + bytes(byte ^ 0x55 for byte in data[end : end + 4]) + data[end + 4 :]


def animations() -> Iterator[Cell]:
    """The picture of IDAT is taken, be it the first frame of the animation or not."""
    values = samples(8, 3)
    stored = rgb(eight_bits(values, 8))

    def control(number: int, width: int, height: int, x: int, y: int) -> Chunk:
        return b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, x, y, 1, 10, 0, 0)

    part = samples(8, 3, height=5, width=6, seed=3)
    frame = b"".join(b"\0" + row for row in packed_rows(part, 8))
    plays = (b"acTL", struct.pack(">II", 2, 0))
    later = [control(1, 6, 5, 2, 3), (b"fdAT", struct.pack(">I", 2) + zlib.compress(frame))]
    first = png(values, 8, RGB, [plays, control(0, 21, 13, 0, 0)], later)
    apart = png(
        values,
        8,
        RGB,
        [(b"acTL", struct.pack(">II", 1, 0))],
        [control(0, 6, 5, 2, 3), (b"fdAT", struct.pack(">I", 1) + zlib.compress(frame))],
    )
    yield Cell("PNG", "animation: the picture is its first frame", first, stored)
    yield Cell("PNG", "animation: the picture is not part of it", apart, stored)


def layouts() -> Iterator[Cell]:
    """Pixels in many chunks, and bytes behind the end."""
    values = samples(8, 3)
    stored = rgb(eight_bits(values, 8))
    whole = png(values, 8, RGB)
    at = whole.index(b"IDAT")
    content = whole[at + 4 : at + 4 + int.from_bytes(whole[at - 4 : at])]
    pieces = [content[start : start + 50] for start in range(0, len(content), 50)]
    pieces.insert(1, b"")
    split = whole[: at - 4] + b"".join(png_chunk(b"IDAT", piece) for piece in pieces) + png_chunk(b"IEND", b"")
    yield Cell("PNG", "layout: pixels in many chunks, one of them empty", split, stored)
    yield Cell("PNG", "layout: bytes behind the end", whole + bytes(512), stored)


def cells() -> list[Cell]:
    return [*kinds(), *keys(), *palettes(), *orientations(), *checksums(), *animations(), *layouts()]
