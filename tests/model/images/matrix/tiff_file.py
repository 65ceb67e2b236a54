"""Writes TIFFs of every layout that TIFF 6.0 allows, tag by tag: no other program decides what is in them."""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
_CODES = {1: "B", 3: "H", 4: "I", 5: "I", 16: "Q"}  # a fraction is two numbers of four bytes
# Compressions of bytes: the number of the tag, and what packs a segment.
PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "no compression": (1, bytes),
    "LZW": (5, lambda data: bytes(imagecodecs.lzw_encode(data))),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "PackBits": (32773, lambda data: bytes(imagecodecs.packbits_encode(data))),
    "LZMA": (34925, lambda data: bytes(imagecodecs.lzma_encode(data))),
    "Zstandard": (50000, lambda data: bytes(imagecodecs.zstd_encode(data))),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How samples lie in a file.

    order: of bytes. planes: a plane for each sample, PlanarConfiguration 2. tile: `(height, width)`, or None for strips
    of `rows` rows. differences: Predictor 2. reversed_bits: FillOrder 2. codec: the number of a compression, and what
    packs a segment of `[height, width, samples]`, in place of `compression`.
    """

    order: Literal["<", ">"] = "<"
    planes: bool = False
    compression: str = "no compression"
    tile: tuple[int, int] | None = None
    rows: int = 16
    differences: bool = False
    reversed_bits: bool = False
    big: bool = False
    codec: tuple[int, Callable[[Samples], bytes]] | None = None
    tags: dict[int, tuple[int, list[int]]] = field(default_factory=dict)


def tiff_file(samples: Samples, bits: int, photometric: int, layout: Layout, **tags: list[int]) -> bytes:
    """A file of `samples`, whole numbers `[height, width, samples]` of `bits` bits each.

    tags: `extra` (ExtraSamples), `format` (SampleFormat), `orientation`, `colormap`. Signed samples are stored as two's
    complement.
    """
    height, width, count = samples.shape
    segments = [_packed(segment, bits, layout) for segment in _segments(samples, layout)]
    number = layout.codec[0] if layout.codec else PACKERS[layout.compression][0]
    entries: dict[int, tuple[int, list[int]]] = {
        256: (3, [width]),
        257: (3, [height]),
        258: (3, [bits] * count),
        259: (3, [number]),
        262: (3, [photometric]),
        277: (3, [count]),
        284: (3, [2 if layout.planes else 1]),
    }
    offsets, sizes = (324, 325) if layout.tile else (273, 279)
    if layout.tile:
        entries |= {322: (3, [layout.tile[1]]), 323: (3, [layout.tile[0]])}
    else:
        entries |= {278: (3, [layout.rows])}
    if layout.differences:
        entries[317] = (3, [2])
    if layout.reversed_bits:
        entries[266] = (3, [2])
    for name, tag in (("extra", 338), ("format", 339), ("orientation", 274), ("colormap", 320)):
        if name in tags:
            entries[tag] = (3, tags[name])
    entries |= layout.tags
    entries |= {offsets: (4, [0] * len(segments)), sizes: (4, [len(segment) for segment in segments])}
    return _file(entries, offsets, segments, layout)


def _segments(samples: Samples, layout: Layout) -> Iterator[Samples]:
    """The strips or tiles, plane by plane; tiles at the edges are filled up with their last row and column."""
    height, width, count = samples.shape
    rows, columns = layout.tile or (layout.rows, width)
    planes = np.split(samples, count, axis=2) if layout.planes else [samples]
    for plane in planes:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                segment = plane[top : top + rows, left : left + columns]
                if layout.tile:
                    missing = [(0, rows - segment.shape[0]), (0, columns - segment.shape[1]), (0, 0)]
                    segment = np.pad(segment, missing, mode="edge")
                yield segment


def _packed(segment: Samples, bits: int, layout: Layout) -> bytes:
    if layout.codec:
        data = layout.codec[1](segment)
    else:
        values = segment.astype(np.int64)  # [rows, columns, samples]
        if layout.differences:
            values = np.diff(values, axis=1, prepend=0)
        pack = PACKERS[layout.compression][1]
        # PackBits packs each row by itself (section 9).
        pieces = values[:, None] if layout.compression == "PackBits" else [values]
        data = b"".join(pack(_bytes(piece, bits, layout.order)) for piece in pieces)
    if layout.reversed_bits:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()
    return data


def _bytes(values: NDArray[np.int64], bits: int, order: str) -> bytes:
    """Whole bytes in the file's order; other widths from the highest bit of a byte on, each row to a whole byte."""
    rows = values.reshape(len(values), -1)
    if bits in (8, 16, 32, 64):
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    digits = rows[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def _file(entries: dict[int, tuple[int, list[int]]], offsets: int, segments: list[bytes], layout: Layout) -> bytes:
    """The header, the segments, the values that do not fit into the directory, and the directory."""
    order, inline, word = layout.order, (8, "Q") if layout.big else (4, "I"), None
    size, word = inline
    body = bytearray(16 if layout.big else 8)
    places = []
    for segment in segments:
        places.append(len(body))
        body += segment + bytes(len(segment) % 2)
    entries[offsets] = (4, places)
    directory = b""
    for tag, (kind, values) in sorted(entries.items()):
        content = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        if len(content) > size:
            at = struct.pack(order + word, len(body))
            body += content + bytes(len(content) % 2)
            content = at
        count_of = len(values) // 2 if kind == 5 else len(values)
        directory += struct.pack(f"{order}HH{word}", tag, kind, count_of) + content.ljust(size, b"\0")
    count = struct.pack(order + ("Q" if layout.big else "H"), len(entries))
    mark = b"II" if order == "<" else b"MM"
    if layout.big:
        body[:16] = mark + struct.pack(order + "HHHQ", 43, 8, 0, len(body))
    else:
        body[:8] = mark + struct.pack(order + "HI", 42, len(body))
    return bytes(body) + count + directory + bytes(size)
