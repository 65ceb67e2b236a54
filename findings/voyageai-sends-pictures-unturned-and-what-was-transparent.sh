#!/usr/bin/env bash
# Voyage's client: a picture opened with Pillow is sent lying on its side, with what was transparent in it showing.
#
# Versions: voyageai 0.5.0, pillow 13.0.0. Seen on 2026-11-30.
# Behaviour: multimodal_embed takes PIL images. It converts each to RGB, which drops the alpha channel and shows the colours
#   beneath, and writes it as WebP without EXIF, which drops the orientation without turning the pixels. A dictionary with
#   `image_base64` is sent as it is.
# Output seen (what the client puts into its request):
#   a photo of 40 × 20 pixels, to be turned by 90°: 40 × 20, orientation 1
#   a transparent pixel over red: RGB (255, 0, 0)
# Why it matters: a phone's photos are embedded on their side, and cut-outs with whatever their editor left beneath the
#   transparent parts. No server can repair it. Turn and flatten first (ImageOps.exif_transpose, a paste on white), or send
#   the file's bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet voyageai==0.5.0 pillow==13.0.0
venv/bin/python - <<'PYTHON'
import base64
import io
import sys

import voyageai
from PIL import ExifTags, Image

sent = []


class Recorder(voyageai.MultimodalEmbedding):
    """Stands in for the request itself."""

    @classmethod
    def create(cls, **request):
        sent.append(request["inputs"][0]["content"][0]["image_base64"])
        raise SystemExit


voyageai.MultimodalEmbedding = Recorder


def received(picture: Image.Image) -> Image.Image:
    """The picture as a server reads it."""
    try:
        voyageai.Client(api_key="none").multimodal_embed(inputs=[[picture]], model="any")
    except SystemExit:
        return Image.open(io.BytesIO(base64.b64decode(sent.pop().partition(",")[2])))


exif = Image.Exif()
exif[ExifTags.Base.Orientation] = 6
file = io.BytesIO()
Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
photo = received(Image.open(file))
pixel = received(Image.new("RGBA", (1, 1), (255, 0, 0, 0)))
orientation = photo.getexif().get(ExifTags.Base.Orientation, 1)
print(f"a photo of 40 × 20 pixels, to be turned by 90°: {photo.width} × {photo.height}, orientation {orientation}")
print(f"a transparent pixel over red: {pixel.mode} {pixel.getpixel((0, 0))}")
as_stated = photo.size == (40, 20) and orientation == 1 and pixel.mode == "RGB" and pixel.getpixel((0, 0))[0] > 250
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
