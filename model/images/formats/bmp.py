"""BMPs whose masks Pillow does not know or scales downwards, and alpha that was not meant.

Structures are those of Microsoft's "Bitmap Storage".
"""

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from model.errors import UnsupportedFormat
from model.images.colour import to_8_bits
from model.images.formats import bmp_runs

_MASKS_AT = 54
_CODING_AT = 30
_BITFIELDS, _ALPHA_BITFIELDS = 3, 6  # Windows CE has the second, with a mask of alpha whatever the header
_HEADERS_WITH_MASKS = {40, 52, 56, 108, 124}  # bytes; a larger header than 52 holds a mask of alpha
_FIVES: tuple[int, ...] = (0x7C00, 0x03E0, 0x001F, 0)
_BYTES: tuple[int, ...] = (0xFF0000, 0xFF00, 0xFF, 0)
_BAND = 64  # rows
# Hardly a program writes these. ImageMagick, GraphicsMagick and FFmpeg do not read RLE24 either, so that nothing could
# tell whether a reader of ours is right.
_NOT_READ = {
    (2, 0): "a palette of 2 bits",
    (24, 4): "OS/2's run lengths of 24-bit colours (RLE24)",
    (1, 3): "OS/2's Huffman codes",
    (0, 4): "a JPEG inside of it",
    (0, 5): "a PNG inside of it",
    **{(bits, coding): "CMYK" for bits in (4, 8, 32) for coding in (11, 12, 13)},
}  # by bits a pixel and the coding
# What Pillow reads of 32 bits a pixel: blue, green and red, from the lowest byte or the one above it, and alpha.
_READ_BY_PILLOW: set[tuple[int, ...]] = {
    _BYTES,
    (0xFF000000, 0xFF0000, 0xFF00, 0),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
}


def openable(data: bytes) -> bytes:
    """The file itself, or with other masks if Pillow would not open it with these. Raises `UnsupportedFormat` for one
    of the variants that are not read."""
    bits, coding = struct.unpack_from("<HI", data, 28)
    if data[14] >= 40 and (bits, coding) in _NOT_READ:
        raise UnsupportedFormat(f"a BMP with {_NOT_READ[bits, coding]} is not read; save the image as PNG")
    masks = _masks(data)
    if masks is None or data[_CODING_AT] not in (_BITFIELDS, _ALPHA_BITFIELDS):
        return data
    known = struct.pack("<IIII", *(_FIVES if data[28] == 16 else _BYTES))[: 16 if data[14] > 52 else 12]
    head = data[:_CODING_AT] + bytes([_BITFIELDS]) + data[_CODING_AT + 1 : _MASKS_AT]
    return b"".join((head, known, memoryview(data)[_MASKS_AT + len(known) :]))


def decoded(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """The picture in mode RGB or RGBA, or as Pillow gives it. image: opened from `openable(data)`.

    Alpha that is 0 everywhere was not meant: the picture is opaque. In a BMP of run lengths it says what no run covers.
    """
    if bmp_runs.is_coded(data):
        return bmp_runs.decoded(data, image.size)
    masks = _masks(data)
    if masks is None:
        image.load()
        picture: Image.Image = image
    else:
        numbers = _numbers(data, image.height, image.width)
        masks = masks if masks[3] else masks[:3]
        picture = Image.new("RGBA" if len(masks) == 4 else "RGB", image.size)
        for top in range(0, image.height, _BAND):  # in bands: all at once would hold the interpreter's lock
            channels = [_scaled(numbers[top : top + _BAND], mask) for mask in masks]
            picture.paste(Image.fromarray(np.stack(channels, axis=-1)), (0, top))
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (0, 0):
        picture = picture.convert("RGB")
    return picture


def _masks(data: bytes) -> tuple[int, ...] | None:
    """The masks of red, green, blue and alpha; None if the file has none or Pillow reads them rightly."""
    (header,) = struct.unpack_from("<I", data, 14)
    bits, coding = struct.unpack_from("<HI", data, 28)
    if header >= 40 and bits == 16 and coding == 0:
        return _FIVES
    if bits not in (16, 32) or header not in _HEADERS_WITH_MASKS or coding not in (_BITFIELDS, _ALPHA_BITFIELDS):
        return None
    has_alpha = header > 52 or coding == _ALPHA_BITFIELDS
    masks: tuple[int, ...] = struct.unpack_from("<IIII" if has_alpha else "<III", data, _MASKS_AT)
    masks = masks if has_alpha else (*masks, 0)
    return None if bits == 32 and coding == _BITFIELDS and masks in _READ_BY_PILLOW else masks


def _numbers(data: bytes, height: int, width: int) -> NDArray[np.unsignedinteger]:
    """The pixels as they stand in the file, `[h, w]`, the uppermost row first."""
    start, pixel_bytes = struct.unpack_from("<I", data, 10)[0], data[28] // 8
    row_bytes = -(-width * pixel_bytes // 4) * 4
    rows = np.frombuffer(data, np.uint8, height * row_bytes, start).reshape(height, row_bytes)
    numbers = rows[:, : width * pixel_bytes].view(f"<u{pixel_bytes}")
    top_down = struct.unpack_from("<i", data, 22)[0] < 0
    return numbers if top_down else numbers[::-1]


def _scaled(numbers: NDArray[np.unsignedinteger], mask: int) -> NDArray[np.uint8]:
    """The samples under a mask: stretched over 0 to 255, or the highest 8 bits of more."""
    if not mask:
        return np.zeros(numbers.shape, np.uint8)
    lowest = (mask & -mask).bit_length() - 1
    return to_8_bits((numbers & mask) >> lowest, mask.bit_count())
