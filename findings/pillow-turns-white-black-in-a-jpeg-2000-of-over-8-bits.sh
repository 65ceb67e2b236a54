#!/usr/bin/env bash
# Pillow: white is black in a colour JPEG 2000 of 9 to 16 bits a sample.
#
# Versions: pillow 13.0.0, imagecodecs 2026.3.6, numpy 2.4.6. Seen on 2026-11-29.
# Behaviour: Pillow rounds samples of more than 8 bits up to the nearest of 8 bits without a limit: the highest samples
#   become 256, which is 0 in a byte. With alpha, opaque becomes transparent. Gray without alpha is right, and so are
#   8 bits. imagecodecs gives the stored samples of all.
# Output seen (a white picture; with alpha, an opaque one):
#   RGB of 8 bits: pillow [255, 255, 255]; imagecodecs [255, 255, 255]
#   RGB of 9 bits: pillow [0, 0, 0]; imagecodecs [511, 511, 511]
#   RGB of 12 bits: pillow [0, 0, 0]; imagecodecs [4095, 4095, 4095]
#   RGB of 16 bits: pillow [0, 0, 0]; imagecodecs [65535, 65535, 65535]
#   RGBA of 16 bits: pillow [0, 0, 0, 0]; imagecodecs [65535, 65535, 65535, 65535]
# Why it matters: archives, satellites and scanners use 12 and 16 bits. The skies and papers of such pictures are black in
#   what is embedded; with alpha the whole picture is transparent. The highest 8 bits are `sample >> (bits - 8)`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import io
import sys

import imagecodecs
import numpy as np
from PIL import Image

as_stated = True
for channels, bits in ((3, 8), (3, 9), (3, 12), (3, 16), (4, 16)):
    white = 2**bits - 1
    samples = np.full((8, 8, channels), white, np.uint8 if bits == 8 else np.uint16)
    data = imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=bits, reversible=True)
    pillow = np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist()
    stored = imagecodecs.jpeg2k_decode(data)[0, 0].tolist()
    print(f"{'RGB' if channels == 3 else 'RGBA'} of {bits} bits: pillow {pillow}; imagecodecs {stored}")
    as_stated &= stored == [white] * channels
    as_stated &= pillow == [255 if bits == 8 else 0] * channels
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
