"""Image files: one that is named, and those of a folder."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from model.images.image_files import FolderScan
from service.jobs.rows import Picture
from service.jobs.sources.tars import SHARD_SUFFIXES
from service.names import SuffixCounts

TABLE_SUFFIXES = (".parquet", ".lance")
A_URL = "a URL, and files are read here: download it first"
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(name: str) -> bool:
    """Whether the name is that of no file here, and looks like `https://…`, `s3://…` or the like."""
    return bool(_URL.match(name)) and not os.path.exists(name)


def listed(name: str) -> Picture:
    """The file that a line of a list or a cell of a table names."""
    if is_url(name):
        return Picture(name, error=f"it is {A_URL}")
    if name.lower().endswith((*SHARD_SUFFIXES, *TABLE_SUFFIXES)):
        return Picture(name, error="a list names image files: name a shard or a table as a source of its own")
    return Picture(name, Path(name))


class File:
    """One file, whatever its name ends in."""

    total = 1

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Picture]:
        yield Picture(str(self._path), self._path)


class Folder:
    """The image files in a folder and below it, sorted by path. They are counted first, and listed folder by folder."""

    def __init__(self, folder: Path, others: SuffixCounts) -> None:
        """others: is told of files that are no images."""
        self._scan = FolderScan(folder, other=others.add)

    @property
    def total(self) -> int:
        return self._scan.count + len(self._scan.unreadable)

    def __iter__(self) -> Iterator[Picture]:
        for path in self._scan.images():
            yield Picture(str(path), path)
        for path, reason in self._scan.unreadable:
            yield Picture(str(path), error=reason)
