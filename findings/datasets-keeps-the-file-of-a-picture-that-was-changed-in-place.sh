#!/usr/bin/env bash
# datasets: a picture that was changed in place is stored as its file, without the change.
#
# Versions: datasets 5.2.0, pillow 13.0.0, pyarrow 25.0.1. Seen on 2026-11-30.
# Behaviour: the feature Image stores a Pillow picture that has a file name as that name alone, and reads the file again when
#   the row is asked for. A picture from Image.open keeps its file name when a drawing, a paste or thumbnail changes it. So
#   Dataset.from_dict and map lose what was done. Nothing warns. A picture that came from bytes, as in Parquet, has no file
#   name: its change is kept. So one and the same function for map works or does not, by where the pictures lie. The
#   documentation of Image says nothing of it.
# Output seen (a red picture of 400 × 300 pixels; thumbnail makes it smaller, a drawing paints it black):
#   in hand: (40, 30) and (0, 0, 0)
#   from_dict: (400, 300) and (255, 0, 0)
#   map, of a file: (400, 300) and (255, 0, 0)
#   map, of a file, a copy changed: (40, 30) and (0, 0, 0)
#   map, of bytes: (40, 30) and (0, 0, 0)
#   map, of a file, to Parquet with the bytes: (400, 300) and (255, 0, 0)
# Why it matters: faces and number plates that were painted over are in the dataset again, and in what is embedded or
#   published from it. A crop or a mask that was pasted in has no effect on the vectors. Return picture.copy() and change that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 pillow==13.0.0 pyarrow==25.0.1
export HF_HOME=$folder HF_HUB_OFFLINE=1
venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

import datasets
from PIL import Image, ImageDraw

datasets.disable_progress_bars()
RED, BLACK = (255, 0, 0), (0, 0, 0)
Image.new("RGB", (400, 300), RED).save("red.png")


def smaller(picture: Image.Image) -> Image.Image:
    picture.thumbnail((40, 40))
    return picture


def covered(picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(picture).rectangle((0, 0, *picture.size), fill=BLACK)
    return picture


def rows(values: list) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"image": values}, features=datasets.Features({"image": datasets.Image()}))


def mapped(source: datasets.Dataset, change, prepare=lambda picture: picture) -> datasets.Dataset:
    return source.map(lambda row: {"image": change(prepare(row["image"]))}, load_from_cache_file=False)


def parquet(source: datasets.Dataset) -> datasets.Dataset:
    source.to_parquet("out.parquet")
    return datasets.Dataset.from_parquet("out.parquet", cache_dir=f"cache-{source._fingerprint}")


of_file = rows(["red.png"])
of_bytes = rows([{"bytes": Path("red.png").read_bytes(), "path": None}])
ways = {
    "in hand": lambda change: change(Image.open("red.png")),
    "from_dict": lambda change: rows([change(Image.open("red.png"))])[0]["image"],
    "map, of a file": lambda change: mapped(of_file, change)[0]["image"],
    "map, of a file, a copy changed": lambda change: mapped(of_file, change, lambda p: p.copy())[0]["image"],
    "map, of bytes": lambda change: mapped(of_bytes, change)[0]["image"],
    "map, of a file, to Parquet with the bytes": lambda change: parquet(mapped(of_file, change))[0]["image"],
}
found = {name: (way(smaller).size, way(covered).getpixel((5, 5))) for name, way in ways.items()}
for name, (size, colour) in found.items():
    print(f"{name}: {size} and {colour}")
lost = {"from_dict", "map, of a file", "map, of a file, to Parquet with the bytes"}
stated = {name: ((400, 300), RED) if name in lost else ((40, 30), BLACK) for name in ways}
sys.exit(0 if found == stated else "the behaviour has changed")
PYTHON
