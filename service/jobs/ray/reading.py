"""Where a job on Ray gets its pictures: our own sources, as a datasource of Ray Data."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from service.jobs.ray.messages import READ, read_table
from service.jobs.reading import read_file
from service.jobs.rows import Picture
from service.jobs.sources.source import Source
from service.jobs.sources.tables import TableSource
from service.jobs.sources.tars import TarShards

# A read task gives its pictures in tables of about so many bytes.
_TABLE_BYTES = 16 * 1024**2

# Ray's own readers are not used, for any source. `read_binary_files` ends the whole read at a file that is missing.
# `read_webdataset` makes one row of the files of a shard with one stem, and says nothing of a shard that is cut off.
# `read_parquet` gives rows without their numbers, which name our pictures. Ours give a row with an error instead.


class PictureSource(Datasource):  # type: ignore[misc]
    """A task for each tar shard and each table, and one for each run of files. The driver lists files: it knows the
    folder and the standard input that a user means."""

    def __init__(self, sources: Iterable[Source], *, most_file_bytes: int, task_files: int) -> None:
        """most_file_bytes: larger files are not read. task_files: that one task reads, at most."""
        super().__init__()
        self._most_file_bytes = most_file_bytes
        self.units = list(_units(sources, task_files))

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """As many as there are units, whatever is asked for."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        read = partial(tables, most_file_bytes=self._most_file_bytes, folder=os.getcwd())
        return [ReadTask(partial(read, number, unit), unknown, schema=READ) for number, unit in enumerate(self.units)]


def _units(sources: Iterable[Source], task_files: int) -> Iterator[Iterable[Picture]]:
    """What a task reads: a source of bytes, or a list of files."""
    files: list[Picture] = []
    for source in sources:
        if isinstance(source, TarShards | TableSource):
            if files:
                yield files
            files = []
            yield source
            continue
        pictures = iter(source)
        while more := list(islice(pictures, task_files - len(files))):
            files += more
            if len(files) == task_files:
                yield files
                files = []
    if files:
        yield files


def tables(unit: int, pictures: Iterable[Picture], *, most_file_bytes: int, folder: str) -> Iterator[pa.Table]:
    """The pictures of one unit, with their bytes. folder: of the driver, from which relative names count."""
    # This process works for one job alone.
    with suppress(OSError):
        os.chdir(folder)
    first, size = 0, 0
    held: list[Picture] = []
    for picture in pictures:
        held.append(_read(picture, most_file_bytes))
        size += len(held[-1].data) if isinstance(held[-1].data, bytes) else 0
        if size >= _TABLE_BYTES:
            yield read_table(unit, first, held)
            first, size, held = first + len(held), 0, []
    yield read_table(unit, first, held)


def _read(picture: Picture, most_file_bytes: int) -> Picture:
    if picture.error or not isinstance(picture.data, Path):
        return picture
    try:
        return Picture(picture.path, read_file(picture.data, most_file_bytes))
    except OSError as error:
        return Picture(picture.path, error=error.strerror or str(error))
