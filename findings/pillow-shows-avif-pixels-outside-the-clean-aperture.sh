#!/usr/bin/env bash
# Pillow: the clean aperture of an AVIF is passed over, so that pixels are shown which are not part of the picture.
#
# Versions: pillow 13.0.0, libvips 8.18.7 (pyvips 3.2.0). Seen on 2026-11-29.
# Behaviour: the box `clap` says which part of the stored pixels is the picture (ISO/IEC 14496-12, 12.1.4). It is a
#   transformative property: a reader must apply it, before `irot` and `imir` (ISO/IEC 23000-22, MIAF, 7.3.6.7). Pillow
#   turns by `irot` and `imir`, and gives all stored pixels. libvips cuts.
# Output seen (width, height):
#   as stored: pillow (32, 24); libvips (32, 24)
#   with clap of 31 x 23: pillow (32, 24); libvips (31, 23)
#   with clap and irot: pillow (24, 32); libvips (23, 31)
# Why it matters: encoders that need even sides, and cameras that crop, store more than is to be seen. A service that embeds
#   or trains on such files takes the border for a part of the picture. Read the box from the file and cut.
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

import pyvips
from PIL import Image

# Half a pixel to the left and up from the middle: without the last column and the last row.
CLAP = struct.pack(">IIIIiIiI", 31, 1, 23, 1, -1, 2, -1, 2)


def with_properties(data: bytes, *properties: tuple[bytes, bytes]) -> bytes:
    """An AVIF of one item, to which further properties belong. Sizes and offsets are corrected."""
    boxes = b"".join(struct.pack(">I4s", 8 + len(content), kind) + content for kind, content in properties)
    ipco, ipma, iprp, meta, iloc = (data.index(kind) - 4 for kind in (b"ipco", b"ipma", b"iprp", b"meta", b"iloc"))
    end = ipco + int.from_bytes(data[ipco : ipco + 4])
    at, count = ipco + 8, 0
    while at < end:
        at, count = at + int.from_bytes(data[at : at + 4]), count + 1
    numbers = bytes(0x80 | (count + 1 + place) for place in range(len(properties)))
    owned = data[ipma + 18]
    last = ipma + 19 + owned
    head = data[:end] + boxes + data[end : ipma + 18] + bytes([owned + len(numbers)]) + data[ipma + 19 : last] + numbers
    changed = bytearray(head + data[last:])
    added = len(boxes) + len(numbers)
    # The size of each box that has grown, and the offset of the only item.
    places = ((meta, added), (iprp, added), (ipco, len(boxes)), (ipma + len(boxes), len(numbers)), (iloc + 22, added))
    for place, by in places:
        changed[place : place + 4] = struct.pack(">I", int.from_bytes(changed[place : place + 4]) + by)
    return bytes(changed)


def by_pillow(data: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(data))
    image.load()
    # Pillow tells of `irot` and `imir` as an orientation of EXIF.
    return image.size[::-1] if image.getexif().get(0x0112, 1) > 4 else image.size


def by_libvips(data: bytes) -> tuple[int, int]:
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    return image.width, image.height


file = io.BytesIO()
Image.new("RGB", (32, 24), "red").save(file, "AVIF")
stored = file.getvalue()
cases = [
    ("as stored", stored, (32, 24), (32, 24)),
    ("with clap of 31 x 23", with_properties(stored, (b"clap", CLAP)), (32, 24), (31, 23)),
    ("with clap and irot", with_properties(stored, (b"clap", CLAP), (b"irot", b"\1")), (24, 32), (23, 31)),
]
as_stated = True
for name, data, *expected in cases:
    seen = [by_pillow(data), by_libvips(data)]
    print(f"{name}: pillow {seen[0]}; libvips {seen[1]}")
    as_stated &= seen == expected
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
