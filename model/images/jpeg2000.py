"""How much decoding a JPEG 2000 takes, from the headers of its codestream (ISO/IEC 15444-1, annex A).

OpenJPEG allocates every tile, precinct and code-block that a header announces, whether or not bytes of it follow: with
tiles of one pixel, or precincts of two, a file of 700 bytes takes gigabytes. It also takes the size of the picture from
the codestream, not from the boxes around it that Pillow reads. Knows nothing of packets.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import ImageTooLarge

# A tile takes about 12 kB, a precinct or code-block about 200 bytes. A file may have this many, or one for this many
# pixels if that is more. Precincts and code-blocks are counted in one tile.
_TILES, _PIXELS_A_TILE = 4096, 256 * 256
_BLOCKS, _PIXELS_A_BLOCK = 1_048_576, 16 * 16
_MAX_PACKETS = 4_194_304  # layers × precincts of a tile
_MAX_BOXES = 4096
_MAX_SEGMENTS = 65_536  # of the main header and all tile-parts

_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_KNOWN = {_COD, _COC, _SOT, *range(0xFF50, 0xFF52), 0xFF55, *range(0xFF57, 0xFF5A), *range(0xFF5C, 0xFF62)}
_KNOWN |= {0xFF63, 0xFF64, 0xFF74, 0xFF75, 0xFF77, 0xFF78}


@dataclass(frozen=True, slots=True)
class _Coding:
    """How the components of a tile are divided: exponents of two."""

    layers: int
    block: tuple[int, int]
    precincts: tuple[tuple[int, int], ...]  # of each resolution, the smallest first


def pixels_to_decode(data: bytes) -> int:
    """Pixels that the codestream announces.

    Raises `ImageTooLarge` for too many tiles, precincts or packets, and any other exception for a broken header.
    """
    start = _codestream(data)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", data, start + 8
    )
    if not 1 <= components <= 4:
        raise ValueError("Pillow reads 1 to 4 components")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    width, height = right - left, bottom - top
    pixels: int = width * height
    max_tiles, max_blocks = max(_TILES, pixels // _PIXELS_A_TILE), max(_BLOCKS, pixels // _PIXELS_A_BLOCK)
    if tiles > max_tiles:
        raise ImageTooLarge(f"this JPEG 2000 has too many tiles for its size; {max_tiles:,} are decoded")
    codings = list(_codings(data, start))
    layers = max((coding.layers for coding in codings), default=1)
    for coding in codings:
        precincts, blocks = _count(coding, min(width, tile_width), min(height, tile_height))
        if components * (precincts + blocks) > max_blocks:
            raise ImageTooLarge(
                f"this JPEG 2000 has too many precincts or code-blocks for its size; {max_blocks:,} are decoded"
            )
        if components * precincts * layers > _MAX_PACKETS:
            raise ImageTooLarge(f"this JPEG 2000 has too many packets; {_MAX_PACKETS:,} are decoded")
    return pixels


def _count(coding: _Coding, width: int, height: int) -> tuple[int, int]:
    """An upper bound of the precincts and code-blocks in one component of a tile, over all resolutions and bands."""
    precincts = blocks = 0
    for resolution, (precinct_x, precinct_y) in enumerate(coding.precincts):
        lower = resolution > 0  # the lowest has one band of its own size; the others have three of half their size
        shift = len(coding.precincts) - 1 - resolution + lower
        bands, band_width, band_height = 1 + 2 * lower, width >> shift, height >> shift
        precinct_x, precinct_y = max(precinct_x - lower, 0), max(precinct_y - lower, 0)
        block_x, block_y = min(coding.block[0], precinct_x), min(coding.block[1], precinct_y)
        # Two more for each side: the grid may cut both ends.
        precincts += bands * ((band_width >> precinct_x) + 2) * ((band_height >> precinct_y) + 2)
        blocks += bands * ((band_width >> block_x) + 2) * ((band_height >> block_y) + 2)
    return precincts, blocks


def _codestream(data: bytes) -> int:
    """The offset of the codestream: 0, or inside a box of its own."""
    if data.startswith(b"\xff\x4f"):
        return 0
    at = 0
    for _ in range(_MAX_BOXES):
        size, kind = struct.unpack_from(">I4s", data, at)
        content = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        if kind == b"jp2c":
            return content
        if size < content - at:
            raise ValueError("a box has no end")
        at += size
    raise ImageTooLarge(f"this JPEG 2000 has too many boxes; {_MAX_BOXES:,} are read")


def _codings(data: bytes, start: int) -> Iterator[_Coding]:
    """The coding styles in the main header and in the headers of all tile-parts."""
    for marker, at, size in _segments(data, start):
        if marker == _COD:
            style, _, layers, _ = struct.unpack_from(">BBHB", data, at)
            yield _coding(data[at + 5 : at + size], style, layers)
        elif marker == _COC:
            yield _coding(data[at + 2 : at + size], data[at + 1], 1)


def _coding(parameters: bytes, style: int, layers: int) -> _Coding:
    levels = parameters[0]
    sizes = parameters[5 : 6 + levels] if style & 1 else b"\xff" * (levels + 1)
    return _Coding(
        layers, (parameters[1] + 2, parameters[2] + 2), tuple((exponents & 15, exponents >> 4) for exponents in sizes)
    )


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """The marker segments of the main header and of tile-parts: marker, and the place and size of the content."""
    at, count, tile_part_ends = start + 2, 0, 0
    while at + 4 <= len(data):
        marker, size = struct.unpack_from(">HH", data, at)
        if marker == _EOC:
            return
        if marker == _SOD:
            if tile_part_ends <= at:
                raise ValueError("a tile-part ends within its header, or never began")
            at = tile_part_ends
            continue
        # OpenJPEG looks for the next marker inside the content of a segment that it does not know.
        if marker not in _KNOWN or size < 2:
            raise ValueError("a marker segment cannot be skipped")
        if marker == _SOT:
            (length,) = struct.unpack_from(">I", data, at + 6)
            tile_part_ends = at + length if length else len(data)
        count += 1
        if count > _MAX_SEGMENTS:
            raise ImageTooLarge(f"this JPEG 2000 has too many marker segments; {_MAX_SEGMENTS:,} are read")
        yield marker, at + 4, size - 2
        at += 2 + size
