"""Finds the image files of a folder by their names."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from model.images.formats import heic

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""Suffixes, in lower case, of the formats in `model.images.container.FORMATS`."""


@dataclass(slots=True)
class FolderFiles:
    """The files in a folder and all folders below it.

    images: those with a suffix of a format that is read. others: the other files. unreadable: folders that cannot be
    listed, and links that lead nowhere, each with the reason.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def folder_files(folder: Path) -> FolderFiles:
    """Searches a folder. Links to folders are followed. A folder is searched once, however many links lead to it."""
    found = FolderFiles()
    scan = FolderScan(folder, other=found.others.append)
    found.images = list(scan.images())
    found.others.sort()
    found.unreadable = scan.unreadable
    return found


class FolderScan:
    """The image files of a folder, as `folder_files` finds them, without a list of them: it keeps the folders alone.

    count: of the image files. unreadable: as in `FolderFiles`.
    """

    def __init__(self, folder: Path, other: Callable[[Path], object]) -> None:
        """other: is told of each file that is no image."""
        self.count = 0
        self.unreadable: list[tuple[Path, str]] = []
        self._folder, self._other = folder, other
        self._suffixes = (*SUFFIXES, *heic.SUFFIXES) if heic.installed() else SUFFIXES
        # Links wait at the end, so that a folder that also lies in the tree keeps the path without a link.
        pending = deque([folder])
        searched: set[tuple[int, int]] = set()
        self._folders: set[Path] = set()
        while pending:
            below = pending.popleft()
            try:
                status = below.stat()
                if (status.st_dev, status.st_ino) in searched:
                    continue
                searched.add((status.st_dev, status.st_ino))
                with os.scandir(below) as entries:
                    for entry in entries:
                        self._sort_in(entry, pending)
            except OSError as error:
                self._fails(below, error)
                continue
            self._folders.add(below)

    def images(self) -> Iterator[Path]:
        """Sorted by path. Holds the names of one folder, and of those above it, at a time."""
        return self._images(self._folder)

    def _images(self, folder: Path) -> Iterator[Path]:
        if folder not in self._folders:
            return
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if self._is_wanted(folder, entry))
        except OSError as error:
            self._fails(folder, error)
            return
        for name in names:
            path = folder / name
            if path in self._folders:
                yield from self._images(path)
            else:
                yield path

    def _is_wanted(self, folder: Path, entry: os.DirEntry[str]) -> bool:
        path = folder / entry.name
        return path in self._folders or (path.suffix.lower() in self._suffixes and _is_file(entry))

    def _fails(self, folder: Path, error: OSError) -> None:
        self.unreadable.append((folder, error.strerror or type(error).__name__))

    def _sort_in(self, entry: os.DirEntry[str], pending: deque[Path]) -> None:
        path = Path(entry.path)
        # Pipes, sockets and devices are neither.
        if _is_folder(entry):
            pending.append(path) if entry.is_symlink() else pending.appendleft(path)
        elif _is_file(entry):
            if path.suffix.lower() in self._suffixes:
                self.count += 1
            else:
                self._other(path)
        elif entry.is_symlink():
            self.unreadable.append((path, "the link leads nowhere"))


# A folder tells what its entries are, so that no file is asked but links: on a network file system each question is a
# round trip. These are False for what cannot be asked, such as a link to itself.


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def image_files(folder: Path) -> list[Path]:
    """Image files in the folder and all folders below it, sorted by path."""
    return folder_files(folder).images
