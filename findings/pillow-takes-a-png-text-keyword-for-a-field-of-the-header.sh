#!/usr/bin/env bash
# Pillow: the keyword of a PNG text chunk replaces what the decoder keeps under the same name.
#
# Versions: pillow 13.0.0, pypng 0.20220715.0. Seen on 2026-11-29.
# Behaviour: texts go into the dictionary, Image.info, from which the PNG reader takes whether the file is interlaced, the
#   transparent colour and the area of a frame. A valid file with a text named "interlace" or "bbox" before its pixels
#   cannot be loaded; with one named "transparency" it loads, and cannot be converted to RGBA. pypng reads all of them.
# Output seen:
#   Comment: pillow reads the pixels; pypng reads the pixels
#   interlace: pillow raises OSError in load(); pypng reads the pixels
#   bbox: pillow raises ValueError in load(); pypng reads the pixels
#   transparency: pillow raises TypeError in convert(); pypng reads the pixels
# Why it matters: keywords of texts are free, and programs write their own parameters there. A service that serves
#   embeddings calls such a picture corrupt. Drop text chunks before decoding if only pixels are needed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 pypng==0.20220715.0
venv/bin/python - <<'PYTHON'
import io
import struct
import sys
import zlib

import png
from PIL import Image

ROWS = [[40 * row + 10 * column for column in range(24)] for row in range(6)]  # 8 x 6 pixels, RGB


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def file_with(keyword: str) -> bytes:
    header = struct.pack(">IIBBBBB", 8, 6, 8, 2, 0, 0, 0)
    pixels = b"".join(b"\0" + bytes(value % 256 for value in row) for row in ROWS)
    chunks = [(b"IHDR", header), (b"tEXt", keyword.encode() + b"\0no"), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)


def by_pillow(data: bytes) -> str:
    call = "load"
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        call = "convert"
        pixels = image.convert("RGBA").convert("RGB").tobytes()
    except (OSError, TypeError, ValueError) as error:
        return f"raises {type(error).__name__} in {call}()"
    expected = bytes(value % 256 for row in ROWS for value in row)
    return "reads the pixels" if pixels == expected else "reads other pixels"


def by_pypng(data: bytes) -> str:
    rows = [list(row) for row in png.Reader(bytes=data).read()[2]]
    return "reads the pixels" if rows == [[value % 256 for value in row] for row in ROWS] else "reads other pixels"


stated = {
    "Comment": "reads the pixels",
    "interlace": "raises OSError in load()",
    "bbox": "raises ValueError in load()",
    "transparency": "raises TypeError in convert()",
}
as_stated = True
for keyword, expected in stated.items():
    data = file_with(keyword)
    pillow, pypng = by_pillow(data), by_pypng(data)
    print(f"{keyword}: pillow {pillow}; pypng {pypng}")
    as_stated &= (pillow, pypng) == (expected, "reads the pixels")
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
