#!/usr/bin/env bash
# Pillow: a 16-bit gray TIFF in which 0 is white opens as its negative.
#
# Versions: pillow 13.0.0, pyvips-binary 8.18.7, pyvips 3.2.0. Seen on 2026-11-29.
# Behaviour: PhotometricInterpretation 0 says that 0 is white (TIFF 6.0, section 3). Pillow inverts such pictures of 1 to 8
#   bits. Of 16 bits it gives the samples as they are stored, in mode I;16, as if 0 were black; the big-endian file of
#   the same samples is refused. libvips inverts all three.
# Output seen (the first pixel is white, and stored as 0):
#   8 bits, little-endian: pillow 255; libvips 255
#   16 bits, little-endian: pillow 0; libvips 255
#   16 bits, big-endian: pillow refuses it; libvips 255
# Why it matters: scanners and medical software write such files. The negative is embedded without a word, and is far
#   from the picture that the same scan has in 8 bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 pyvips-binary==8.18.7 pyvips==3.2.0
venv/bin/python - <<'PYTHON'
import io
import struct
import sys

import pyvips
from PIL import Image, UnidentifiedImageError


def tiff(bits: int, order: str) -> bytes:
    """A gray TIFF of 8×8 samples of 0, in which 0 is white."""
    pixels = bytes(8 * 8 * bits // 8)
    tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, 0), (273, 8), (277, 1), (278, 8), (279, len(pixels))]
    directory = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(pixels))
    return start + pixels + struct.pack(order + "H", len(tags)) + directory + bytes(4)


def by_pillow(data: bytes, bits: int) -> str:
    try:
        sample = Image.open(io.BytesIO(data)).getpixel((0, 0))
    except UnidentifiedImageError:
        return "refuses it"
    return str(sample >> (bits - 8))


def by_libvips(data: bytes, bits: int) -> str:
    return str(int(pyvips.Image.new_from_buffer(data, "")(0, 0)[0]) >> (bits - 8))


stated = {(8, "<"): "255", (16, "<"): "0", (16, ">"): "refuses it"}
as_stated = True
for (bits, order), expected in stated.items():
    data = tiff(bits, order)
    pillow, libvips = by_pillow(data, bits), by_libvips(data, bits)
    print(f"{bits} bits, {'little' if order == '<' else 'big'}-endian: pillow {pillow}; libvips {libvips}")
    as_stated &= (pillow, libvips) == (expected, "255")
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
