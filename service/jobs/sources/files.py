"""Image files: one that is named, and those of a folder."""

from collections.abc import Iterator
from pathlib import Path

from model.images.image_files import FolderScan
from service.jobs.rows import Picture
from service.names import SuffixCounts


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
