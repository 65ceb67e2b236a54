#!/usr/bin/env bash
# Pillow: the transparent colour of a PNG is compared with samples of another scale.
#
# Versions: pillow 13.0.0, libvips 8.18.7 (pyvips 3.2.0). Seen on 2026-11-29.
# Behaviour: tRNS names one gray or colour that is transparent, in samples of the file's depth. Pillow keeps that number in
#   Image.info["transparency"] whatever the depth. Gray of 2 and 4 bits it stretches to 0..255, and compares the stretched
#   gray with the number as it stands. Of 16-bit RGB it keeps the high bytes, and compares them with the low bytes of the
#   key. So the transparent pixels stay opaque, and those of another colour vanish. libvips reads all of them as the
#   specification says (PNG, third edition, 11.3.1.1).
# Output seen (the alpha of a transparent pixel, and of another one, after convert("RGBA")):
#   gray of 2 bits, key 1: pillow [255, 255]; libvips [0, 255]
#   gray of 4 bits, key 5: pillow [255, 255]; libvips [0, 255]
#   gray of 8 bits, key 5: pillow [0, 255]; libvips [0, 255]
#   RGB of 16 bits, key 12fa 341e 5614: pillow [255, 0]; libvips [0, 255]
# Why it matters: a cut-out keeps its background, and parts of a picture are lost, without an error. A service that embeds
#   or trains on such files sees other pictures than their makers. Read the key from the chunk.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 pyvips==3.2.0 pyvips-binary==8.18.7
venv/bin/python - <<'PYTHON'
import io
import struct
import sys
import zlib

import pyvips
from PIL import Image

GRAY, RGB = 0, 2


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour: int, key: tuple[int, ...], other: tuple[int, ...]) -> bytes:
    """Two pixels: one of the transparent colour, and one of another."""
    bits = "".join(f"{sample:0{depth}b}" for sample in key + other)
    bits += "0" * (-len(bits) % 8)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    transparent = struct.pack(f">{len(key)}H", *key)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)


def by_pillow(data: bytes) -> list[int]:
    return list(Image.open(io.BytesIO(data)).convert("RGBA").getchannel("A").tobytes())


def by_libvips(data: bytes) -> list[int]:
    image = pyvips.Image.new_from_buffer(data, "")
    alpha = image[image.bands - 1]
    if alpha.format == "ushort":
        alpha = (alpha >> 8).cast("uchar")
    return list(bytes(alpha.write_to_memory()))


cases = [
    ("gray of 2 bits, key 1", png(2, GRAY, (1,), (2,)), [255, 255]),
    ("gray of 4 bits, key 5", png(4, GRAY, (5,), (9,)), [255, 255]),
    ("gray of 8 bits, key 5", png(8, GRAY, (5,), (9,)), [0, 255]),
    # The other colour's high bytes are the key's low bytes.
    ("RGB of 16 bits, key 12fa 341e 5614", png(16, RGB, (0x12FA, 0x341E, 0x5614), (0xFA11, 0x1E11, 0x1411)), [255, 0]),
]
as_stated = True
for name, data, expected in cases:
    pillow, libvips = by_pillow(data), by_libvips(data)
    print(f"{name}: pillow {pillow}; libvips {libvips}")
    as_stated &= (pillow, libvips) == (expected, [0, 255])
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
