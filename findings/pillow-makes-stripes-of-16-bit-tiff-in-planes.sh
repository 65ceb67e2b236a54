#!/usr/bin/env bash
# Pillow: a 16-bit TIFF with a plane for each colour is read as stripes, if it is not compressed.
#
# Versions: pillow 13.0.0, tifffile 2026.3.3, imagecodecs 2026.3.6. Seen on 2026-11-29.
# Behaviour: TIFF 6.0 lets samples lie in planes of their own (PlanarConfiguration 2). Pillow opens RGB, RGBA and CMYK of 16
#   bits laid out so, and reads the bytes of a plane as if they were samples of 8 bits: every other pixel is a low byte,
#   and half of the plane is missing. No error is raised. The same samples side by side, or compressed, are right.
# Output seen (a red picture, every sample 0xC811 in the first plane and 0x1E22 in the others):
#   side by side, not compressed: pillow [200, 30, 30] [200, 30, 30]; tifffile [200, 30, 30] [200, 30, 30]
#   in planes, LZW: pillow [200, 30, 30] [200, 30, 30]; tifffile [200, 30, 30] [200, 30, 30]
#   in planes, not compressed: pillow [17, 34, 34] [200, 30, 30]; tifffile [200, 30, 30] [200, 30, 30]
# Why it matters: scanners, microscopes and tifffile itself write such files. An embedding of the stripes looks like any
#   other. Read more than 8 bits a sample with tifffile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6
venv/bin/python - <<'PYTHON'
import io
import sys

import numpy as np
import tifffile
from PIL import Image

samples = np.full((8, 8, 3), (0xC811, 0x1E22, 0x1E22), np.uint16)
RED = [200, 30, 30]


def file_of(*, planes: bool, compression: str | None) -> bytes:
    file = io.BytesIO()
    stored = np.moveaxis(samples, -1, 0) if planes else samples
    layout = "separate" if planes else "contig"
    tifffile.imwrite(file, stored, photometric="rgb", planarconfig=layout, compression=compression)
    return file.getvalue()


def by_pillow(data: bytes) -> list[list[int]]:
    return np.asarray(Image.open(io.BytesIO(data)))[0, :2].tolist()


def by_tifffile(data: bytes, *, planes: bool) -> list[list[int]]:
    read = tifffile.imread(io.BytesIO(data))
    return ((np.moveaxis(read, 0, -1) if planes else read) >> 8)[0, :2].tolist()


as_stated = True
for planes, compression in ((False, None), (True, "lzw"), (True, None)):
    data = file_of(planes=planes, compression=compression)
    pillow, right = by_pillow(data), by_tifffile(data, planes=planes)
    name = f"{'in planes' if planes else 'side by side'}, {'LZW' if compression else 'not compressed'}"
    print(f"{name}: pillow {pillow[0]} {pillow[1]}; tifffile {right[0]} {right[1]}")
    wrong = planes and not compression
    as_stated &= right == [RED, RED] and (pillow != [RED, RED]) == wrong
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
