"""BMPs of run lengths. Pillow refuses those with an empty row or without the last rows.

Pixels that no run covers are transparent, as in browsers. `model.images.container` limits how many there are.
"""

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BITS = {1: 8, 2: 4}  # by the coding
_END_OF_ROW, _END, _JUMP = 0, 1, 2


def is_coded(data: bytes) -> bool:
    """Whether a BMP holds run lengths."""
    header, bits, coding = (*struct.unpack_from("<I", data, 14), *struct.unpack_from("<HI", data, 28))
    return bool(header >= 40 and _BITS.get(coding) == bits)


def decoded(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The picture of `(width, height)` pixels in mode RGBA. Raises `ValueError` for runs that are cut off."""
    (start,), (header,) = struct.unpack_from("<I", data, 10), struct.unpack_from("<I", data, 14)
    entries = max(0, min(256, (start - 14 - header) // 4))
    palette = np.zeros((257, 4), np.uint8)  # the last one is that of pixels without a run
    colours = np.frombuffer(data, np.uint8, 4 * entries, 14 + header).reshape(entries, 4)
    palette[:entries, :3] = colours[:, 2::-1]
    palette[:256, 3] = 255
    width, height = size
    numbers = _numbers(data[start:], height, width, _BITS[data[30]])
    return Image.fromarray(palette[numbers[::-1]])


def _numbers(coded: bytes, height: int, width: int, bits: int) -> NDArray[np.int16]:
    """The number of each pixel's colour, `[h, w]`, the lowest row first; 256 where no run covers it."""
    numbers, uncovered = bytearray(height * width), bytearray(b"\1" * (height * width))
    at = x = y = 0
    while y < height:
        count, value = coded[at : at + 2]
        at += 2
        if count:
            piece = _unpacked(bytes([value]), bits) * count
        elif value == _END:
            break
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
            continue
        elif value == _JUMP:
            right, up = coded[at : at + 2]
            x, y, at = x + right, y + up, at + 2
            continue
        else:
            count = value
            size_bytes = -(-count * bits // 8)
            piece = _unpacked(coded[at : at + size_bytes], bits)
            at += size_bytes + size_bytes % 2
        taken = piece[: max(0, min(count, width - x))]
        place = y * width + x
        numbers[place : place + len(taken)] = taken
        uncovered[place : place + len(taken)] = bytes(len(taken))
        x += count
    low, high = (np.frombuffer(part, np.uint8).reshape(height, width) for part in (numbers, uncovered))
    return low + high.astype(np.int16) * 256


def _unpacked(packed: bytes, bits: int) -> bytes:
    """A byte for each number."""
    return packed if bits == 8 else bytes(half for byte in packed for half in (byte >> 4, byte & 15))
