"""Small image files of every format, and ways to damage them at random."""

import struct
import zlib
from functools import cache
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.model.images.matrix import avif_cells, bmp_cells, gif_cells, jpeg_cells, png_cells
from tests.model.images.matrix.drawing import samples
from tests.model.images.matrix.jpeg2000_cells import GRAY, codestream, colr, jp2, palettes, subsampled
from tests.model.images.matrix.tiff_cells import BLACK_IS_ZERO, CMYK, COLOURS, PALETTE, RGB, YCBCR
from tests.model.images.matrix.tiff_coded_cells import units
from tests.model.images.matrix.tiff_file import Layout, tiff_file
from tests.pictures import exif, picture, save

_ENCODINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "RGB", {}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True}),
    "gray jpeg": ("JPEG", "L", {}),
    "cmyk jpeg": ("JPEG", "CMYK", {}),
    "turned jpeg": ("JPEG", "RGB", {"exif": exif(6), "comment": b"a comment", "icc_profile": bytes(40)}),
    "mpo": ("MPO", "RGB", {"save_all": True, "append_images": [picture(6, 9, seed=1)]}),
    "png": ("PNG", "RGBA", {"exif": exif(6)}),
    "palette png": ("PNG", "P", {"transparency": 1}),
    "gray png": ("PNG", "L", {"icc_profile": bytes(40)}),
    "animated png": ("PNG", "RGB", {"save_all": True, "append_images": [picture(6, 9, seed=1)]}),
    "lossy webp": ("WEBP", "RGB", {}),
    "lossless webp": ("WEBP", "RGBA", {"lossless": True, "exif": exif(6)}),
    "animated webp": ("WEBP", "RGB", {"save_all": True, "append_images": [picture(6, 9, seed=1)]}),
    "avif": ("AVIF", "RGB", {"exif": exif(6)}),
    "avif with alpha": ("AVIF", "RGBA", {}),
    "animated avif": ("AVIF", "RGB", {"save_all": True, "append_images": [picture(6, 9, seed=1)]}),
    "gif": ("GIF", "P", {"comment": b"a comment"}),
    "animated gif": ("GIF", "RGB", {"save_all": True, "append_images": [picture(6, 9, seed=1)]}),
    "bmp": ("BMP", "RGB", {}),
    "palette bmp": ("BMP", "P", {}),
    "tiff": ("TIFF", "RGB", {"exif": exif(6)}),
    "deflated tiff": ("TIFF", "RGBA", {"compression": "tiff_deflate"}),
    "lzw tiff": ("TIFF", "L", {"compression": "tiff_lzw"}),
    "fax tiff": ("TIFF", "1", {"compression": "group4"}),
    "jpeg tiff": ("TIFF", "RGB", {"compression": "jpeg"}),
    "big tiff": ("TIFF", "RGB", {"big_tiff": True}),
    "jp2": ("JPEG2000", "RGB", {}),
    "j2k": ("JPEG2000", "RGB", {"no_jp2": True}),
    "tiled j2k": ("JPEG2000", "L", {"no_jp2": True, "tile_size": (4, 4), "num_resolutions": 2}),
}


def _tiff(bits: int, photometric: int, layout: Layout, **tags: list[int]) -> bytes:
    """A TIFF that tifffile or libtiff reads."""
    values = samples(bits, COLOURS.get(photometric, 3), height=6, width=9)
    return tiff_file(values, bits, photometric, layout, **tags)


@cache
def small_files() -> dict[str, bytes]:
    """By their kinds. Made when they are asked for, because every worker of a test run loads this module."""
    files = {name: save(picture(6, 9, mode), format, **options) for name, (format, mode, options) in _ENCODINGS.items()}
    return files | _other_files() | _first_cells()


def _other_files() -> dict[str, bytes]:
    """Kinds that Pillow does not write."""
    chroma = Layout(codec=(1, lambda segment: units(segment, (2, 2))), tags={530: (3, [2, 2])})
    return {
        "16-bit tiff in planes": _tiff(16, RGB, Layout(planes=True)),
        "deflated 16-bit tiff in tiles": _tiff(16, RGB, Layout(compression="deflate", tile=(16, 16), differences=True)),
        "lzw tiff of 12 bits": _tiff(12, BLACK_IS_ZERO, Layout(compression="LZW", rows=2)),
        "big-endian bigtiff": _tiff(16, CMYK, Layout(order=">", big=True)),
        "palette tiff in reversed bits": _tiff(
            4, PALETTE, Layout(reversed_bits=True), colormap=list(range(0, 48_000, 1000))
        ),
        "ycbcr tiff": _tiff(8, YCBCR, chroma),
        "16-bit j2k": codestream(samples(16, 4, height=6, width=9), 16),
        "signed jp2 of 5 bits": jp2(codestream(samples(5, 2, height=6, width=9), 5, signed=True), colr(GRAY)),
        "palette jp2": next(palettes()).data,
        "subsampled jp2": next(subsampled()).data,
    }


def _first_cells() -> dict[str, bytes]:
    """More of those. The first cell of a row is enough."""
    return {
        row: next(cell.data for cell in cells if cell.row == row)
        for cells, rows in (
            (bmp_cells.cells(), ("masks, 16 bits, 5-6-5", "run lengths, 8 bits")),
            (gif_cells.cells(), ("first frame smaller than the canvas",)),
            (png_cells.cells(), ("RGB, 16 bits, a colour is transparent",)),
            (avif_cells.cells(), ("clap",)),
            (jpeg_cells.cells(), ("no end marker",)),
        )
        for row in rows
    }


_EXTREMES = (0, 1, 2, 4, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def broken_file(random: Random) -> bytes:
    """One of `small_files`, damaged one to six times."""
    return damaged(random.choice(list(small_files().values())), random)


def damaged(data: bytes, random: Random) -> bytes:
    """A file, damaged one to six times."""
    for _ in range(random.randint(1, 6)):
        if data:
            data = random.choice(_DAMAGES)(data, random)
    return _with_true_checksums(data) if random.random() < 0.5 else data


def broken_files() -> st.SearchStrategy[bytes]:
    return st.builds(broken_file, st.randoms(use_true_random=False))


def _with_true_checksums(data: bytes) -> bytes:
    """A PNG with the checksums of its damaged chunks corrected; any other file unchanged."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        data = data[:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end])) + data[end + 4 :]
        at = end + 4
    return data


def _place(data: bytes, random: Random) -> int:
    """A random offset in the file; half of the time near the beginning, where headers are."""
    return random.randrange(min(len(data), 200) if random.random() < 0.5 else len(data))


def _change(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def _flip(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _lie(data: bytes, random: Random) -> bytes:
    """Overwrites two or four bytes, perhaps a length, count or offset, with an extreme number."""
    at, value = _place(data, random), random.choice(_EXTREMES)
    order, code = random.choice("<>"), random.choice("HI")
    lie = struct.pack(order + code, value if code == "I" else value & 0xFFFF)
    return data[:at] + lie + data[at + len(lie) :]


def _repeat(data: bytes, random: Random) -> bytes:
    start = _place(data, random)
    piece = data[start : start + random.randint(1, 100)]
    return data[:start] + piece * random.randint(2, 20) + data[start:]


def _drop(data: bytes, random: Random) -> bytes:
    start = _place(data, random)
    return data[:start] + data[start + random.randint(1, 40) :]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _splice(data: bytes, random: Random) -> bytes:
    other = random.choice(list(small_files().values()))
    return data[: _place(data, random)] + other[_place(other, random) :]


_DAMAGES = (_change, _flip, _lie, _repeat, _drop, _cut, _splice)
