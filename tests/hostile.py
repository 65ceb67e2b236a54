"""Image files made to exhaust or mislead a decoder, each with the expected result under the default settings.

`HOSTILE` names them. Files are built each time they are asked for, and none is kept.
"""

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedFormat
from tests.pictures import png, png_chunk, png_rows, save, tiff

RED = (200, 30, 60)


@dataclass(frozen=True)
class Hostile:
    """A file, and either the error that refuses it with a part of its message, or the picture that it holds.

    `size` is `(height, width)` in pixels; `pixel` the colour of its first pixel, where all decoders must agree on it.
    """

    build: Callable[[], bytes]
    refused: type[ImageError] | None = None
    says: str = ""
    size: tuple[int, int] = (24, 40)
    pixel: tuple[int, int, int] | None = RED


def red(format: str, **options: Any) -> bytes:
    """A red picture of 24×40 pixels."""
    return save(Image.new("RGB", (40, 24), RED), format, **options)


def _frames(colours: Iterable[tuple[int, int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", (40, 24), colour) for colour in colours]


# JPEG


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(before: bytes, jpeg: bytes | None = None) -> bytes:
    """A JPEG with extra bytes behind its first two."""
    jpeg = jpeg or red("JPEG", quality=95)
    return jpeg[:2] + before + jpeg[2:]


def jpeg_of_many_scans(scans: int) -> bytes:
    """A progressive picture that repeats the header of its second scan."""
    data = save(Image.new("L", (40, 24), 128), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    header = data[second : second + 2 + int.from_bytes(data[second + 2 : second + 4])]
    return data[:second] + header * scans + b"\xff\xd9"


def jpeg_with_tags(tags: int) -> bytes:
    """A JPEG with this many EXIF tags, all of which point at the same text."""
    entries = b"".join(struct.pack(">HHII", tag, 2, 4000, 8) for tag in range(tags))
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", tags) + entries + bytes(4)
    pieces = (block[start : start + 60_000] for start in range(0, len(block), 60_000))
    return jpeg_with(b"".join(jpeg_segment(0xE1, b"Exif\0\0" + piece) for piece in pieces))


# PNG


def png_with(*chunks: tuple[bytes, bytes], data: bytes | None = None) -> bytes:
    """A PNG with extra chunks behind its header."""
    data = data or red("PNG")
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


# GIF


def gif_with(blocks: bytes) -> bytes:
    """A GIF with extra blocks before its picture."""
    data = red("GIF")
    start = 13 + (6 << (data[10] & 7))
    return data[:start] + blocks + data[start:]


def gif_of_frames(frames: int) -> bytes:
    data = red("GIF")
    start = 13 + (6 << (data[10] & 7))
    return data[:-1] + data[start:-1] * (frames - 1) + b";"


# WebP


def webp(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def webp_with_canvas(height: int, width: int, more: bytes = b"") -> bytes:
    """A picture of 24×40 pixels on a canvas of another size."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides + more + red("WEBP", lossless=True)[12:])


# AVIF


def avif_that_lies(height: int, width: int, *, frames: int = 1, alpha: bool = False) -> bytes:
    """A picture of `height`×`width` whose boxes all say 16×16 pixels; only the AV1 stream tells the truth."""
    image = Image.new("RGBA" if alpha else "RGB", (width, height), RED)
    more = {"save_all": True, "append_images": [image] * (frames - 1)} if frames > 1 else {}
    data = save(image, "AVIF", speed=10, quality=10, **more)
    data = data.replace(struct.pack(">II", width, height), struct.pack(">II", 16, 16))
    return data.replace(struct.pack(">II", width << 16, height << 16), struct.pack(">II", 16 << 16, 16 << 16))


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def avif_of_cells(*, size: int, announced: int, cell: int) -> bytes:
    """A grid of four cells of 64×64 red pixels. Its sides are `size` in the grid and `announced` in its item.

    Its cells say that theirs are `cell`.
    """
    still = save(Image.new("RGB", (64, 64), RED), "AVIF")

    def taken(kind: bytes) -> bytes:
        at = still.index(kind) - 4
        return still[at : at + int.from_bytes(still[at : at + 4])]

    stream = still[still.index(b"mdat") + 4 :]
    grid = struct.pack(">BBBBII", 0, 1, 1, 1, size, size)
    items = [_box(b"infe", b"\2\0\0\0", struct.pack(">HH", 1, 0), b"grid\0")]
    items += [_box(b"infe", b"\2\0\0\1", struct.pack(">HH", item, 0), b"av01\0") for item in range(2, 6)]
    sides = [_box(b"ispe", bytes(4), struct.pack(">II", side, side)) for side in (announced, cell)]
    properties = _box(b"ipco", *sides, taken(b"av1C"), taken(b"pixi"), taken(b"colr"))
    owners = struct.pack(">IIHB", 0, 5, 1, 3) + b"\1\4\5"
    owners += b"".join(struct.pack(">HB", item, 4) + b"\2\x83\4\5" for item in range(2, 6))

    def meta(start: int) -> bytes:
        places = [(1, start, len(grid))]
        places += [(item, start + len(grid) + (item - 2) * len(stream), len(stream)) for item in range(2, 6)]
        extents = b"".join(struct.pack(">HHHII", item, 0, 1, offset, length) for item, offset, length in places)
        return _box(
            b"meta",
            bytes(4),
            taken(b"hdlr"),
            _box(b"pitm", struct.pack(">IH", 0, 1)),
            _box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", 5), extents),
            _box(b"iinf", struct.pack(">IH", 0, 5), *items),
            _box(b"iref", bytes(4), _box(b"dimg", struct.pack(">6H", 1, 4, 2, 3, 4, 5))),
            _box(b"iprp", properties, _box(b"ipma", owners)),
        )

    start = len(taken(b"ftyp") + meta(0)) + 8
    return taken(b"ftyp") + meta(start) + _box(b"mdat", grid, stream * 4)


def with_more_boxes(data: bytes, boxes: int) -> bytes:
    """An ISO file with empty boxes at its end."""
    return data + struct.pack(">I4s", 8, b"free") * boxes


# JPEG 2000


def j2k(
    data: bytes | None = None, *, size: tuple[int, int] | None = None, tile: tuple[int, int] | None = None
) -> bytes:
    """A codestream with another size, or other tiles, in its header, both `(height, width)`."""
    data = data or red("JPEG2000", no_jp2=True)
    if size:
        data = data[:8] + struct.pack(">II", size[1], size[0]) + data[16:]
    if tile:
        data = data[:24] + struct.pack(">II", tile[1], tile[0]) + data[32:]
    return data


def j2k_coded(
    *, layers: int = 1, block: int = 6, precinct: int | None = None, size: tuple[int, int] = (24, 40)
) -> bytes:
    """A codestream with another coding style. block, precinct: exponents of two of their sides."""
    data = j2k(size=size, tile=size)
    at = data.index(b"\xff\x52")
    length, _, _, _, transform, levels = struct.unpack_from(">HBBHBB", data, at + 2)
    precincts = b"" if precinct is None else bytes([precinct | precinct << 4]) * (levels + 1)
    style = struct.pack(">HBBHBBBBBB", 12 + len(precincts), bool(precincts), 0, layers, transform, levels,
                        block - 2, block - 2, 0, 1)  # fmt: skip
    return data[: at + 2] + style + precincts + data[at + 2 + length :]


# TIFF


def tiff_of(entries: list[tuple[int, int, int, int]], body: bytes = bytes(960)) -> bytes:
    """A gray TIFF of 24×40 zeros with extra tags: tag, type, count, value or offset."""
    plain = [(256, 4, 1, 40), (257, 4, 1, 24), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    merged = {entry[0]: entry for entry in [*plain, (277, 3, 1, 1), (278, 4, 1, 24), (279, 4, 1, 960), *entries]}
    directory = b"".join(struct.pack("<HHII", *entry) for _, entry in sorted(merged.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", len(merged)) + directory + bytes(4)


def tiff_that_loops() -> bytes:
    """A TIFF whose first directory names itself as the next."""
    data = tiff_of([])
    return data[:-4] + data[4:8]


# BMP


def bmp_of_runs(height: int, width: int, runs: int, bits: int = 8) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, 0, 0, 0, 1 << bits, 0)
    palette = bytes(4 << bits)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + len(palette)) + header + palette + b"\1\0" * runs + b"\0\1"


def bmp_of_header(**fields: int) -> bytes:
    """A BMP of 24×40 red pixels with other fields in its header."""
    values = {"size": 40, "width": 40, "height": 24, "planes": 1, "bits": 24, "compression": 0} | fields
    header = struct.pack("<IiiHHIIiiII", *values.values(), 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header + bytes(RED[::-1]) * 960


def _mpo() -> bytes:
    return red("MPO", quality=95, save_all=True, append_images=_frames([(0, 0, 255)]))


def _cmyk() -> bytes:
    return save(Image.new("CMYK", (40, 24), (0, 200, 220, 10)), "JPEG", quality=95)


def _palette() -> bytes:
    return save(Image.new("RGB", (40, 24), RED).quantize(2), "PNG", transparency=0)


def _text(size: int, *, packed: bool, keyword: str = "Comment") -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(keyword, "a" * size, zip=packed)
    return red("PNG", pnginfo=info)


_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_GRAY = (0, 0, 0)
_ZIP = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18)

HOSTILE: dict[str, Hostile] = {
    # Unusual, but read
    "cmyk jpeg of adobe": Hostile(_cmyk, pixel=(245, 52, 33)),
    "png of 16 bits": Hostile(
        lambda: save(Image.fromarray(np.full((24, 40), 0x1234, np.uint16)), "PNG"), pixel=(0x12, 0x12, 0x12)
    ),
    "palette with transparency": Hostile(_palette, pixel=(255, 255, 255)),
    "animated gif": Hostile(lambda: red("GIF", save_all=True, append_images=_frames([(0, 0, 255)] * 3))),
    "animated webp": Hostile(
        lambda: red("WEBP", lossless=True, save_all=True, append_images=_frames([(0, 0, 255)] * 3))
    ),
    "animated png": Hostile(lambda: red("PNG", save_all=True, append_images=_frames([(0, 0, 255)] * 3))),
    "animated avif": Hostile(lambda: red("AVIF", save_all=True, append_images=_frames([(0, 0, 255)] * 3))),
    "avif of a grid": Hostile(lambda: avif_of_cells(size=128, announced=128, cell=64), size=(128, 128)),
    "gif of 10,000 frames": Hostile(lambda: gif_of_frames(10_000)),
    "one pixel high": Hostile(
        lambda: png(1, 10_000, png_rows(np.full((1, 10_000, 3), RED, np.uint8))), size=(1, 10_000)
    ),
    "one pixel wide": Hostile(
        lambda: png(10_000, 1, png_rows(np.full((10_000, 1, 3), RED, np.uint8))), size=(10_000, 1)
    ),
    "jpeg with a profile": Hostile(lambda: red("JPEG", quality=95, icc_profile=_PROFILE)),
    "jpeg with a profile of 4 MB": Hostile(lambda: red("JPEG", quality=95, icc_profile=bytes(4_000_000))),
    "png with a profile": Hostile(lambda: red("PNG", icc_profile=_PROFILE)),
    "png with a profile of garbage": Hostile(lambda: png_with((b"iCCP", b"a\0\0garbage"))),
    "png with 10 MB of text": Hostile(lambda: _text(10_000_000, packed=False)),
    "png whose text inflates to 50 MB": Hostile(lambda: _text(50_000_000, packed=True)),
    "png whose xmp inflates to 50 MB": Hostile(lambda: _text(50_000_000, packed=True, keyword="XML:com.adobe.xmp")),
    "png of 4,000 texts that inflate to 1 MB": Hostile(
        lambda: png_with(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 4000)
    ),
    "png of nine profiles": Hostile(lambda: png_with(*[(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 9)),
    "jpeg with 10 MB of xmp": Hostile(
        lambda: jpeg_with(jpeg_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(64_000)) * 156)
    ),
    "jpeg with 4,000 comments": Hostile(lambda: jpeg_with(jpeg_segment(0xFE, b"") * 4000)),
    "jpeg with a film behind it": Hostile(
        lambda: red("JPEG", quality=95) + b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\xd8" * 500_000
    ),
    "jpeg that is a zip as well": Hostile(lambda: red("JPEG", quality=95) + _ZIP),
    "jpeg that is html as well": Hostile(lambda: jpeg_with(jpeg_segment(0xFE, b"<script>alert(1)</script>"))),
    "gif that is a script as well": Hostile(lambda: red("GIF") + b"/*=1;alert(1)//*/"),
    "png with a jpeg behind it": Hostile(lambda: red("PNG") + save(Image.new("RGB", (9, 9)), "JPEG")),
    "jpeg of two pictures": Hostile(_mpo),
    "jpeg with 4,000 tags": Hostile(lambda: jpeg_with_tags(4000)),
    "tiff whose directory is its own next": Hostile(tiff_that_loops, pixel=_GRAY),
    "png that inflates beyond its header": Hostile(
        lambda: png(24, 40, png_rows(np.full((24, 40, 3), RED, np.uint8)) + bytes(50_000_000))
    ),
    "png of empty chunks": Hostile(lambda: png_with(*[(b"IDAT", b"")] * 4000)),
    "avif of a stream larger than it says": Hostile(lambda: avif_that_lies(2000, 2000), size=(16, 16), pixel=None),
    "animated avif of streams larger than it says": Hostile(
        lambda: avif_that_lies(2000, 2000, frames=2), size=(16, 16), pixel=None
    ),
    "avif of 5,000 boxes": Hostile(lambda: with_more_boxes(red("AVIF"), 5000)),
    "jpeg 2000 of tiles of one pixel": Hostile(lambda: j2k(size=(250, 250), tile=(1, 1)), size=(250, 250), pixel=None),
    "jpeg 2000 of 5,000 boxes": Hostile(
        lambda: (lambda data: data[:32] + struct.pack(">I4s", 8, b"free") * 5000 + data[32:])(red("JPEG2000"))
    ),
    "jpeg 2000 of 70,000 comments": Hostile(
        lambda: (lambda data, at: data[:at] + b"\xff\x64\0\4\0\0" * 70_000 + data[at:])(j2k(), j2k().index(b"\xff\x52"))
    ),
    "tiff whose tags are larger than itself": Hostile(
        lambda: tiff_of([(tag, 7, 900, 8) for tag in range(1000, 1010)]), pixel=_GRAY
    ),
    "bmp upside down": Hostile(lambda: bmp_of_header(height=-24)),
    # Too large
    "png of 30,000 by 30,000": Hostile(lambda: png(30_000, 30_000, b"\0"), ImageTooLarge, "max_decode_pixels"),
    "jpeg of 65,535 by 65,535": Hostile(
        lambda: red("JPEG").replace(struct.pack(">HH", 24, 40), b"\xff\xff\xff\xff"), ImageTooLarge, "max_decode_pixels"
    ),
    "png of 50 million by 1": Hostile(lambda: png(50_000_000, 1, b"\0"), ImageTooLarge, "side"),
    "png of 1 by 65,536": Hostile(lambda: png(1, 65_536, b"\0"), ImageTooLarge, "65,535"),
    "webp of a canvas of 16,384 by 16,384": Hostile(
        lambda: webp_with_canvas(16_384, 16_384), ImageTooLarge, "max_decode_pixels"
    ),
    "jpeg 2000 of 60,000 by 60,000": Hostile(
        lambda: j2k(size=(60_000, 60_000), tile=(60_000, 60_000)), ImageTooLarge, "max_decode_pixels"
    ),
    "tiff of one huge tile": Hostile(
        lambda: tiff(4, 4, zlib.compress(bytes(16)), Compression=(8,), TileWidth=(16_384,), TileLength=(16_384,)),
        ImageTooLarge,
        "max_decode_pixels",
    ),
    "tiff of 65,535 tags": Hostile(
        lambda: tiff_of([(tag, 4, 1, 1) for tag in range(1000, 65_535)]), ImageTooLarge, "metadata"
    ),
    "tiff of 100,000 strips": Hostile(
        lambda: tiff_of([(273, 4, 100_000, 8), (278, 4, 1, 1)], bytes(400_000)), ImageTooLarge, "metadata"
    ),
    "jpeg of a million fill bytes": Hostile(lambda: jpeg_with(b"\xff" * 1_000_000), ImageTooLarge, "metadata"),
    "jpeg with a million bytes of junk": Hostile(
        lambda: jpeg_with(jpeg_segment(0xFE, b"") + b"a" * 1_000_000), ImageTooLarge, "metadata"
    ),
    "jpeg of 10,000 segments": Hostile(lambda: jpeg_with(jpeg_segment(0xFE, b"") * 10_000), ImageTooLarge, "segments"),
    "jpeg with 17 MB of metadata": Hostile(
        lambda: jpeg_with(jpeg_segment(0xEF, bytes(65_000)) * 262), ImageTooLarge, "16,777,216"
    ),
    "jpeg of 200 scans": Hostile(lambda: jpeg_of_many_scans(200), ImageTooLarge, "scans"),
    "png of 20,000 chunks": Hostile(lambda: png_with(*[(b"abCd", b"")] * 20_000), ImageTooLarge, "metadata"),
    "png of 10,000 empty chunks of pixels": Hostile(
        lambda: png_with(*[(b"IDAT", b"")] * 10_000), ImageTooLarge, "metadata"
    ),
    "png of 20,000 late chunks": Hostile(
        lambda: (lambda data: data[:-12] + png_chunk(b"abCd", b"") * 20_000 + data[-12:])(red("PNG")),
        ImageTooLarge,
        "metadata",
    ),
    "png with 17 MB of text": Hostile(lambda: _text(17_000_000, packed=False), ImageTooLarge, "16,777,216"),
    "png of 20,000 texts": Hostile(lambda: png_with(*[(b"tEXt", b"a\0b")] * 20_000), ImageTooLarge, "metadata"),
    "png of 20,000 late texts": Hostile(
        lambda: (lambda data: data[:-12] + png_chunk(b"zTXt", b"a\0\0") * 20_000 + data[-12:])(red("PNG")),
        ImageTooLarge,
        "metadata",
    ),
    "gif of a million comments": Hostile(lambda: gif_with(b"!\xfe\1a\0" * 1_000_000), ImageTooLarge, "metadata"),
    "gif of a million empty extensions": Hostile(lambda: gif_with(b"!\1\0" * 1_000_000), ImageTooLarge, "metadata"),
    "gif with a million bytes of junk": Hostile(lambda: gif_with(b"a" * 1_000_000), ImageTooLarge, "metadata"),
    "bmp of runs beyond its size": Hostile(lambda: bmp_of_runs(3000, 3000, 10), ImageTooLarge, "run-length"),
    "bmp of five million bytes of runs": Hostile(lambda: bmp_of_runs(24, 40, 2_500_000), ImageTooLarge, "run-length"),
    "bmp of 16 million pixels a side": Hostile(
        lambda: bmp_of_header(width=2**24, height=2**24), ImageTooLarge, "max_decode_pixels"
    ),
    # Broken, or no image
    "png without pixels": Hostile(lambda: png(0, 0, b"\0"), UndecodableImage, "without pixels"),
    "webp of a canvas smaller than its picture": Hostile(lambda: webp_with_canvas(8, 8), UndecodableImage, "WebP"),
    "avif without its streams": Hostile(lambda: red("AVIF").replace(b"av01", b"none"), UndecodableImage, "AVIF"),
    "avif of a grid that says it is larger": Hostile(
        lambda: avif_of_cells(size=16_000, announced=16, cell=64), UndecodableImage, "AVIF"
    ),
    "avif of cells that say they are larger": Hostile(
        lambda: avif_of_cells(size=128, announced=128, cell=8000), UndecodableImage, "AVIF"
    ),
    "jpeg 2000 whose boxes say less": Hostile(
        lambda: (lambda data, at: data[:at] + j2k(data[at:], size=(60_000, 60_000), tile=(60_000, 60_000)))(
            red("JPEG2000"), red("JPEG2000").index(b"\xff\x4f\xff\x51")
        ),
        ImageTooLarge,
        "max_decode_pixels",
    ),
    "jpeg 2000 of precincts of two pixels": Hostile(
        lambda: j2k_coded(precinct=1, size=(7000, 7000)), UndecodableImage, "JPEG 2000"
    ),
    "jpeg 2000 of blocks of four pixels": Hostile(
        lambda: j2k_coded(block=2, size=(3000, 3000)), UndecodableImage, "JPEG 2000"
    ),
    "jpeg 2000 of 65,535 layers": Hostile(
        lambda: j2k_coded(layers=65_535, precinct=5, size=(1000, 1000)), UndecodableImage, "JPEG 2000"
    ),
    "tiff of a million bit depths": Hostile(
        lambda: tiff_of([(258, 3, 1_000_000, 8)], bytes(2_000_000)), UndecodableImage, "TIFF"
    ),
    "tiff of no directory": Hostile(lambda: b"II*\0\xff\xff\xff\xff" + bytes(99), UndecodableImage, "TIFF"),
    "tiff of 2,048 samples a pixel": Hostile(lambda: tiff_of([(277, 3, 1, 2048)]), UndecodableImage, "TIFF"),
    "bmp of an absurd header": Hostile(lambda: bmp_of_header(size=2**31 - 1), UndecodableImage, "BMP"),
    "bmp of absurd colours": Hostile(lambda: bmp_of_header(bits=77), UndecodableImage, "BMP"),
    "jpeg 2000 of tiles without sides": Hostile(lambda: j2k(tile=(0, 0)), UndecodableImage, "JPEG 2000"),
    "jpeg 2000 of data without a tile": Hostile(
        lambda: (lambda data, at: data[:at] + b"\xff\x93" * 9)(j2k(), j2k().index(b"\xff\x90")),
        UndecodableImage,
        "JPEG 2000",
    ),
    "jpeg 2000 of a tile that ends where it began": Hostile(
        lambda: (lambda data, at: data[: at + 6] + struct.pack(">I", 12) + data[at + 10 :])(
            j2k(), j2k().index(b"\xff\x90")
        ),
        UndecodableImage,
        "JPEG 2000",
    ),
    "jpeg cut in its header": Hostile(lambda: red("JPEG")[:100], UndecodableImage, "JPEG"),
    "a path": Hostile(lambda: b"/etc/passwd", UnsupportedFormat, "not an image"),
    "a url": Hostile(lambda: b"file:///etc/passwd", UnsupportedFormat, "not an image"),
    "svg that includes a file": Hostile(
        lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>',
        UnsupportedFormat,
        "not an image",
    ),
    "postscript": Hostile(
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UnsupportedFormat, "not an image"
    ),
    "pdf": Hostile(lambda: b"%PDF-1.7\n" + red("JPEG"), UnsupportedFormat, "not an image"),
    "heic": Hostile(lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), UndecodableImage, "HEIC"),
    "nothing": Hostile(lambda: b"", UnsupportedFormat, "empty"),
}
