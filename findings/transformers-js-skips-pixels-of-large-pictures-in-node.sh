#!/usr/bin/env bash
# Transformers.js: in Node its processors make pictures smaller by skipping pixels, where those of Python average them.
#
# Versions: @huggingface/transformers 4.3.2, sharp 0.35.5, pillow 13.0.0. Seen on 2026-11-30.
# Behaviour: RawImage.resize, which the image processors call, maps bilinear and bicubic to libvips' affine transform. That
#   takes 2 × 2 or 4 × 4 pixels for each new one, whatever the scale, and measures from corners, not from centres. A comment
#   in src/utils/image.js says that Pillow does it like this. Pillow averages all that a new pixel covers. Lanczos, which goes
#   by sharp's resize, is right. Issue 595 of transformers.js, closed, tells of CLIP's vectors that differ from Python's.
# Output seen (SiglipImageProcessor without its rescaling; stripes of one pixel, black and white, from 1,024 to 224 pixels,
#   and a ramp from 0 to 255 over 1,024 columns, to 16; the first 8 numbers of a row):
#   bilinear: stripes 0 146 219 73 73 219 146 0; ramp 0 16 32 48 64 80 96 112
#     pillow: stripes 118 126 131 128 124 129 130 125; ramp 9 24 40 56 72 88 104 120
#   bicubic: stripes 0 157 241 49 49 241 157 0; ramp 0 16 32 48 64 80 96 112
#     pillow: stripes 119 129 127 128 128 127 127 128; ramp 8 23 40 56 72 88 104 120
#   lanczos: stripes 128 128 128 128 128 128 128 128; ramp 8 24 40 56 72 88 104 120
#     pillow: stripes 118 129 127 127 127 128 128 127; ramp 8 23 40 55 71 87 103 119
# Why it matters: SigLIP, CLIP and ViT resize by bilinear or bicubic. From a photo of some megapixels most pixels are left
#   out, cloth and print turn into patterns that are not there, and all is moved by nearly half a pixel. A query embedded in
#   Node is compared with an index made in Python, and nothing says so. Resize with sharp's resize first, or embed on a server.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0
npm install --silent --no-audit --no-fund --ignore-scripts @huggingface/transformers@4.3.2 sharp@0.35.5
cat > resize.mjs <<'JAVASCRIPT'
import { RawImage, SiglipImageProcessor } from "@huggingface/transformers";

const side = 1024;
const picture = (column) =>
  new RawImage(Uint8ClampedArray.from({ length: side * side * 3 }, (_, i) => column(Math.floor(i / 3) % side)), side, side, 3);
const pictures = [[picture((x) => 255 * (x % 2)), 224], [picture((x) => Math.floor(x / 4)), 16]];
const found = {};
for (const [name, resample] of [["bilinear", 2], ["bicubic", 3], ["lanczos", 1]]) {
  found[name] = [];
  for (const [image, size] of pictures) {
    const processor = new SiglipImageProcessor({
      do_resize: true, size: { height: size, width: size }, resample, do_rescale: false, do_normalize: false,
    });
    const { pixel_values } = await processor(image.clone());
    const start = (size / 2) * size;
    found[name].push(Array.from(pixel_values.data.slice(start, start + 8)));
  }
}
console.log(JSON.stringify(found));
JAVASCRIPT
node resize.mjs > found.json
venv/bin/python - <<'PYTHON'
import json
import sys

from PIL import Image

side = 1024
found = json.load(open("found.json"))
right = {}
for name in found:
    right[name] = []
    for column, size in ((lambda x: 255 * (x % 2), 224), (lambda x: x // 4, 16)):
        picture = Image.frombytes("L", (side, side), bytes(map(column, range(side))) * side)
        small = picture.resize((size, size), Image.Resampling[name.upper()])
        right[name].append([small.getpixel((x, size // 2)) for x in range(8)])
    for prefix, (stripes, ramp) in ((name, found[name]), ("  pillow", right[name])):
        print(f"{prefix}: stripes {' '.join(map(str, stripes))}; ramp {' '.join(map(str, ramp))}")


def apart(name: str, which: int) -> int:
    """The largest difference of the two, away from the picture's edge."""
    return max(abs(a - b) for a, b in zip(found[name][which][1:], right[name][which][1:], strict=True))


skips = all(apart(name, 0) > 50 and apart(name, 1) >= 7 for name in ("bilinear", "bicubic"))
sys.exit(0 if skips and apart("lanczos", 0) < 5 and apart("lanczos", 1) < 5 else "the behaviour has changed")
PYTHON
