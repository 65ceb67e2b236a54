"""Drawn pictures on disk, which training reads more than once.

Shards hold JPEG files, end to end. A shard is written whole or not at all, so drawing continues after an interruption.
When the drawing code changes, drawing starts again. Knows nothing of views or training.
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.draw import Kind, draw, edition, kind_of

_QUALITY = 92


class Pool:
    """Pictures drawn from seeds 0, 1, 2 and so on, in a folder."""

    def __init__(self, folder: Path, *, count: int, shard: int = 250) -> None:
        """count: number of pictures, rounded up to whole shards. shard: pictures in a file."""
        self._folder, self._shard = folder, shard
        self._shards = -(-count // shard)
        self._edition = edition()
        self._open: dict[int, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return self._shards * self._shard

    def fill(self, workers: int) -> Iterator[int]:
        """Draws missing pictures in `workers` processes. Yields the number of pictures, first and after each shard."""
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = [shard for shard in range(self._shards) if not self._path(shard).exists()]
        done = len(self) - self._shard * len(missing)
        yield done
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
            for _ in processes.map(self._draw_shard, missing):
                done += self._shard
                yield done

    def __getitem__(self, number: int) -> Image.Image:
        """Returns a picture in mode RGB."""
        shard, place = divmod(number, self._shard)
        if shard not in self._open:
            file = np.load(self._path(shard))
            self._open[shard] = file["bytes"], file["offsets"]
        data, offsets = self._open[shard]
        with Image.open(io.BytesIO(data[offsets[place] : offsets[place + 1]].tobytes())) as picture:
            return picture.convert("RGB")

    def kind(self, number: int) -> Kind:
        """Returns the kind of a picture."""
        return kind_of(number)

    def _path(self, shard: int) -> Path:
        return self._folder / f"{self._edition}-{shard:05}.npz"

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": {}}  # each process opens its own

    def _draw_shard(self, shard: int) -> None:
        files = []
        for seed in range(shard * self._shard, (shard + 1) * self._shard):
            file = io.BytesIO()
            draw(seed).save(file, "JPEG", quality=_QUALITY, subsampling=0)
            files.append(file.getvalue())
        offsets = np.cumsum([0, *map(len, files)])
        path = self._path(shard)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as out:
            np.savez(out, bytes=np.frombuffer(b"".join(files), np.uint8), offsets=offsets)
        os.replace(unfinished, path)
