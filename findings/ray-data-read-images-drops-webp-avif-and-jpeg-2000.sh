#!/usr/bin/env bash
# Ray Data: read_images leaves out WebP, AVIF, JPEG 2000 and names without a suffix, also those that a list names.
#
# Versions: ray 2.60.0, pillow 13.0.0, numpy 2.4.6, pyarrow 26.0.1. Seen on 2026-11-30.
# Behaviour: read_images keeps names with the suffixes png, jpg, jpeg, tif, tiff, bmp and gif, and drops all others
#   without an error or a warning, though Pillow, which decodes them, reads them. This holds for a folder and for an
#   explicit list of files. With file_extensions=None it reads them all.
# Output seen:
#   a folder: a.jpg b.png
#   a list of all six: a.jpg b.png
#   file_extensions=None: a.jpg b.png c.webp d.avif e.jp2 f
# Why it matters: a job that embeds a folder has no vectors for its newer formats, and ends with success; nothing but a
#   count of rows shows it. Pass file_extensions=None, or read bytes and decode them yourself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet 'ray[data]==2.60.0' pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1
RAY_USAGE_STATS_ENABLED=0 venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import logging
import sys
from pathlib import Path

import ray
from PIL import Image

pictures = Path("pictures").absolute()
pictures.mkdir()
kinds = {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.avif": "AVIF", "e.jp2": "JPEG2000", "f": "PNG"}
for name, kind in kinds.items():
    Image.linear_gradient("L").resize((12, 8)).convert("RGB").save(pictures / name, kind)
ray.init(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False, logging_level=logging.ERROR)
ray.data.DataContext.get_current().enable_progress_bars = False


def read(what: str, *arguments: object, **options: object) -> list[str]:
    rows = ray.data.read_images(*arguments, include_paths=True, **options).take_all()
    names = sorted(Path(row["path"]).name for row in rows)
    print(f"{what}: {' '.join(names)}", flush=True)
    return names


files = [str(pictures / name) for name in kinds]
folder = read("a folder", str(pictures))
listed = read("a list of all six", files)
every = read("file_extensions=None", files, file_extensions=None)
seen = folder == listed == ["a.jpg", "b.png"] and every == sorted(kinds)
sys.exit(0 if seen else "the behaviour has changed")
PYTHON
