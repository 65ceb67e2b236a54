"""How many pixels decoding an AVIF takes, from its boxes and the AV1 streams in it.

libavif takes the size of a picture from the boxes, AV1 decoders take it from the stream. A file of three kilobytes that
announces 16×16 may hold a frame of 16,000×16,000, which is decoded and then scaled down, or grid cells that are small
and get scaled up. This module therefore reads the headers of the streams: of every AV1 item, and of the first sample of
every AV1 track, since only that is decoded. It also reads the size of every item in the boxes, not only the picture's.
Boxes are those of ISO/IEC 14496-12 and 23008-12.
"""

import struct
from collections.abc import Iterator

from model.errors import ImageTooLarge
from model.images import av1
from model.images.av1 import Bits

_MAX_BOXES = 4096
_MAX_ITEMS = 4096
_MAX_ASSOCIATIONS = 65_536

# A picture, its alpha and its gain map are separate streams, and each may have the full size.
_STREAMS = 3


def pixels_to_decode(data: bytes) -> int:
    """Pixels of the largest stream, or a third of all streams' if that is more; 0 for a file that is cut off.

    Raises `ImageTooLarge` for more boxes, items or frames than are read, and any other exception for a file whose
    streams cannot be found or followed.
    """
    pixels, left = [], 2 * len(data)
    for announced, stream in _streams(data):
        pixels.append(max(announced, sum(av1.frame_pixels(stream))))
        left -= len(stream)
        if left < 0:
            raise ValueError("streams share their bytes")
    if not pixels:
        raise ValueError("there is no AV1 stream where one must be")
    return max(*pixels, -(-sum(pixels) // _STREAMS))


def _streams(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The AV1 streams that may be decoded: the pixels that the boxes announce, and the bytes.

    A grid has no bytes of its own. Neither has a stream that the file is too short for: it will not be decoded.
    """
    for kind, at, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            yield from _items(data, at + 4, end)
        elif kind == b"moov":
            for child, start, stop in _boxes(data, at, end):
                if child == b"trak":
                    yield from _first_sample(data, start, stop)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and where its content begins and ends."""
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        content = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = at + size if size else end
        if stop < content:
            raise ValueError("a box ends before it begins")
        yield kind, content, min(stop, end)
        at = stop
    raise ImageTooLarge(f"this AVIF has too many boxes; {_MAX_BOXES:,} are read")


def _items(data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    kinds: dict[int, set[bytes]] = {}
    sizes: dict[int, int] = {}
    locations: list[tuple[int, bool, list[tuple[int, int]]]] = []
    idat = 0
    for kind, start, stop in _boxes(data, at, end):
        if kind == b"iinf":
            _read_kinds(data, start, stop, kinds)
        elif kind == b"iprp":
            _read_sizes(data, start, stop, sizes)
        elif kind == b"iloc":
            locations += _locations(data, start, stop)
        elif kind == b"idat":
            idat = start
    for item, in_idat, extents in locations:
        content = _joined(data, idat if in_idat else 0, extents) if kinds.get(item) else b""
        if b"av01" in kinds.get(item, ()):
            yield sizes.get(item, 0), content
        if b"grid" in kinds.get(item, ()) and content:
            width, height = struct.unpack_from(">II" if content[1] & 1 else ">HH", content, 4)
            yield max(sizes.get(item, 0), width * height), b""


def _read_kinds(data: bytes, at: int, end: int, kinds: dict[int, set[bytes]]) -> None:
    """Adds the ids of items that are AV1 streams or grids to `kinds`."""
    for kind, start, _ in _boxes(data, at + (8 if data[at] else 6), end):
        wide = 2 * (data[start] > 2)
        item_kind = data[start + 8 + wide : start + 12 + wide]
        if kind == b"infe" and item_kind in (b"av01", b"grid"):
            kinds.setdefault(int.from_bytes(data[start + 4 : start + 6 + wide]), set()).add(item_kind)


def _read_sizes(data: bytes, at: int, end: int, sizes: dict[int, int]) -> None:
    """Adds the pixels of items to `sizes`, from the properties that they share."""
    boxes = list(_boxes(data, at, end))
    properties = [box for kind, start, stop in boxes if kind == b"ipco" for box in _boxes(data, start, stop)]
    for kind, start, stop in boxes:
        if kind == b"ipma":
            for item, number in _associations(data, start, stop):
                property_kind, place, _ = properties[number - 1]
                if number and property_kind == b"ispe":
                    width, height = struct.unpack_from(">II", data, place + 4)
                    sizes[item] = max(sizes.get(item, 0), width * height)


def _associations(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """The id of an item and the number of one of its properties, counted from 1; 0 is none."""
    bits = Bits(data[at + 4 : end])
    count = 0
    for _ in range(bits.read(32)):
        item = bits.read(32 if data[at] else 16)
        for _ in range(bits.read(8)):
            count += 1
            if count > _MAX_ASSOCIATIONS:
                raise ImageTooLarge(f"this AVIF has too many properties; {_MAX_ASSOCIATIONS:,} are read")
            bits.read(1)  # whether it is essential
            yield item, bits.read(15 if data[at + 3] & 1 else 7)


def _locations(data: bytes, at: int, end: int) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """The id of each item, whether it lies in `idat`, and its extents: offset and size in bytes."""
    version = data[at]
    bits = Bits(data[at + 4 : end])
    offset_bits, size_bits, base_bits, index_bits = (8 * bits.read(4) for _ in range(4))
    items = bits.read(32 if version == 2 else 16)
    extents_left = _MAX_ITEMS
    if items > _MAX_ITEMS:
        raise ImageTooLarge(f"this AVIF has too many items; {_MAX_ITEMS:,} are read")
    for _ in range(items):
        item = bits.read(32 if version == 2 else 16)
        in_idat = version > 0 and bits.read(16) & 15 == 1
        bits.read(16)  # the index of the file, always this one
        base = bits.read(base_bits)
        extents: list[tuple[int, int]] = []
        for _ in range(bits.read(16)):
            extents_left -= 1
            if extents_left < 0:
                raise ImageTooLarge(f"this AVIF has too many extents; {_MAX_ITEMS:,} are read")
            bits.read(index_bits if version else 0)
            extents.append((base + bits.read(offset_bits), bits.read(size_bits)))
        yield item, in_idat, extents


def _first_sample(data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The first sample of a track if it is an AV1 track."""
    table = {kind: (start, stop) for kind, start, stop in _tables(data, at, end)}
    start, stop = table.get(b"stsd", (0, 0))
    if b"av01" not in data[start:stop]:
        return
    header = table[b"tkhd"][0]
    width, height = struct.unpack_from(">II", data, header + (88 if data[header] else 76))
    (size,) = struct.unpack_from(">I", data, table[b"stsz"][0] + 4)
    if not size:
        (size,) = struct.unpack_from(">I", data, table[b"stsz"][0] + 12)
    kind, number = (b"stco", ">I") if b"stco" in table else (b"co64", ">Q")
    (offset,) = struct.unpack_from(number, data, table[kind][0] + 8)
    yield (width >> 16) * (height >> 16), _joined(data, 0, [(offset, size)])


def _tables(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes with the size of a track and the places of its samples. Raises `ValueError` for two of a kind."""
    seen: set[bytes] = set()
    for kind, start, stop in _boxes(data, at, end):
        if kind in (b"mdia", b"minf", b"stbl"):
            yield from _tables(data, start, stop)
        elif kind in (b"tkhd", b"stsd", b"stsz", b"stco", b"co64"):
            if kind in seen or {kind, *seen} >= {b"stco", b"co64"}:
                raise ValueError("there are two tables of samples")
            seen.add(kind)
            yield kind, start, stop


def _joined(data: bytes, start: int, extents: list[tuple[int, int]]) -> bytes:
    if sum(size for _, size in extents) > len(data):
        raise ValueError("the extents are larger than the file")
    pieces = [data[start + offset : start + offset + size] for offset, size in extents]
    return b"".join(pieces) if [len(piece) for piece in pieces] == [size for _, size in extents] else b""
