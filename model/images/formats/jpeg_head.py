"""Plain JPEGs: those whose size the first segments say so simply that no decoder needs to be asked.

Most JPEGs that are sent are plain. Reading their size takes a few microseconds of bounded work, so it may be done on an
event loop. Whatever is unusual is left to Pillow. Markers are those of ITU T.81, table B.1.
"""

import struct
from collections.abc import Iterator

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
# Segments before the pixels. A phone's photo has about 15.
_MOST_SEGMENTS = 48
# A file of several pictures, and what Pillow keeps of FlashPix.
_UNUSUAL_APP2 = (b"MPF\0", b"FPXR\0")
_EXIF = b"Exif\0\0"
_SOF0, _DHT, _SOS, _DQT, _DRI, _APP0, _APP1, _APP2, _APP14, _COM = (
    0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE,
)  # fmt: skip
_TABLE_BYTES = 65
# What Pillow reads at fixed places of these, without a look at how long they are.
_LEAST = {_APP0: (b"JFIF", 7), _APP2: (b"ICC_PROFILE\0", 14), _APP14: (b"Adobe", 7)}
_ORIENTATION, _SHORT, _RATIONAL = 0x0112, 3, 5
# The type of each tag of EXIF that Pillow reads with the header: the orientation, and what it makes dots per inch of.
_TAGS = {_ORIENTATION: _SHORT, 0x0128: _SHORT, 0x011A: _RATIONAL}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_MOST_TAGS = 64
# Those that swap the picture's sides.
_ON_ITS_SIDE = (5, 6, 7, 8)


def plain_size(data: bytes) -> tuple[int, int] | None:
    """`(height, width)` of the upright picture. None unless the file is a baseline JPEG, gray or of three components in
    one scan, that ends with its end marker and has nothing in front of its pixels but what is common."""
    if not data.startswith(_START) or not data.endswith(_END) or data[4:8] == b"ftyp":
        return None
    components, size, turned = 0, (0, 0), None
    for code, start, end in _segments(data):
        if code == _SOS:
            return (size[::-1] if turned else size) if components and data[start] == components else None
        if code == _SOF0 and not components:
            components, size = _frame(data, start, end)
            if not components:
                return None
        elif code == _APP1 and turned is None and data.startswith(_EXIF, start):
            turned = _turned(data[start + len(_EXIF) : end])
            if turned is None:
                return None
        elif not _is_common(code, data, start, end):
            return None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker of each segment, and where its content begins and ends. Stops at what is no segment."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if len(data) < at + 5 or data[at] != 0xFF:
            return
        code, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        start, at = at + 4, at + 2 + length
        if length < 3 or at > len(data):
            return
        yield code, start, at


def _frame(data: bytes, start: int, end: int) -> tuple[int, tuple[int, int]]:
    """The components of a frame, and its height and width. No components if it is unusual."""
    if end - start < 6:
        return 0, (0, 0)
    precision, height, width, components = struct.unpack_from(">BHHB", data, start)
    usual = precision == 8 and components in (1, 3) and end - start == 6 + 3 * components
    return components if usual and height and width else 0, (height, width)


def _is_common(code: int, data: bytes, start: int, end: int) -> bool:
    """Whether a segment is one that Pillow never refuses, and that changes nothing of the size."""
    if code == _DQT:
        return (end - start) % _TABLE_BYTES == 0 and all(data[at] <= 3 for at in range(start, end, _TABLE_BYTES))
    if code in _LEAST:
        name, least = _LEAST[code]
        cut = data.startswith(name, start) and end - start < least
        return not cut and not data.startswith(_UNUSUAL_APP2, start)
    return code in (_DHT, _DRI, _COM) or (code == _APP1 and not data.startswith(_EXIF, start))


def _turned(exif: bytes) -> bool | None:
    """Whether the picture lies on its side, by the first directory of a block of EXIF. None if that is unusual."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return None
    (offset,) = struct.unpack_from(f"{order}I", exif, 4)
    if not 8 <= offset <= len(exif) - 2:
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, offset)
    if count > _MOST_TAGS or offset + 2 + 12 * count > len(exif):
        return None
    found: dict[int, int] = {}
    left = len(exif)
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        # Pillow stops at a tag whose content is cut off, and passes over those that take more than all of the block.
        if (size := values * _TYPE_BYTES.get(kind, len(exif) + 1)) > 4:
            left -= size
            if left < 0 or struct.unpack_from(f"{order}I", exif, entry + 8)[0] + size > len(exif):
                return None
        if tag in _TAGS and (tag in found or kind != _TAGS[tag] or values != 1):
            return None
        found[tag] = value
    return found.get(_ORIENTATION) in _ON_ITS_SIDE
