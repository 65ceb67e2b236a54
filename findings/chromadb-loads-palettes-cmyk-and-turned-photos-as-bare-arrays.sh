#!/usr/bin/env bash
# Chroma: the loader of pictures hands on palette indices, inks and unturned pixels as if they were what is seen.
#
# Versions: chromadb 1.5.9, pillow 13.0.0. Seen on 2026-11-30.
# Behaviour: a collection with data_loader=ImageLoader() takes `uris` of pictures and gives its embedding function the arrays
#   numpy.array(Image.open(uri)). An array has no mode: indices of a palette are taken for gray, and the four inks of a CMYK
#   JPEG for RGB with alpha. Chroma's own OpenCLIPEmbeddingFunction does so with Image.fromarray. The orientation of EXIF is
#   lost too. The documentation of the loader says nothing of it (docs.trychroma.com, Multimodal).
# Output seen (each file shows red on the left and blue on the right; the colours that the embedding function sees there):
#   RGB: [255, 0, 0] [0, 0, 255]
#   palette: [1, 1, 1] [0, 0, 0]
#   CMYK: [0, 255, 255] [255, 255, 0]
#   turned by EXIF: 4 x 8 pixels, shown as 8 x 4
# Why it matters: GIFs and small PNGs have palettes, print has CMYK, and phones turn by EXIF. Their vectors in the collection
#   are those of black, negative or lying pictures, and no error is raised. Convert first: give `images` arrays of
#   numpy.asarray(ImageOps.exif_transpose(picture).convert("RGB")), or vectors of a server that decodes files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet chromadb==1.5.9 pillow==13.0.0
ANONYMIZED_TELEMETRY=False venv/bin/python - <<'PYTHON'
import sys

import chromadb
import numpy as np
from chromadb import EmbeddingFunction
from chromadb.utils.data_loaders import ImageLoader
from PIL import Image

LEFT, RIGHT = (255, 0, 0), (0, 0, 255)
seen = []


class Telling(EmbeddingFunction):
    """Takes arrays as OpenCLIPEmbeddingFunction does: by Image.fromarray, then RGB."""

    def __init__(self):
        pass

    def __call__(self, input):
        seen.extend(Image.fromarray(array).convert("RGB") for array in input)
        return [np.ones(2, np.float32) for _ in input]

    @staticmethod
    def name():
        return "telling"


picture = Image.new("RGB", (8, 4), LEFT)
picture.paste(RIGHT, (4, 0, 8, 4))
picture.save("rgb.png")
palette = Image.new("P", (8, 4), 1)
palette.putpalette([*RIGHT, *LEFT])
palette.paste(0, (4, 0, 8, 4))
palette.save("palette.png")
picture.convert("CMYK").save("cmyk.jpg", quality=100)
exif = Image.Exif()
exif[0x0112] = 6
# Stored on its side: a reader that obeys EXIF turns it by 90 degrees clockwise.
picture.transpose(Image.Transpose.ROTATE_90).save("turned.jpg", exif=exif, quality=100)

collection = chromadb.EphemeralClient().create_collection(
    "pictures", embedding_function=Telling(), data_loader=ImageLoader()
)
names = ["rgb.png", "palette.png", "cmyk.jpg", "turned.jpg"]
collection.add(ids=names, uris=names)
colours = [[list(image.getpixel((x, 2))) for x in (1, 6)] for image in seen[:3]]
for name, (left, right) in zip(("RGB", "palette", "CMYK"), colours, strict=True):
    print(f"{name}: {left} {right}")
width, height = seen[3].size
print(f"turned by EXIF: {width} x {height} pixels, shown as 8 x 4")


def near(found: list[list[int]], stated: list[list[int]]) -> bool:
    return bool(np.abs(np.array(found) - np.array(stated)).max() <= 3)


as_stated = (
    near(colours[0], [[255, 0, 0], [0, 0, 255]])
    and near(colours[1], [[1, 1, 1], [0, 0, 0]])
    and near(colours[2], [[0, 255, 255], [255, 255, 0]])
    and (width, height) == (4, 8)
)
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
