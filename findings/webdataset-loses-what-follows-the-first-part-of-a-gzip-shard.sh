#!/usr/bin/env bash
# webdataset and datasets: of a gzip shard in several parts, only the samples of the first part are read.
#
# Versions: webdataset 1.0.2, datasets 5.2.0, Python 3.11.7. Seen on 2026-11-30.
# Behaviour: RFC 1952 says that a gzip file is a series of members. eStargz writes one for each file of a tar, bgzip one for every
#   64 KiB. gzip, tar, Python's gzip and tarfile's mode "r:*" read all of them. tarfile's mode for streams, "r|*", takes the end of
#   the first for the end of the file. webdataset and datasets open shards with it. If the first member ends between two samples,
#   what follows is lost without a word. If it ends within one, tarfile raises ReadError.
# Output seen (a shard of 40 samples, in one member and in two):
#   one member: gunzip and tar 40, tarfile r:* 40, tarfile r|* 40, webdataset 40, datasets 40
#   two members: gunzip and tar 40, tarfile r:* 40, tarfile r|* 25, webdataset 25, datasets 25
# Why it matters: a job that embeds such shards ends well, and many of their pictures have no vector. Compare the count of samples
#   with that of `tar -tzf`, or give the reader what `gzip -dc` gives.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 webdataset==1.0.2
export HF_HOME=$folder HF_HUB_OFFLINE=1
venv/bin/python - <<'PYTHON'
import gzip
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import webdataset

datasets.disable_progress_bars()
file = io.BytesIO()
with tarfile.open(fileobj=file, mode="w") as tar:
    for number in range(40):
        entry = tarfile.TarInfo(f"{number:04d}.txt")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"%05d" % number))
whole = file.getvalue()
# 25 samples of two blocks each.
parts = whole[: 25 * 1024], whole[25 * 1024 :]
found = {}
for name, members in (("one", [whole]), ("two", parts)):
    path = f"{name}.tar.gz"
    Path(path).write_bytes(b"".join(map(gzip.compress, members)))
    listed = subprocess.run(["tar", "-tzf", path], capture_output=True, check=True, text=True).stdout
    with tarfile.open(path, "r:*") as anywhere, tarfile.open(path, "r|*") as forward:
        found[name] = {
            "gunzip and tar": len(listed.splitlines()), "tarfile r:*": len(anywhere.getnames()), "tarfile r|*": len(list(forward)),
        }
    found[name]["webdataset"] = len(list(webdataset.WebDataset(path, shardshuffle=False)))
    found[name]["datasets"] = datasets.load_dataset("webdataset", data_files=path, split="train").num_rows
    many = "member" if name == "one" else "members"
    print(f"{name} {many}: {', '.join(f'{reader} {count}' for reader, count in found[name].items())}")
as_stated = set(found["one"].values()) == {40} and list(found["two"].values()) == [40, 40, 25, 25, 25]
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
