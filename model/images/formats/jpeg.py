"""JPEGs without an end marker. Browsers show them; Pillow refuses them, or takes whatever follows for the marker.

Nothing tells how much of such a picture is there. So it is decoded several times, each time with other noise behind
its last byte: rows that the noise changes are missing. Markers are those of ITU T.81, table B.1.
"""

import re
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from random import Random

from PIL import Image

from model.errors import UndecodableImage

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_END = b"\xff\xd9"
_EOI, _SOS, _DRI = 0xD9, 0xDA, 0xDD
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xCA}
_BASELINE = {0xC0, 0xC1}
# What may stand between scans: tables, comments and segments of applications.
_BETWEEN = {0xC4, 0xCC, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)}
# What cameras append: a film, or Samsung's table of what it appended.
_TRAILER = re.compile(rb"\x00\x00\x00.ftyp[\w ]{4}|SEFH[\x64-\x6f]\x00\x00\x00", re.DOTALL)

_NOISE_BYTES = 1024
_NOISES = 3
_BAND = 64  # rows


@dataclass(slots=True)
class _Walk:
    """What the segments of a file say. left: the coefficients of each component that no scan has made final."""

    frame: int = 0
    mcu_rows: int = 0
    mcu_height: int = 8
    restarts: bool = False
    scan_start: int = 0
    left: dict[int, set[int]] = field(default_factory=dict)

    def enter(self, code: int, content: bytes) -> None:
        """Takes note of a segment: its marker, and what follows its length."""
        if code in _FRAMES and not self.frame:
            self.frame = code
            components = [content[start : start + 3] for start in range(6, 6 + 3 * content[5], 3)]
            self.left = {component[0]: set(range(64)) for component in components}
            self.mcu_height = 8 * max(component[1] & 15 for component in components)
            self.mcu_rows = -(-int.from_bytes(content[1:3]) // self.mcu_height)
        elif code == _DRI:
            self.restarts = content[:2] != b"\0\0"
        elif code == _SOS:
            count = content[0]
            first, last, low_bits = content[1 + 2 * count], content[2 + 2 * count], content[3 + 2 * count] & 15
            final = set(range(first, last + 1)) if self.frame in _PROGRESSIVE else set(range(64))
            for component in content[1 : 1 + 2 * count : 2]:
                if self.frame not in _PROGRESSIVE or low_bits == 0:
                    self.left[component] -= final

    @property
    def complete(self) -> bool:
        """Whether no further scan is needed."""
        return bool(self.left) and not any(self.left.values())


def openable(data: bytes) -> bytes:
    """The file without line ends before it, which some clients leave there."""
    return data.lstrip(b"\r\n")


def lacks_end(image: Image.Image, data: bytes) -> bool:
    """Whether a file has all its scans and no end marker behind the last. image: as Pillow opened it."""
    return not _surely_ends(image, data) and _walked(openable(data))[1] is not None


def repaired(image: Image.Image, data: bytes) -> bytes:
    """The file itself, or with an end marker if it lacks one. image: as Pillow opened it.

    Raises `UndecodableImage` if more than the last row of blocks is missing, or any of a picture of one row, and
    whatever Pillow raises. Call it only for a file that `container` has checked.
    """
    if _surely_ends(image, data):
        return data
    start = openable(data)
    walk, end = _walked(start)
    if end is None:
        return data
    pixels = start[:end]
    sure = pixels.rstrip(b"\0")  # zeros are behind a picture rather than in it
    if sure.endswith(b"\xff"):
        sure += b"\0"  # but one belongs to each 255 in it
    noises = _noises(sure, walk)
    # A baseline picture is decoded quickly at an eighth of its size, where most are refused. A part of a block that is
    # missing shows only at the full size.
    for scale in (8, 1) if walk.frame in _BASELINE and min(image.size) >= 8 else (1,):
        seen = _checksum(sure + _END, walk, scale)
        if any(_checksum(sure + noise + _END, walk, scale) != seen for noise in noises):
            raise UndecodableImage("this JPEG is truncated: more than its last row of blocks is missing")
    return pixels + _END


def _surely_ends(image: Image.Image, data: bytes) -> bool:
    """Whether the last bytes are the picture's end marker. In a file of several pictures they are that of the last."""
    return data.endswith(_END) and "mp" not in image.info


def _walked(data: bytes) -> tuple[_Walk, int | None]:
    walk, at = _Walk(), 2
    while marker := _MARKER.search(data, at):
        at, code = marker.end(), data[marker.end() - 1]
        if walk.complete or code == _EOI:
            break
        if walk.scan_start and code not in _BETWEEN and code != _SOS:
            return walk, None
        length = int.from_bytes(data[at : at + 2])
        walk.enter(code, data[at + 2 : at + length])
        at += length
        if code == _SOS:
            walk.scan_start = at
    if not walk.complete or (marker and code == _EOI):
        return walk, None
    end = marker.start() if marker else len(data)
    trailer = _TRAILER.search(data, walk.scan_start, end)
    # A file that was cut in its end marker ends with half of it.
    return walk, len(data[: trailer.start() if trailer else end].rstrip(b"\xff"))


def _noises(pixels: bytes, walk: _Walk) -> list[bytes]:
    """What could stand where a file ends. Behind a restart interval only the next restart marker is looked for."""
    last = max(range(8), key=lambda number: pixels.rfind(bytes([0xFF, 0xD0 + number]), walk.scan_start))
    if pixels.rfind(bytes([0xFF, 0xD0 + last]), walk.scan_start) < 0:
        last = 7
    restart = bytes([0xFF, 0xD0 + (last + 1) % 8])
    noises = [Random(seed).randbytes(_NOISE_BYTES).replace(b"\xff", b"\0") for seed in range(_NOISES)]
    return noises + [restart + noise for noise in noises if walk.restarts]


def _checksum(data: bytes, walk: _Walk, scale: int) -> int:
    """A checksum of the rows that must be there, decoded at 1 / `scale` of their size."""
    image = Image.open(BytesIO(data), formats=("JPEG",))
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))
    # The lowest row of pixels above the last row of blocks takes colour from there, where colour is halved.
    rows = (walk.mcu_rows - 1) * walk.mcu_height // scale - (scale == 1 and walk.mcu_height > 8)
    checksum, end = 0, image.height if walk.mcu_rows == 1 else rows
    image.load()
    for top in range(0, end, _BAND):  # in bands: taking all bytes at once would hold the interpreter's lock
        checksum = zlib.crc32(image.crop((0, top, image.width, min(top + _BAND, end))).tobytes(), checksum)
    return checksum
