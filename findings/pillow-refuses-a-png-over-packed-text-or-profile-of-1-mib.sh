#!/usr/bin/env bash
# Pillow: a valid PNG cannot be read if one of its compressed texts, or its colour profile, is over 1 MiB.
#
# Versions: pillow 13.0.0, pypng 0.20220715.0. Seen on 2026-11-29.
# Behaviour: Pillow inflates at most PngImagePlugin.MAX_TEXT_CHUNK, 1,048,576 bytes, of a zTXt, a compressed iTXt or an
#   iCCP chunk, and raises ValueError beyond that although the pixels do not depend on it. Behind the pixels, opening
#   works and load() raises. The same text uncompressed is read. pypng reads the pixels of all of these files.
# Output seen (each chunk holds 2 MiB, once inflated):
#   tEXt before the pixels: pillow reads the pixels; pypng reads the pixels
#   zTXt before the pixels: pillow raises ValueError in open(); pypng reads the pixels
#   iTXt before the pixels: pillow raises ValueError in open(); pypng reads the pixels
#   iCCP before the pixels: pillow raises ValueError in open(); pypng reads the pixels
#   zTXt behind the pixels: pillow raises ValueError in load(); pypng reads the pixels
# Why it matters: design tools write histories, prompts and XMP of megabytes into PNGs. A service that serves embeddings
#   calls such an upload corrupt, though nothing that it embeds is in the text. Drop these chunks before decoding, but
#   keep those that hold an orientation.
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

TEXT = b"a" * 2 * 1024 * 1024
CONTENTS = {
    b"tEXt": b"Comment\0" + TEXT,
    b"zTXt": b"Comment\0\0" + zlib.compress(TEXT),
    b"iTXt": b"Comment\0\1\0en\0Comment\0" + zlib.compress(TEXT),
    b"iCCP": b"Profile\0\0" + zlib.compress(TEXT),
}
ROW = [10, 20, 30, 40, 50, 60]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def file_with(kind: bytes, *, behind: bool) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0))
    parts = [chunk(kind, CONTENTS[kind]), chunk(b"IDAT", zlib.compress(b"\0" + bytes(ROW)))]
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts[::-1] if behind else parts) + chunk(b"IEND", b"")


def by_pillow(data: bytes) -> str:
    call = "open"
    try:
        image = Image.open(io.BytesIO(data))
        call = "load"
        image.load()
    except ValueError:
        return f"raises ValueError in {call}()"
    return "reads the pixels" if list(image.tobytes()) == ROW else "reads other pixels"


def by_pypng(data: bytes) -> str:
    rows = [list(row) for row in png.Reader(bytes=data).read()[2]]
    return "reads the pixels" if rows == [ROW] else "reads other pixels"


stated = {
    (b"tEXt", False): "reads the pixels",
    (b"zTXt", False): "raises ValueError in open()",
    (b"iTXt", False): "raises ValueError in open()",
    (b"iCCP", False): "raises ValueError in open()",
    (b"zTXt", True): "raises ValueError in load()",
}
as_stated = True
for (kind, behind), expected in stated.items():
    data = file_with(kind, behind=behind)
    pillow, pypng = by_pillow(data), by_pypng(data)
    place = "behind" if behind else "before"
    print(f"{kind.decode()} {place} the pixels: pillow {pillow}; pypng {pypng}")
    as_stated &= (pillow, pypng) == (expected, "reads the pixels")
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
