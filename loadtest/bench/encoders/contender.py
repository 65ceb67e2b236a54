"""One contender of `python -m loadtest.bench encoders`: a process that repeats one kind of forward of one family.

Its argument is a job in JSON. `kind` is `ours`, or one of the family's `REFERENCES`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from loadtest.bench.encoders.families import family_of
from loadtest.bench.forwards.rounds import Forward, answer_rounds
from model.checkpoint.load import load_checkpoint
from model.pack import PackedBatch, pack
from model.running.runner import Runner


def main() -> None:
    job = json.loads(sys.argv[1])
    family, folder = family_of(job["family"]), Path(job["folder"])
    batch = batch_of([(h, w) for h, w in job["grids"]], family.PATCH)
    if job["kind"] == "ours":
        forward = getattr(family, "ours", ours)(folder, job["dtype"], batch)
    else:
        forward = family.REFERENCES[job["kind"]](folder, getattr(torch, job["dtype"]), batch)
    answer_rounds(forward, job["clock"], job["answer"])


def ours(folder: Path, dtype: str, batch: PackedBatch) -> Forward:
    """From uint8 patch rows to pooled vectors on the host."""
    runner = Runner(load_checkpoint(str(folder)), dtype=dtype)  # type: ignore[arg-type]
    return lambda: runner.run(batch).pooled


def batch_of(grids: list[tuple[int, int]], patch: int) -> PackedBatch:
    """A pack of noise with these grids, the same in every process."""
    random = np.random.default_rng(0)
    return pack([random.integers(0, 256, (h * w, 3 * patch**2), np.uint8) for h, w in grids], grids)


if __name__ == "__main__":
    main()
