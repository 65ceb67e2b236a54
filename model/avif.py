"""How many pixels an AVIF really holds, by the AV1 streams in it.

libavif believes the boxes when it says how large a picture is, and AV1 decoders believe the stream: a file of three
kilobytes that announces 16×16 may hold a frame of 16,000×16,000, which is decoded and then scaled down, or cells of a
grid that are small and are to be scaled up. So the streams' own headers are read here, of every AV1 item, and of the
first sample of every AV1 track, as only that is decoded; and each item's size in the boxes, not only the picture's.
Boxes are those of ISO/IEC 14496-12 and 23008-12; bits those of the AV1 specification, 5.3 to 5.9.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import ImageTooLarge

_MAX_BOXES = 4096
_MAX_ITEMS = 4096
_MAX_ASSOCIATIONS = 65_536
_MAX_OBUS = 4096
_HEADER_BYTES = 1024  # the longest sequence header takes 450

# A picture, its alpha and its gain map may each be of the full size, and are separate streams.
_STREAMS = 3

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER = 1, 3, 6, 7
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_CHOSEN_BY_FRAME = 2


def pixels_to_decode(data: bytes) -> int:
    """Pixels of the largest stream, or of all streams over 3, whichever is more; 0 for a file that is cut off.

    Raises `ImageTooLarge` for more boxes, items or frames than are read, and any other exception for a file whose
    streams cannot be found or followed.
    """
    pixels, left = [], 2 * len(data)
    for announced, stream in _streams(data):
        pixels.append(max(announced, sum(_frames(stream))))
        left -= len(stream)
        if left < 0:
            raise ValueError("streams that share their bytes")
    if not pixels:
        raise ValueError("no AV1 stream is where one is looked for")
    return max(*pixels, -(-sum(pixels) // _STREAMS))


def _streams(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The AV1 streams that may be decoded, each behind the pixels that its boxes announce.

    Nothing is in a stream that the file is too short for, which nobody will decode, nor in that of a grid.
    """
    for kind, at, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            yield from _items(data, at + 4, end)
        elif kind == b"moov":
            for child, start, stop in _boxes(data, at, end):
                if child == b"trak":
                    yield from _first_sample(data, start, stop)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Each box's kind, and where its content begins and ends."""
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
            raise ValueError("a box that ends before it begins")
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
    """The ids of items that are AV1 streams, or grids of such items."""
    for kind, start, _ in _boxes(data, at + (8 if data[at] else 6), end):
        wide = 2 * (data[start] > 2)
        item_kind = data[start + 8 + wide : start + 12 + wide]
        if kind == b"infe" and item_kind in (b"av01", b"grid"):
            kinds.setdefault(int.from_bytes(data[start + 4 : start + 6 + wide]), set()).add(item_kind)


def _read_sizes(data: bytes, at: int, end: int, sizes: dict[int, int]) -> None:
    """The pixels of items, by the properties that they share."""
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
    """Items' ids, each with the number of one of its properties, from 1; 0 is none."""
    bits = _Bits(data[at + 4 : end])
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
    """Each item's id, whether it lies in `idat`, and its extents: offset and size in bytes."""
    version = data[at]
    bits = _Bits(data[at + 4 : end])
    offset_bits, size_bits, base_bits, index_bits = (8 * bits.read(4) for _ in range(4))
    items = bits.read(32 if version == 2 else 16)
    extents_left = _MAX_ITEMS
    if items > _MAX_ITEMS:
        raise ImageTooLarge(f"this AVIF has too many items; {_MAX_ITEMS:,} are read")
    for _ in range(items):
        item = bits.read(32 if version == 2 else 16)
        in_idat = version > 0 and bits.read(16) & 15 == 1
        bits.read(16)  # the file that it is in, which can only be this one
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
    """The first sample of a track, if it is one of AV1."""
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
    """The boxes that say how large a track is and where its samples are, of which there is to be one of each kind."""
    seen: set[bytes] = set()
    for kind, start, stop in _boxes(data, at, end):
        if kind in (b"mdia", b"minf", b"stbl"):
            yield from _tables(data, start, stop)
        elif kind in (b"tkhd", b"stsd", b"stsz", b"stco", b"co64"):
            if kind in seen or {kind, *seen} >= {b"stco", b"co64"}:
                raise ValueError("a second table of samples")
            seen.add(kind)
            yield kind, start, stop


def _joined(data: bytes, start: int, extents: list[tuple[int, int]]) -> bytes:
    if sum(size for _, size in extents) > len(data):
        raise ValueError("extents that are larger than the file")
    pieces = [data[start + offset : start + offset + size] for offset, size in extents]
    return b"".join(pieces) if [len(piece) for piece in pieces] == [size for _, size in extents] else b""


class _Bits:
    """Unsigned numbers of so many bits each, the highest first. Reading beyond the end raises `ValueError`."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, bits: int) -> int:
        start, self._at = self._at, self._at + bits
        if self._at > 8 * len(self._data):
            raise ValueError("a header that ends too soon")
        whole = int.from_bytes(self._data[start // 8 : -(-self._at // 8)])
        return whole >> -self._at % 8 & (1 << bits) - 1

    def skip_variable(self) -> None:
        """A number that begins with as many zeros as it then has bits: `uvlc()`."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        self.read(zeros if zeros < 32 else 0)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What a sequence header says that a frame's size, or the way to it through its header, depends on."""

    reduced: bool
    size: tuple[int, int]
    # A frame may say its own size, of as many bits.
    size_bits: tuple[int, int]
    presentation_time_bits: int
    frame_id_bits: int
    screen_content: int
    integer_motion: int


def _frames(stream: bytes) -> Iterator[int]:
    """Pixels that each frame of a stream of OBUs may take, whether or not it is shown."""
    sequence: _Sequence | None = None
    for kind, content in _obus(stream):
        if kind == _SEQUENCE_HEADER:
            sequence = _sequence(_Bits(content))
        elif kind in (_FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER):
            if sequence is None:
                raise ValueError("a frame before its sequence header")
            if _has_size_of_its_own(_Bits(content), sequence):
                yield 1 << sum(sequence.size_bits)
            else:
                yield sequence.size[0] * sequence.size[1]


def _obus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Each OBU's type and the beginning of its content."""
    at = 0
    for _ in range(_MAX_OBUS):
        if at >= len(stream):
            return
        header, at = stream[at], at + 1
        at += header >> 2 & 1  # a byte of layers
        size = len(stream) - at
        if header & 2:
            size = 0
            for shift in range(0, 56, 7):
                byte, at = stream[at], at + 1
                size |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
        yield header >> 3 & 15, stream[at : at + min(size, _HEADER_BYTES)]
        at += size
    raise ImageTooLarge(f"this AVIF has too many OBUs; {_MAX_OBUS:,} are read")


def _sequence(bits: _Bits) -> _Sequence:
    """`sequence_header_obu()`, as far as what decides about sizes."""
    bits.read(4)  # profile, still picture
    reduced = bool(bits.read(1))
    presentation_time_bits = 0
    if reduced:
        bits.read(5)
    else:
        presentation_time_bits = _skip_timing_and_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    size = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    frame_id_bits = 0
    if not reduced and bits.read(1):
        frame_id_bits = bits.read(4) + 2
        frame_id_bits += bits.read(3) + 1
    bits.read(3)
    screen_content, integer_motion = (_CHOSEN_BY_FRAME, _CHOSEN_BY_FRAME) if reduced else _tools(bits)
    return _Sequence(
        reduced,
        size,
        (width_bits, height_bits),
        presentation_time_bits,
        frame_id_bits,
        screen_content,
        integer_motion,
    )


def _skip_timing_and_operating_points(bits: _Bits) -> int:
    """Returns how many bits a frame's time of presentation has: 0 where it has none."""
    presentation_time_bits = delay_bits = 0
    if bits.read(1):
        bits.read(64)
        equal_intervals = bits.read(1)
        if equal_intervals:
            bits.skip_variable()
        if bits.read(1):
            delay_bits = bits.read(5) + 1
            bits.read(37)
            presentation_time_bits = bits.read(5) + 1
            if equal_intervals:
                presentation_time_bits = 0
    initial_delays = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if initial_delays and bits.read(1):
            bits.read(4)
    return presentation_time_bits


def _tools(bits: _Bits) -> tuple[int, int]:
    """Whether frames have tools for screen content, and motion by whole pixels: no, yes, or as each says."""
    bits.read(4)
    order_hints = bits.read(1)
    bits.read(2 * order_hints)
    screen_content = _CHOSEN_BY_FRAME if bits.read(1) else bits.read(1)
    integer_motion = _CHOSEN_BY_FRAME
    if screen_content and not bits.read(1):
        integer_motion = bits.read(1)
    return screen_content, integer_motion


def _has_size_of_its_own(bits: _Bits, sequence: _Sequence) -> bool:
    """`frame_size_override_flag` of an `uncompressed_header()`."""
    if sequence.reduced or bits.read(1):  # the latter shows a frame again
        return False
    kind, shown = bits.read(2), bits.read(1)
    if shown:
        bits.read(sequence.presentation_time_bits)
    else:
        bits.read(1)
    if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and shown):
        bits.read(1)
    bits.read(1)
    screen_content = bits.read(1) if sequence.screen_content == _CHOSEN_BY_FRAME else sequence.screen_content
    if screen_content and sequence.integer_motion == _CHOSEN_BY_FRAME:
        bits.read(1)
    bits.read(sequence.frame_id_bits)
    return kind == _SWITCH_FRAME or bool(bits.read(1))
