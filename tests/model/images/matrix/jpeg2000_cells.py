"""JPEG 2000: every depth and sign, raw codestreams, and files whose boxes say what the components mean.

Paragraphs are those of ISO/IEC 15444-1. imagecodecs and Pillow write the codestreams, losslessly; the boxes are written
here. The wanted picture comes from the drawn samples.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import product

import imagecodecs
import numpy as np
from PIL import Image

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import Pixels, Samples, eight_bits, on_white, rgb, samples, smooth

SRGB, GRAY, SYCC, CMYK = 16, 17, 18, 12  # EnumCS
NAMES = {1: "gray", 2: "gray and alpha", 3: "RGB", 4: "RGB and alpha"}
COLOUR, OPACITY, PREMULTIPLIED, UNSPECIFIED = 0, 1, 2, 65535  # types of channels

# The judge is Pillow, which reads other depths wrongly: it shifts fewer bits up, so that white is not 255, and rounds
# more bits, so that white becomes 0 (annex G.1.2 gives the range). It takes no notice of cdef, of the order of cmap's
# columns and of a profile's space.
_NOT_IN_PILLOW = ("order of channels", "a channel of no meaning", "premultiplied alpha", "palette", "CMYK")


def codestream(values: Samples, bits: int, *, signed: bool = False) -> bytes:
    """A lossless codestream of samples `[h, w, components]`, that begin at 0 even if they are stored with a sign."""
    stored = (values - (1 << bits - 1) * signed).astype(("i" if signed else "u") + ("1" if bits <= 8 else "2"))
    stored = stored[..., 0] if stored.shape[2] == 1 else stored
    return bytes(
        imagecodecs.jpeg2k_encode(stored, level=0, codecformat="J2K", bitspersample=bits, reversible=True, mct=False)
    )


def merged(planes: list[Pixels], steps: list[tuple[int, int]]) -> bytes:
    """A codestream of components of various sizes, 8 bits, with one packet each: those of codestreams of their own.

    steps: columns and rows of pixels for a sample of each component.
    """
    streams = [
        bytes(imagecodecs.jpeg2k_encode(plane, level=0, codecformat="J2K", resolutions=1, reversible=True))
        for plane in planes
    ]
    packets = b"".join(stream[stream.index(b"\xff\x93") + 2 : -2] for stream in streams)
    first, count = streams[0], len(planes)
    part = first.index(b"\xff\x90")
    components = b"".join(struct.pack(">BBB", 7, *step) for step in steps)
    size = struct.pack(">HH", 0xFF51, 38 + 3 * count) + first[6:40] + struct.pack(">H", count) + components
    tile = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(packets), 0, 1)
    return first[:2] + size + first[45:part] + tile + b"\xff\x93" + packets + b"\xff\xd9"


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def colr(space: int) -> bytes:
    return box(b"colr", struct.pack(">BBBI", 1, 0, 0, space))


def profile(space: bytes) -> bytes:
    """A colr box with a restricted ICC profile, of which only the header is there."""
    return box(b"colr", b"\2\0\0", struct.pack(">I", 128).ljust(16, b"\0") + space + bytes(108))


def cdef(*channels: tuple[int, int, int]) -> bytes:
    """channels: number, type, and the colour that it belongs to (I.5.3.6)."""
    return box(b"cdef", struct.pack(">H", len(channels)), *(struct.pack(">HHH", *channel) for channel in channels))


def jp2(stream: bytes, *boxes: bytes, before: bytes = b"", length: int | None = None) -> bytes:
    """A file of a codestream. boxes: of the header, behind ihdr. length: of the codestream's box, 0 for the rest."""
    right, bottom, left, top, _, _, _, _, count = struct.unpack_from(">8IH", stream, 8)
    header = box(b"ihdr", struct.pack(">IIHBBBB", bottom - top, right - left, count, stream[42], 7, 0, 0))
    content = box(b"jp2c", stream)
    if length is not None:
        content = struct.pack(">I", length) + content[4:]
    signature = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return signature + before + box(b"jp2h", header, *boxes) + content


def seen(values: Samples, bits: int) -> Pixels:
    pixels = eight_bits(values, bits)
    if pixels.shape[2] in (2, 4):
        return on_white(pixels[..., :-1], pixels[..., -1])
    return rgb(pixels)


def depths() -> Iterator[Cell]:
    """Depth × sign × components × with boxes or without."""
    for bits, signed, count in product(range(1, 17), (False, True), NAMES):
        values = samples(bits, count, seed=bits)
        stream = codestream(values, bits, signed=signed)
        row = f"{NAMES[count]}, {bits} bits"
        sign = "signed" if signed else "unsigned"
        yield Cell("JPEG 2000", f"{row}: {sign}, raw codestream", stream, seen(values, bits))
        boxes = [colr(GRAY if count < 3 else SRGB)]
        yield Cell("JPEG 2000", f"{row}: {sign}, in boxes", jp2(stream, *boxes), seen(values, bits))


def channels() -> Iterator[Cell]:
    """The order and meaning of channels (I.5.3.6)."""
    for bits in (8, 12, 16):
        values = samples(bits, 4, seed=bits)
        pixels = eight_bits(values, bits)
        for order in ((3, 2, 1), (2, 3, 1), (1, 3, 2)):
            mixed = values[..., [order.index(colour) for colour in (1, 2, 3)]]
            data = jp2(
                codestream(values[..., :3], bits),
                colr(SRGB),
                cdef(*((at, COLOUR, colour) for at, colour in enumerate(order))),
            )
            yield Cell("JPEG 2000", f"order of channels, {bits} bits: {order}", data, rgb(eight_bits(mixed, bits)))
        alpha_first = cdef((0, OPACITY, 0), *((at, COLOUR, at) for at in (1, 2, 3)))
        data = jp2(codestream(values, bits), colr(SRGB), alpha_first)
        yield Cell(
            "JPEG 2000", f"order of channels, {bits} bits: alpha first", data, on_white(pixels[..., 1:], pixels[..., 0])
        )
        colours = [(at, COLOUR, at + 1) for at in (0, 1, 2)]
        data = jp2(codestream(values, bits), colr(SRGB), cdef(*colours, (3, UNSPECIFIED, 65535)))
        yield Cell("JPEG 2000", f"a channel of no meaning, {bits} bits", data, rgb(pixels[..., :3]))
        covered = np.minimum(values, values[..., 3:])
        lit = eight_bits(covered, bits).astype(int)
        want = np.minimum(lit[..., :3] + 255 - lit[..., 3:], 255).astype(np.uint8)
        data = jp2(codestream(covered, bits), colr(SRGB), cdef(*colours, (3, PREMULTIPLIED, 0)))
        # Pillow divides the colours by alpha, and multiplies them again.
        yield Cell("JPEG 2000", f"premultiplied alpha, {bits} bits", data, rgb(want), tolerance=1)


def palettes() -> Iterator[Cell]:
    """Indices into a palette (I.5.3.4) by a mapping of components to channels (I.5.3.5)."""
    for bits, depth in product((1, 2, 4, 8), (5, 8, 12, 16)):
        values = samples(bits, 1, seed=bits)
        colours = samples(depth, 3, height=1, width=1 << bits, seed=7)[0]
        entries = colours.astype(">u2" if depth > 8 else ">u1").tobytes()
        pclr = box(b"pclr", struct.pack(">HB", 1 << bits, 3), bytes([depth - 1] * 3), entries)
        for order in ((0, 1, 2), (2, 0, 1)):
            cmap = box(b"cmap", *(struct.pack(">HBB", 0, 1, column) for column in order))
            data = jp2(codestream(values, bits), pclr, cmap, colr(SRGB))
            want = eight_bits(colours, depth)[values[..., 0]][..., order]
            yield Cell("JPEG 2000", f"palette, {bits} bits: colours of {depth} bits, columns {order}", data, want)


def spaces() -> Iterator[Cell]:
    """Colour spaces (I.5.3.3)."""
    for bits in (8, 12, 16):
        values = samples(bits, 4, seed=bits)
        pixels = eight_bits(values, bits)
        light = 255 - pixels.astype(int)
        want = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
        for name, space in (("enumerated", colr(CMYK)), ("by its profile", profile(b"CMYK"))):
            yield Cell(
                "JPEG 2000", f"CMYK, {bits} bits: {name}", jp2(codestream(values, bits), space), want, tolerance=1
            )
        data = jp2(codestream(values[..., :3], bits), profile(b"RGB "))
        yield Cell("JPEG 2000", f"colour by a profile, {bits} bits: RGB", data, rgb(pixels[..., :3]))
        data = jp2(codestream(values[..., :1], bits), profile(b"GRAY"))
        yield Cell("JPEG 2000", f"colour by a profile, {bits} bits: gray", data, rgb(pixels[..., :1]))
        data = jp2(codestream(values[..., :3], bits), colr(SRGB), colr(SYCC))
        yield Cell("JPEG 2000", f"two colour spaces, the first counts, {bits} bits", data, rgb(pixels[..., :3]))
        ycc = smooth(3, height=26, width=42).astype(np.int64) << bits - 8
        data = jp2(codestream(ycc, bits), colr(SYCC))
        yield Cell("JPEG 2000", f"sYCC, {bits} bits", data, ycc_seen(ycc >> bits - 8), tolerance=1)
    stream = codestream(samples(8, 3), 8)
    for name, boxes in (("CIE L*a*b*", colr(14)), ("e-sRGB", colr(20)), ("bi-level", colr(0))):
        yield Cell("JPEG 2000", f"other colour spaces: {name}", jp2(stream, boxes), None, "a JPEG 2000 of colour space")
    yield Cell(
        "JPEG 2000", "L*a*b* by a profile", jp2(stream, profile(b"Lab ")), None, "a colour profile that is neither"
    )


def subsampled() -> Iterator[Cell]:
    """Chroma of fewer samples than luma (annex B.2): each stands for the pixels of a step, of which it is the first."""
    luma, blue, red = (smooth(3, height=26, width=42)[..., at] for at in range(3))
    for across, down in ((2, 1), (2, 2), (1, 1), (1, 2), (4, 1)):
        planes = [luma, *(np.ascontiguousarray(plane[::down, ::across]) for plane in (blue, red))]
        stream = merged(planes, [(1, 1), (across, down), (across, down)])
        rows, columns = np.mgrid[0:26, 0:42]
        spread = [plane[rows // down, columns // across] for plane in planes[1:]]
        want = ycc_seen(np.dstack([luma, *spread]).astype(np.int64))
        name = f"sYCC, 8 bits, chroma of {across}×{down} pixels"
        refused = "subsampled by" if (across, down) in ((1, 2), (4, 1)) else ""
        data = jp2(stream, colr(SYCC))
        yield Cell("JPEG 2000", f"{name}: in boxes", data, None if refused else want, refused, tolerance=2)
        if (across, down) != (1, 1):
            yield Cell("JPEG 2000", f"{name}: raw codestream", stream, None if refused else want, refused, tolerance=2)
            data, says = jp2(stream, colr(SRGB)), "subsampled components that are not luma and chroma"
            yield Cell("JPEG 2000", "subsampled RGB: " + name, data, None, says)


def ycc_seen(ycc: Samples) -> Pixels:
    """sYCC of 8 bits as RGB (IEC 61966-2-1, annex F)."""
    luma, blue, red = (ycc[..., at].astype(float) - (128 if at else 0) for at in range(3))
    planes = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    pixels: Pixels = np.clip(np.round(np.stack(planes, axis=-1)), 0, 255).astype(np.uint8)
    return pixels


def layouts() -> Iterator[Cell]:
    """Tiles, offsets of image and tiles, resolutions, layers, lossy wavelets, and where the codestream lies."""
    picture = smooth(3, height=45, width=61)
    image = Image.fromarray(picture)
    options: dict[str, dict[str, object]] = {
        "tiles": {"tile_size": (16, 16)},
        "an offset": {"offset": (5, 7), "tile_size": (80, 80)},
        "offsets of picture and tiles": {"offset": (5, 7), "tile_offset": (3, 2), "tile_size": (16, 16)},
        "one resolution": {"num_resolutions": 1},
        "three resolutions in tiles": {"num_resolutions": 3, "tile_size": (32, 32)},
        "layers": {"quality_layers": [20, 10, 0], "quality_mode": "rates"},
        "progression RPCL with precincts": {
            "progression": "RPCL",
            "precinct_size": (32, 32),
            "codeblock_size": (16, 16),
        },
        "colour transform": {"mct": 1},
    }
    for (name, chosen), raw in product(options.items(), (False, True)):
        file = BytesIO()
        image.save(file, "JPEG2000", no_jp2=raw, **chosen)
        yield Cell("JPEG 2000", f"{name}: {'raw codestream' if raw else 'in boxes'}", file.getvalue(), picture)
    lossy = BytesIO()
    image.save(lossy, "JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[60])
    yield Cell("JPEG 2000", "lossy wavelet", lossy.getvalue(), picture, tolerance=2)
    stream = codestream(picture.astype(np.int64), 8)
    yield Cell("JPEG 2000", "the codestream runs to the end of the file", jp2(stream, colr(SRGB), length=0), picture)
    more = jp2(stream, colr(SRGB), before=box(b"xml ", b"<a/>") + box(b"uuid", bytes(40)))
    yield Cell("JPEG 2000", "boxes around the codestream", more + box(b"free"), picture)


def refusals() -> Iterator[Cell]:
    """What is refused, and by which words."""
    values = samples(8, 4)
    stream = bytearray(codestream(values, 8))
    stream[42 + 3 * 3] = 0  # the last component claims one bit
    yield Cell("JPEG 2000", "components of unequal depth", bytes(stream), None, "components of unequal depth")
    many = bytes(imagecodecs.jpeg2k_encode(np.zeros((8, 8, 6), np.uint8), level=0, codecformat="J2K", planar=False))
    yield Cell("JPEG 2000", "six components", many, None, "6 components")


def cells() -> list[Cell]:
    every = [*depths(), *channels(), *palettes(), *spaces(), *subsampled(), *layouts(), *refusals()]
    return [replace(cell, judged="8 bits" in cell.row and not cell.row.startswith(_NOT_IN_PILLOW)) for cell in every]
