#!/usr/bin/env bash
# datasets: a WebDataset loses each picture whose suffix is not among those of the first samples.
#
# Versions: datasets 5.2.0, webdataset 1.0.2, pillow 13.0.0, pyarrow 25.0.1. Seen on 2026-11-30.
# Behaviour: load_dataset("webdataset") makes its columns of the suffixes of the first five samples of the first shard. If these
#   differ among themselves, it raises ValueError. What comes later with another suffix is dropped without a word: the row is
#   there, its picture is None. That is so for PNG behind JPEG, for `.jpeg` behind `.jpg`, and for `.JPG` too. The webdataset
#   package, which defines the format, reads all of them. A user's project (issue 8 of Amshaker/Mobile-O) lost pictures so.
# Output seen (two shards: five .jpg, then .png, .jpeg and .JPG; and three .png):
#   webdataset: 11 pictures
#   datasets: 11 rows, 5 pictures; columns __key__, __url__, jpg
#   datasets, streaming: 11 rows, 5 pictures; columns __key__, __url__, jpg
#   datasets, .png as the fourth sample: ValueError
# Why it matters: pictures from the web are of several kinds, and so are shards of them. All that are not of the kind of the
#   first five have no vector, and cannot be found. Count the rows without a picture, or read the shards with webdataset.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 webdataset==1.0.2 pillow==13.0.0 pyarrow==25.0.1
export HF_HOME=$folder HF_HUB_OFFLINE=1
venv/bin/python - <<'PYTHON'
import io
import sys
import tarfile

import datasets
import webdataset
from PIL import Image

datasets.disable_progress_bars()


def shard(path: str, names: list[str]) -> str:
    """A tar with a picture for each name, of the kind that its suffix says."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            file = io.BytesIO()
            Image.new("RGB", (8, 8), "red").save(file, "PNG" if name.endswith("png") else "JPEG")
            entry = tarfile.TarInfo(name)
            entry.size = file.tell()
            file.seek(0)
            tar.addfile(entry, file)
    return path


mixed = shard("mixed.tar", ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.png", "6.jpeg", "7.JPG"])
later = shard("later.tar", ["8.png", "9.png", "10.png"])
early = shard("early.tar", ["0.jpg", "1.jpg", "2.jpg", "3.png", "4.jpg"])


def loaded(paths: list[str], streaming: bool = False) -> datasets.Dataset:
    return datasets.load_dataset("webdataset", data_files={"train": paths}, split="train", streaming=streaming)


def pictures(sample: dict) -> int:
    return sum(isinstance(value, Image.Image) for value in sample.values())


whole = sum(map(pictures, webdataset.WebDataset([mixed, later], shardshuffle=False).decode("pil")))
print(f"webdataset: {whole} pictures")
found = {}
for name, streaming in (("datasets", False), ("datasets, streaming", True)):
    rows = list(loaded([mixed, later], streaming))
    found[name] = (len(rows), sum(map(pictures, rows)))
    print(f"{name}: {len(rows)} rows, {found[name][1]} pictures; columns {', '.join(sorted(rows[0]))}")
try:
    loaded([early])
    refused = "no error"
except ValueError as error:
    refused = type(error).__name__
print(f"datasets, .png as the fourth sample: {refused}")
as_stated = whole == 11 and set(found.values()) == {(11, 5)} and refused == "ValueError"
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
